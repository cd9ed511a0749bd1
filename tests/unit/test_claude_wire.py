"""The claude connection over recorded output of the real command line: each recording is a test."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from shared.claude_wire.connection import ClaudeConnection
from shared.events import Failure, Notice, Result, ToolUse, Usage
from shared.framing import LineFramer
from shared.provider import CommandInputs, load
from shared.result import Projection
from shared.sansio import Image, Prompt

RECORDINGS = Path(__file__).parents[1] / "transcripts" / "claude"
CHUNK_BYTES = (1_000_000, 4096, 7)


class Expected(msgspec.Struct, frozen=True):
    """What a recording means: the text that was shown, and how it ended (a code, or a finish reason)."""

    text: str
    end: str
    usage: tuple[int, int] | None = None
    reasoning: str = ""


def words(count: int) -> str:
    """The numbered words of the scripted model."""
    return "".join(f"w{number} " for number in range(count))


OUTCOMES = {
    "disconnect_slow_nofb": Expected(words(2), "provider_connection_failed"),
    "e400": Expected("", "provider_rejected_request"),
    "e401_retries0": Expected("", "provider_auth_failed"),
    "e403": Expected("", "provider_auth_failed"),
    "e404_nofb": Expected("", "model_not_found"),
    "e429_retries0": Expected("", "rate_limit_exceeded"),
    "e429_retries2": Expected("", "rate_limit_exceeded"),
    "e500_retries0": Expected("", "provider_error"),
    "e529_retries0": Expected("", "provider_overloaded"),
    "empty_prompt": Expected("", "provider_crashed"),
    "empty_reply": Expected("", "stop", (222, 1)),
    "eof_slow_nofb": Expected(words(3), "provider_connection_failed"),
    "max_tokens": Expected("echo: go", "length", (229, 4)),
    "noauth": Expected("", "not_logged_in"),
    "recipe_final_197": Expected("", "provider_protocol_error"),
    "recipe_final_330": Expected(words(4), "stop", (232, 4)),
    "refusal_noretry": Expected("echo: go", "content_filter", (223, 4)),
    "sigint": Expected(words(6), "turn_cancelled"),
    "sigterm": Expected(words(7), "provider_crashed"),
    "sj_double_init": Expected("", "provider_crashed"),
    "sj_interrupt": Expected(words(6), "turn_cancelled"),
    "sj_malformed": Expected("", "provider_crashed"),
    "sse_error_nofb": Expected(words(3), "provider_overloaded"),
    "streaming50": Expected(words(50), "stop", (229, 50)),
    "streamjson_bare_composed_slash": Expected("echo: /cost", "stop", (220, 4)),
    "streamjson_oauth_composed_init_sp": Expected("echo: hello @note.txt", "stop", (457, 3)),
    "success": Expected("echo: hello there", "stop", (227, 4)),
    "thinking": Expected("echo: go", "stop", (227, 4), "thought0 thought1 thought2 "),
    "tool_attempt": Expected("ec", "tool_use_refused"),
    "tool_attempt_noturnlimit": Expected("ec", "tool_use_refused"),
}


COUNTED = {
    "success": (Usage(prompt_tokens=227, completion_tokens=4), 0, 0.000988),
    "streaming50": (Usage(prompt_tokens=229, completion_tokens=50), 0, 0.001916),
    "max_tokens": (Usage(prompt_tokens=229, completion_tokens=4), 0, None),
    "e401_retries0": (Usage(), 0, 0.0),
    "disconnect_slow_nofb": (Usage(prompt_tokens=227, completion_tokens=1), len(words(2)), 0.000948),
    "sigint": (Usage(prompt_tokens=229, completion_tokens=1), len(words(6)), 0.001036),
    "sigterm": (Usage(prompt_tokens=229, completion_tokens=1), len(words(7)), None),
    "sj_double_init": (None, 0, None),
    "tool_attempt": (Usage(prompt_tokens=227, completion_tokens=1), len("ec"), None),
}
"""Usage, characters after the last count, and cost in USD, however the turn ended."""


def started() -> ClaudeConnection:
    """A connection with one turn under way."""
    connection = ClaudeConnection()
    connection.start_turn("turn", Prompt(text="hello"))
    return connection


def replay(name: str, chunk_bytes: int) -> Projection:
    """Feed a recording, cut into chunks, and its end."""
    connection, framer, projection = started(), LineFramer(), Projection()
    content = (RECORDINGS / f"{name}.jsonl").read_bytes()
    for start in range(0, len(content), chunk_bytes):
        for _, events in connection.receive(framer.push(content[start : start + chunk_bytes])):
            projection.show(events)
    exit_code = int((RECORDINGS / f"{name}.exit").read_text().split()[0])
    stderr = RECORDINGS / f"{name}.stderr"
    for _, events in connection.closed(exit_code, stderr.read_text() if stderr.exists() else ""):
        projection.show(events)
    return projection


def test_every_recording_has_an_expected_outcome():
    """None is left out, and none is expected that is not there."""
    assert {path.stem for path in RECORDINGS.glob("*.jsonl")} == set(OUTCOMES)


@pytest.mark.parametrize("chunk_bytes", CHUNK_BYTES)
@pytest.mark.parametrize("name", OUTCOMES)
def test_a_recording_has_its_outcome_however_it_is_cut(name: str, chunk_bytes: int):
    """Text, reasoning, usage, and the end: never by exit code, always by the terminal record."""
    expected, projection = OUTCOMES[name], replay(name, chunk_bytes)
    completion = projection.completion
    assert projection.is_over
    assert completion.text == expected.text
    assert completion.reasoning == expected.reasoning
    assert (projection.error.code if projection.error else completion.finish_reason) == expected.end
    if expected.usage:
        assert completion.usage is not None
        assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == expected.usage


@pytest.mark.parametrize("chunk_bytes", CHUNK_BYTES)
@pytest.mark.parametrize("name", COUNTED)
def test_what_a_turn_has_used_is_known_however_it_ends(name: str, chunk_bytes: int):
    """The prompt as soon as the model answers, the answer when it has ended, the cost when claude tells it."""
    projection = replay(name, chunk_bytes)
    usage, uncounted_chars, cost_usd = COUNTED[name]
    assert projection.usage == usage
    assert projection.uncounted_chars == uncounted_chars
    assert projection.cost_usd == pytest.approx(cost_usd)


def lines_of(prompt: Prompt) -> list[dict]:
    """What a turn with this prompt sends."""
    connection = ClaudeConnection()
    connection.start_turn("turn", prompt)
    return [json.loads(line) for line in connection.data_to_send().splitlines()]


def test_a_turns_own_settings_come_before_it():
    """In a request of their own, and only when there are any."""
    settings, initialize, _ = lines_of(Prompt(text="x", max_tokens=5, reasoning_effort="low"))
    assert settings["request"] == {
        "subtype": "apply_flag_settings",
        "settings": {"env": {"CLAUDE_CODE_MAX_OUTPUT_TOKENS": "5"}, "effortLevel": "low"},
    }
    assert initialize["request"]["subtype"] == "initialize"
    assert "jsonSchema" not in initialize["request"]


def test_images_are_blocks_at_their_place():
    """A text that would be a command is hidden where it is the last one, which is where it would be one."""
    images = tuple(
        Image(media_type="image/png", base64=content, at=at) for content, at in (("AA", 0), ("BB", 4))
    )
    connection = ClaudeConnection(hides_commands=True)
    connection.start_turn("turn", Prompt(text="/one/two", images=images))
    message = json.loads(connection.data_to_send().splitlines()[-1])["message"]
    first, second = (
        {"type": "base64", "media_type": "image/png", "data": content} for content in ("AA", "BB")
    )
    assert message["content"] == [
        {"type": "image", "source": first},
        {"type": "text", "text": "/one"},
        {"type": "image", "source": second},
        {"type": "text", "text": "\n/two"},
    ]


SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}}
CALL = {"type": "tool_use", "id": "1", "name": "StructuredOutput", "input": {"name": "bob"}}


def schema_events(
    *lines: dict, tools: tuple[str, ...] = ("StructuredOutput",)
) -> tuple[ClaudeConnection, Projection]:
    """What a turn that wants a schema makes of these lines, after the first one of claude's."""
    connection, projection = ClaudeConnection(), Projection()
    connection.start_turn("turn", Prompt(text="x", output_schema=SCHEMA))
    init = {"type": "system", "subtype": "init", "tools": tools}
    for _, events in connection.receive([json.dumps(line).encode() for line in (init, *lines)]):
        projection.show(events)
    return connection, projection


def block(index: int, start: dict, *deltas: dict) -> list[dict]:
    """The stream events of a content block."""
    events = [{"type": "content_block_start", "index": index, "content_block": start}]
    events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
    return [{"type": "stream_event", "event": event} for event in events]


def test_an_answer_with_a_schema_is_the_input_of_its_call():
    """Piece by piece and once; what the model says beside it is no part of the JSON."""
    connection = ClaudeConnection()
    connection.start_turn("turn", Prompt(text="x", output_schema=SCHEMA))
    assert json.loads(connection.data_to_send().splitlines()[0])["request"]["jsonSchema"] == SCHEMA
    pieces = [{"type": "input_json_delta", "partial_json": piece} for piece in ('{"na', "", 'me": "bob"}')]
    _, projection = schema_events(
        *block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": "Let me see."}),
        *block(1, CALL, *pieces),
        {"type": "assistant", "message": {"content": [{"type": "text", "text": "Let me see."}, CALL]}},
        {
            "type": "result",
            "subtype": "success",
            "num_turns": 2,
            "result": '{"name":"bob"}',
            "stop_reason": "tool_use",
        },
    )
    assert projection.error is None
    assert projection.completion.text == '{"name": "bob"}'
    assert projection.completion.reasoning == "Let me see."
    assert projection.completion.finish_reason == "stop"


def test_an_answer_that_came_without_deltas_is_shown_whole():
    """As the result says it."""
    _, projection = schema_events(
        {"type": "result", "subtype": "success", "num_turns": 2, "result": '{"name":"bob"}'}
    )
    assert projection.completion.text == '{"name":"bob"}'


def test_a_schema_that_claude_does_not_take_fails_the_turn():
    """It says so only by having no tool for it; it is killed before it answers without the schema."""
    connection, projection = schema_events(tools=())
    assert projection.error is not None
    assert projection.error.code == "provider_rejected_request"
    assert connection.would_go_on


def test_an_answer_that_does_not_have_the_schema_is_a_failure_of_its_own():
    """claude checks it, and may not ask the model again."""
    result = {"type": "result", "subtype": "error_max_turns", "is_error": True, "errors": ["Reached maximum"]}
    _, projection = schema_events(result)
    assert projection.error is not None
    assert (projection.error.code, projection.error.status) == ("schema_mismatch", 502)


@pytest.mark.parametrize(
    "lines",
    [
        block(0, {**CALL, "name": "Bash"}),
        [*block(0, CALL), *block(1, {**CALL, "id": "2"})],
        [{"type": "assistant", "message": {"content": [{**CALL, "name": "Bash"}]}}],
    ],
)
def test_a_turn_with_a_schema_has_no_other_tool(lines: list[dict]):
    """Nor the same one twice."""
    _, projection = schema_events(*lines)
    assert projection.error is not None
    assert projection.error.code == "tool_use_refused"


def test_without_a_schema_its_tool_is_a_tool_as_any():
    """The call is refused."""
    ((_, events),) = started().receive([json.dumps(line).encode() for line in block(0, CALL)])
    assert [type(event) for event in events] == [ToolUse]


def test_a_turn_is_two_lines():
    """The initialize request with the system prompt, and the user message as plain text."""
    connection = ClaudeConnection()
    connection.start_turn("turn", Prompt(text="/cost @file\n--flag", system="be brief"))
    sent = connection.data_to_send()
    assert connection.data_to_send() == b""
    first, second = (json.loads(line) for line in sent.splitlines())
    assert first["request"]["systemPrompt"] == ["be brief"]
    assert second["message"] == {"role": "user", "content": "/cost @file\n--flag"}
    assert second["client_composed"] is True


@pytest.mark.parametrize(
    ("version", "text", "sent"),
    [
        ("2.1.247", "/clear", "\n/clear"),
        (None, "/clear", "\n/clear"),
        ("2.1.197", "a /clear", "a /clear"),
        ("2.1.197", " /clear", " /clear"),
        ("2.1.248", "/clear", "/clear"),
        ("2.1.330", "/clear", "/clear"),
    ],
)
def test_a_prompt_that_looks_like_a_command_is_hidden_from_versions_that_would_run_it(
    version: str | None, text: str, sent: str
):
    """Known new ones take the mark of a composed message, and the prompt goes as it is."""
    inputs = CommandInputs(
        executable=("/bin/claude",), version=version, model="m", login="api_key", workspace="/w", home="/h",
        user_home="/u", variables={},
    )  # fmt: skip
    connection = load("claude").connect(inputs)
    connection.start_turn("turn", Prompt(text=text))
    message = json.loads(connection.data_to_send().splitlines()[1])
    assert message["message"]["content"] == sent


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"not json", Failure),
        (b"[1]", Failure),
        (b'{"type":"result","is_error":"no"}', Failure),
        (b'{"type":"assistant","message":5}', Failure),
        (b'{"type":"invented"}', Notice),
        (b'{"type":"stream_event","event":{"type":"invented"}}', Notice),
        (b'{"no":"type"}', Notice),
        (b'{"type":"result","subtype":"success","result":"","num_turns":1}', Result),
    ],
)
def test_unknown_lines_are_drift_and_garbage_is_not(line: bytes, kind: type):
    """A JSON object of an unknown kind is tolerated; what decides an outcome has to be understood."""
    ((_, events),) = started().receive([line])
    assert [type(event) for event in events] == [kind]


def test_garbage_among_good_lines_fails_the_turn_where_it_stands():
    """Pieces before it are kept, what comes after it is not looked at."""
    good = b'{"type":"stream_event","event":{"type":"content_block_delta","delta":{"type":"text_delta","text":"a"}}}'
    ((_, events),) = started().receive([good, b"garbage", good])
    assert [type(event).__name__ for event in events] == ["AssistantDelta", "Failure"]


def test_half_of_a_surrogate_pair_does_not_fail_a_turn():
    """Node writes one where a text was cut; strict JSON does not know it."""
    line = b'{"type":"stream_event","event":{"type":"content_block_delta","delta":{"type":"text_delta","text":"\\ud83d"}}}'
    ((_, events),) = started().receive([line])
    assert events[0].content == "?"


def test_nothing_is_received_outside_a_turn():
    """Before the start and after the end."""
    result = b'{"type":"result","subtype":"success","result":"x"}'
    assert ClaudeConnection().receive([result]) == []
    connection = started()
    assert connection.receive([result])
    assert connection.receive([result]) == []
    assert connection.closed(0, "") == []


@pytest.mark.parametrize(
    ("text", "stop_reason", "goes_on"),
    [("x", "max_tokens", True), ("x", "refusal", True), ("x", "end_turn", False), ("", "end_turn", True)],
)
def test_a_command_line_that_would_ask_again_is_marked(text: str, stop_reason: str, goes_on: bool):
    """After these stop reasons, and after nothing, claude makes a second model request unless it is killed."""
    connection = started()
    message = {"model": "m", "content": [{"type": "text", "text": text}]}
    connection.receive([json.dumps({"type": "assistant", "message": message}).encode()])
    event = {"type": "message_delta", "delta": {"stop_reason": stop_reason}, "usage": {"output_tokens": 1}}
    connection.receive([json.dumps({"type": "stream_event", "event": event}).encode()])
    assert connection.would_go_on is goes_on


@pytest.mark.parametrize(
    ("text", "status", "code"),
    [
        ("Prompt is too long", 400, "context_length_exceeded"),
        ("Credit balance is too low", 400, "quota_exhausted"),
        ("API Error: 400 Output blocked by content filtering policy", 400, "content_filter"),
        ("Prompt is too long", None, "context_length_exceeded"),
        ("prompt is too long, says a proxy", 502, "provider_error"),
        ("anything", 400, "provider_rejected_request"),
    ],
)
def test_the_text_tells_more_than_a_status_of_400(text: str, status: int | None, code: str):
    """And nothing else."""
    line = {"type": "result", "is_error": True, "result": text, "api_error_status": status}
    ((_, events),) = started().receive([json.dumps(line).encode()])
    assert events[-1].code == code


@pytest.mark.parametrize(
    ("resets_at", "timestamp", "status", "wait_s"),
    [
        (1_795_775_187, "2026-11-27T09:26:27.000Z", 429, 3600.0),
        (1_795_775_187, "2026-11-27T09:26:27.000Z", 500, None),
        (1_795_775_187, "yesterday", 429, None),
        (1_795_775_187, None, 429, None),
        (None, "2026-11-27T09:26:27.000Z", 429, None),
    ],
)
def test_a_limit_of_a_login_tells_when_it_ends(
    resets_at: int | None, timestamp: str | None, status: int, wait_s: float | None
):
    """By the command line's own clock, which dates its lines."""
    lines = (
        {"type": "rate_limit_event", "rate_limit_info": {"status": "rejected", "resetsAt": resets_at}},
        {"type": "assistant", "message": {"model": "<synthetic>", "content": []}, "timestamp": timestamp},
        {"type": "result", "is_error": True, "result": "limit", "api_error_status": status},
    )
    ((_, events),) = started().receive([json.dumps(line).encode() for line in lines])
    assert events[-1].retry_after_s == wait_s


def test_success_is_never_an_exit_code():
    """Exit 0 without a result line is a crash."""
    ((_, events),) = started().closed(0, "")
    assert events[0].code == "provider_crashed"
