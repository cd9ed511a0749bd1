"""What each suite is told about the endpoint it tests; a plug-in of pytest.

Runs in the suite's own environment, so it imports nothing of ours.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Lane:
    """One leased endpoint, and how to make the model behind it do something."""

    base_url: str
    api_key: str
    narrow_url: str
    """Of another lease, which runs one turn at a time and lets nobody wait; with the key ``narrow_key``."""
    narrow_key: str
    provider: str
    model: str
    response_formats: list[str]
    image_types: list[str]
    """As the endpoint's descriptor publishes them."""
    says: str
    """A prompt whose answer is the text in the place of ``{}``."""
    says_json: str
    """The same for a JSON object, in an answer that has to have a schema."""
    endless: str
    """A prompt that is not answered."""
    long: str
    """A prompt with an answer of many deltas that takes seconds."""
    fails: str
    """A prompt for which the model's service answers 429."""
    breaks: str
    """A prompt whose answer breaks off after some deltas."""

    def saying(self, text: str) -> str:
        """A prompt with this answer."""
        return self.says.replace("{}", text)

    def saying_json(self, text: str) -> str:
        """A prompt with this JSON object for an answer."""
        return self.says_json.replace("{}", text)


def read_lane() -> Lane:
    """The lane that the runner started this suite for."""
    return Lane(
        base_url=os.environ["OPENAI_BASE_URL"],
        api_key=os.environ["OPENAI_API_KEY"],
        narrow_key=os.environ["COMPAT_NARROW_KEY"],
        **json.loads(os.environ["COMPAT_LANE"]),
    )


def excluded() -> list[str]:
    """The tests that this lane leaves out, by name."""
    names: list[str] = json.loads(os.environ["COMPAT_EXCLUDED"])
    return names


@pytest.fixture(scope="session")
def lane() -> Lane:
    """The endpoint."""
    return read_lane()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is excluded; the runner checks that nothing else is skipped, and that all of these were there."""
    names = set(excluded())
    for item in items:
        if getattr(item, "originalname", item.name) in names:
            item.add_marker(pytest.mark.skip(reason="excluded"))
