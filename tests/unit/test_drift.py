"""Recorded lines, each with something in them changed: no connection raises, whatever a newer command line prints."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.claude_wire.connection import ClaudeConnection
from shared.events import TERMINAL, ToolUse
from shared.providers.amp.connection import AmpConnection
from shared.providers.codex.connection import CodexConnection
from shared.providers.gemini.connection import GeminiConnection
from shared.sansio import Connection, Prompt

TRANSCRIPTS = Path(__file__).parents[1] / "transcripts"
REPLACEMENTS: tuple[Any, ...] = (None, 7, "other", [], {}, [None], {"new": [1]}, True)
DEPTH = 4
"""Of the changes: nothing deeper is read."""
CONNECTIONS: dict[str, Callable[[], Connection]] = {
    "claude": ClaudeConnection,
    "codex": CodexConnection,
    "gemini": lambda: GeminiConnection("/w"),
    "amp": AmpConnection,
}
RECORDINGS = (
    "claude/success", "claude/thinking", "claude/tool_attempt", "claude/e429_retries0",
    "codex/app_known_model_gpt-6.1-sol", "codex/app_e429", "codex/app_interrupt",
    "gemini/full_session", "gemini/unrestricted_perm_cancel", "amp/ok_thinking", "amp/err_set",
)  # fmt: skip
DECIDING = ('"type":"result"', '"method":"turn/completed"', '"stopReason"')


def lines_of(recording: str) -> list[dict[str, Any]]:
    """What the command line printed."""
    lines = [json.loads(line) for line in (TRANSCRIPTS / f"{recording}.jsonl").read_text().splitlines()]
    return [line.get("msg", line) for line in lines if line.get("dir", "<") == "<"]


def changes(value: Any, depth: int = DEPTH) -> Iterator[Any]:
    """The value with one thing in it replaced, or left out, at a time."""
    if isinstance(value, dict) and depth:
        for key in value:
            yield {other: value[other] for other in value if other != key}
            for changed in changes(value[key], depth - 1):
                yield {**value, key: changed}
    elif isinstance(value, list) and value and depth:
        for changed in changes(value[0], depth - 1):
            yield [changed, *value[1:]]
    yield from REPLACEMENTS


def turn_before(provider: str, lines: list[dict[str, Any]]) -> Connection:
    """A connection with one turn, after these lines."""
    connection = CONNECTIONS[provider]()
    connection.handshake()
    connection.start_turn("turn", Prompt(text="hi"))
    for line in lines:
        connection.receive([json.dumps(line).encode()])
    return connection


@pytest.mark.parametrize("recording", RECORDINGS)
def test_no_change_of_a_line_raises(recording: str):
    """And the turn has an end all the same, when the process has."""
    provider = recording.partition("/")[0]
    lines = lines_of(recording)
    for position, line in enumerate(lines):
        for changed in changes(line):
            connection = turn_before(provider, lines[:position])
            events = connection.receive([json.dumps(changed).encode()])
            assert all(batch for _, batch in events)
            connection.closed(1, "")
            assert connection.closed(1, "") == []


def address(line: Any) -> Any:
    """What says that a line is the end of our turn; without it a line is another one, of a kind not known."""
    fields = line if isinstance(line, dict) else {}
    params = fields.get("params")
    thread = params.get("threadId") if isinstance(params, dict) else None
    return fields.get("id"), fields.get("method"), thread, fields.get("type")


@pytest.mark.parametrize("recording", RECORDINGS)
def test_a_turn_is_not_left_open_by_an_end_that_is_told_differently(recording: str):
    """It would be waited for until a deadline."""
    provider = recording.partition("/")[0]
    lines = lines_of(recording)
    position = next(
        number for number, line in enumerate(lines) if any(mark in compact(line) for mark in DECIDING)
    )
    end = lines[position]
    variants = [changed for changed in changes(end) if address(changed) == address(end)]
    assert len(variants) > len(REPLACEMENTS)
    for changed in variants:
        connection = turn_before(provider, lines[:position])
        batches = connection.receive([compact(changed).encode()])
        assert any(isinstance(event, (*TERMINAL, ToolUse)) for _, batch in batches for event in batch), (
            changed
        )


def compact(line: Any) -> str:
    """JSON without blanks."""
    return json.dumps(line, separators=(",", ":"))
