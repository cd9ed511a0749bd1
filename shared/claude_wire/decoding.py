"""Reading what ``claude -p`` prints: bytes to lines, and what a line is that is none of those that are known.

A newer version's kinds of lines are drift, which is noted and goes by; whatever could be the answer or the end of the
turn, and whatever is no JSON object, fails it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from shared.claude_wire.lines import Line
from shared.events import Failure, Notice

Decoded = Line | Notice | Failure
_LINE = msgspec.json.Decoder(Line)


def decoded(lines: Sequence[bytes]) -> list[Decoded]:
    """The lines, all in one call where they are all known; one by one where something is off."""
    try:
        known: list[Decoded] = _LINE.decode_lines(b"\n".join(lines))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return [_decoded_one(line) for line in lines if line.strip()]
    return known


def _decoded_one(line: bytes) -> Decoded:
    """A JSON object of an unknown kind is drift to be tolerated; anything else is not this protocol."""
    try:
        known: Decoded = _LINE.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _odd_line(line)
    return known


def _odd_line(line: bytes) -> Decoded:
    try:
        content = json.loads(line.decode(errors="replace"))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        text = f"the command line printed {len(line)} bytes that are not a JSON object"
        return Failure(code="provider_protocol_error", message=text)
    try:
        # Node escapes half of a surrogate pair where a text was cut there; strict JSON has no such string.
        known: Decoded = _LINE.decode(json.dumps(content, ensure_ascii=False).encode(errors="replace"))
    except msgspec.MsgspecError:
        return _unknown_line(content.get("type"))
    return known


def _unknown_line(kind: object) -> Notice | Failure:
    if kind in ("result", "assistant"):
        return Failure(code="provider_protocol_error", message=f"the {kind} line has an unknown shape")
    return Notice(f"line of unknown kind {kind!r}")
