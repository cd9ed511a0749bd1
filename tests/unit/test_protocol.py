"""The protocol between supervisor and zygote has the version that its parts have had since."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from shared import launch, scoreboard

MEANT = {1: "97ce5e9ec144c2bf"}
"""What each version stands for. A part that changes needs the next version, and a line here."""


def without_prose(schema: Any) -> Any:
    """A schema without its descriptions, which mean nothing to a peer."""
    if isinstance(schema, dict):
        return {key: without_prose(value) for key, value in schema.items() if key != "description"}
    return [without_prose(each) for each in schema] if isinstance(schema, list) else schema


def test_every_change_of_the_protocol_is_a_new_version():
    """A newer program adopts an older one's families only when it reads them right: messages, and the scoreboard."""
    parts = {
        "messages": without_prose(msgspec.json.schema(launch.ToZygote | launch.FromZygote)),
        "slots": scoreboard.SLOTS,
    }
    digest = hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()[:16]
    assert MEANT[launch.PROTOCOL] == digest
