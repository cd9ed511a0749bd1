"""The amp connection over recorded output of the real command line: each recording is a test."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from shared.errors import ProviderError
from shared.events import Failure, ToolUse
from shared.framing import LineFramer
from shared.provider import CommandInputs, require_model
from shared.providers.amp import PROVIDER
from shared.providers.amp.connection import AmpConnection
from shared.result import Projection
from shared.sansio import Prompt

RECORDINGS = Path(__file__).parents[1] / "transcripts" / "amp"
CHUNK_BYTES = (1_000_000, 4096, 7)
ENDS = {
    "conn_refused": ("", "provider_connection_failed"),
    "empty_stdin": ("", "provider_crashed"),
    "err_set": ("", "provider_overloaded"),
    "http_bad-401": ("", "provider_auth_failed"),
    "http_bad-402": ("", "quota_exhausted"),
    "http_bad-403": ("", "provider_auth_failed"),
    "http_bad-500": ("", "provider_error"),
    "no_key": ("", "not_logged_in"),
    "ok_deltas": ("d1 d2 d3 d4 d5 ", "stop"),
    "ok_plain": ("", "provider_protocol_error"),
    "ok_stream_json": ("echo: hi there", "stop"),
    "ok_thinking": (None, "stop"),
    "shell_all_locks": (None, "tool_use_refused"),
    "shell_default": (None, "tool_use_refused"),
    "sigterm_hang": ("", "turn_cancelled"),
    "stream_json_input": ("onetwo", "stop"),
}


def replay(name: str, chunk_bytes: int) -> Projection:
    """One turn over a recording."""
    connection, framer, projection = AmpConnection(), LineFramer(), Projection()
    connection.start_turn("turn", Prompt(text="x"))
    content = (RECORDINGS / f"{name}.jsonl").read_bytes()
    stderr = RECORDINGS / f"{name}.stderr"
    batches = []
    for start in range(0, len(content), chunk_bytes):
        batches += connection.receive(framer.push(content[start : start + chunk_bytes]))
    if tail := framer.flush():
        batches += connection.receive([tail])
    batches += connection.closed(1, stderr.read_text() if stderr.exists() else "")
    for _, events in batches:
        projection.show(events)
    return projection


@pytest.mark.parametrize("chunk_bytes", CHUNK_BYTES)
@pytest.mark.parametrize("name", ENDS)
def test_a_recording_means_what_it_means_however_it_is_cut(name: str, chunk_bytes: int):
    """Text and outcome. An exit code of 0 after an error is an error."""
    projection = replay(name, chunk_bytes)
    text, end = ENDS[name]
    assert (projection.error.code if projection.error else projection.completion.finish_reason) == end
    if text is not None:
        assert projection.completion.text == text


def test_every_recording_is_in_the_table():
    """A new recording needs its meaning."""
    assert set(ENDS) == {path.stem for path in RECORDINGS.glob("*.jsonl")}


def test_usage_and_thoughts():
    """From the message."""
    usage = replay("ok_stream_json", CHUNK_BYTES[0]).completion.usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (11, 7)
    assert replay("ok_thinking", CHUNK_BYTES[0]).completion.reasoning


def test_a_tool_request_is_seen_with_its_name():
    """In the first message that has one, before its result."""
    content = (RECORDINGS / "shell_all_locks.jsonl").read_bytes().splitlines()
    connection = AmpConnection()
    connection.start_turn("turn", Prompt(text="x"))
    ((_, events),) = connection.receive(content[:3])
    assert isinstance(events[-1], ToolUse)
    assert events[-1].tool_name == "shell_command"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"garbage", "provider_protocol_error"),
        (b'{"type":"result","is_error":"maybe"}', "provider_protocol_error"),
        (b'{"type":"assistant"}', "provider_protocol_error"),
        (b"No API key found. Starting login flow...", "not_logged_in"),
    ],
)
def test_what_is_not_the_protocol_ends_the_turn(line: bytes, code: str):
    """The login dialogue would wait for ever."""
    connection = AmpConnection()
    connection.start_turn("turn", Prompt(text="x"))
    ((_, events),) = connection.receive([line])
    assert isinstance(events[0], Failure)
    assert events[0].code == code
    assert connection.closed(0, "") == []


def test_unknown_kinds_of_lines_are_tolerated():
    """A newer amp may say more."""
    connection = AmpConnection()
    connection.start_turn("turn", Prompt(text="x"))
    assert connection.receive([b'{"type":"something","new":1}']) == []


def test_the_prompt_is_one_json_line():
    """Whatever it looks like; a system prompt stands before it."""
    connection = AmpConnection()
    connection.start_turn("turn", Prompt(text="/x @y\n--z", system="be brief"))
    (line,) = connection.data_to_send().splitlines()
    (block,) = json.loads(line)["message"]["content"]
    assert block["text"] == "<system_instructions>\nbe brief\n</system_instructions>\n\n/x @y\n--z"


INPUTS = CommandInputs(
    executable=("/bin/amp",),
    model="high",
    login="user",
    workspace="/w",
    home="/h",
    user_home="/u",
    variables={},
)


def test_modes_are_the_models():
    """The default leaves the flag out; an unknown mode, or a flag in its place, is refused."""
    assert PROVIDER.command(INPUTS).argv[-2:] == ("--mode", "high")
    default = PROVIDER.command(msgspec.structs.replace(INPUTS, model="default"))
    assert "--mode" not in default.argv
    for model in ("smart", "--dangerously-allow-all", ""):
        with pytest.raises(ProviderError, match="has only default, low, medium, high, ultra") as refused:
            require_model(PROVIDER, model)
        assert refused.value.code == "model_not_found"
    require_model(PROVIDER, "ultra")


def test_the_locks_are_in_a_settings_file_of_ours():
    """An empty list of enabled tools would not lock anything."""
    command = PROVIDER.command(INPUTS)
    settings = json.loads(command.files["/h/settings.json"])
    assert settings["amp.tools.enable"] == ["__none__"]
    assert settings["amp.tools.disable"] == ["*"]
    assert settings["amp.permissions"] == [{"tool": "*", "action": "reject"}]
    assert command.argv[command.argv.index("--settings-file") + 1] == "/h/settings.json"
    assert command.links == {"/h/.local/share/amp/secrets.json": "/u/.local/share/amp/secrets.json"}
    assert command.env["HOME"] == "/h"
