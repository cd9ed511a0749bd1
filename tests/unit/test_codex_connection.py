"""The codex connection over recorded output of the real command line: each recording is a test."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from shared.events import Failure, Notice, Result, ToolUse
from shared.framing import LineFramer
from shared.provider import CommandInputs
from shared.providers.codex import PROVIDER, own_model_provider, variables_of, without_tools
from shared.providers.codex.connection import CodexConnection
from shared.providers.codex.failures import DETAILED_INFO_CODES, INFO_CODES
from shared.result import Projection
from shared.sansio import Image, Prompt

RECORDINGS = Path(__file__).parents[1] / "transcripts" / "codex"
CHUNK_BYTES = (1_000_000, 4096, 7)
INPUTS = CommandInputs(
    executable=("/bin/codex",),
    model="--weird=model",
    login="api_key",
    workspace="/w",
    home="/h",
    user_home="/u",
    variables={"OPENAI_API_KEY": "secret-key"},
    prepared="/p/models.json",
)


class Expected(msgspec.Struct, frozen=True):
    """What a recording means: the text that was shown, and how it ended (a code, or a finish reason)."""

    text: str
    end: str
    usage: tuple[int, int] | None = None


def words(count: int) -> str:
    """The numbered words of the scripted model."""
    return "".join(f"w{number} " for number in range(count))


OUTCOMES = {
    "app_catalog_gpt-5.5": Expected("", "tool_use_refused"),
    "app_disconnect": Expected(words(3), "provider_connection_failed"),
    "app_e400": Expected("", "provider_rejected_request"),
    "app_e401": Expected("", "provider_auth_failed"),
    "app_e403": Expected("", "provider_auth_failed"),
    "app_e404": Expected("", "model_not_found"),
    "app_e429": Expected("", "rate_limit_exceeded"),
    "app_e500": Expected("", "provider_error"),
    "app_e503": Expected("", "provider_overloaded"),
    "app_e529": Expected("", "provider_overloaded"),
    "app_eof": Expected(words(3), "provider_connection_failed"),
    "app_idle_timeout": Expected("", "provider_connection_failed"),
    "app_incomplete": Expected("", "length"),
    "app_interrupt": Expected("", "turn_cancelled"),
    "app_known_model_gpt-6.1-sol": Expected("echo: hi", "stop", (4877, 4)),
    "app_noenv": Expected(words(4), "stop"),
    "app_retry_2_500": Expected("", "provider_error"),
    "app_sigterm": Expected("", "provider_crashed"),
    "app_slash": Expected("echo: /status @note.txt $skill", "stop"),
}


def replay(content: bytes, chunk_bytes: int) -> Projection:
    """One turn over a recorded stdout, fed in chunks."""
    connection, framer, projection = CodexConnection(), LineFramer(), Projection()
    connection.handshake()
    connection.start_turn("turn", Prompt(text="hi"))
    batches = []
    for start in range(0, len(content), chunk_bytes):
        batches += connection.receive(framer.push(content[start : start + chunk_bytes]))
    batches += connection.closed(0, "")
    for turn_id, events in batches:
        assert turn_id == "turn"
        projection.show(events)
    assert projection.is_over
    assert connection.closed(0, "") == []
    return projection


@pytest.mark.parametrize("chunk_bytes", CHUNK_BYTES)
@pytest.mark.parametrize("name", sorted(path.stem for path in RECORDINGS.glob("*.jsonl")))
def test_a_recording_means_what_it_means_however_it_is_cut(name: str, chunk_bytes: int):
    """Text and outcome; where the table is silent, the same in all cuts."""
    content = (RECORDINGS / f"{name}.jsonl").read_bytes()
    projection = replay(content, chunk_bytes)
    end = projection.error.code if projection.error else projection.completion.finish_reason
    whole = replay(content, CHUNK_BYTES[0])
    assert projection.completion == whole.completion
    expected = OUTCOMES.get(name)
    if expected is not None:
        assert end == expected.end
        if expected.text:
            assert projection.completion.text == expected.text
        if expected.usage is not None:
            usage = projection.completion.usage
            assert usage is not None
            assert (usage.prompt_tokens, usage.completion_tokens) == expected.usage


def test_every_row_of_the_table_has_a_recording():
    """A renamed file must not silently drop its expectation."""
    assert set(OUTCOMES) <= {path.stem for path in RECORDINGS.glob("*.jsonl")}


class Server:
    """The other side of a connection: answers what it was asked."""

    def __init__(self, *turns: str, system: str = "") -> None:
        self.connection = CodexConnection()
        self.connection.handshake()
        self.started = 0
        for turn in turns:
            self.connection.start_turn(turn, Prompt(text=f"text of {turn}", system=system))

    def sent(self) -> list[dict]:
        return [json.loads(line) for line in self.connection.data_to_send().splitlines()]

    def says(self, *messages: dict) -> list:
        return self.connection.receive([json.dumps(message).encode() for message in messages])

    def open(self) -> None:
        """Answer up to the started turns; thread and turn ids are those of our turns."""
        (initialize,) = self.sent()
        self.says({"id": initialize["id"], "result": {}})
        initialized, *starts = self.sent()
        assert initialized == {"method": "initialized"}
        for number, start in enumerate(starts):
            self.says({"id": start["id"], "result": {"thread": {"id": f"T{number}"}}})
        for number, start in enumerate(self.sent()):
            assert start["params"]["threadId"] == f"T{number}"
            self.says({"id": start["id"], "result": {"turn": {"id": f"U{number}"}}})


def note(method: str, thread: str = "T0", **params: object) -> dict:
    """A notification."""
    return {"method": method, "params": {"threadId": thread, **params}}


USAGE = {"last": {"inputTokens": 10, "cachedInputTokens": 4, "outputTokens": 3, "reasoningOutputTokens": 1}}


def test_turns_wait_for_the_handshake_and_then_start_each_in_a_thread_of_its_own():
    """The system prompt is the thread's base instructions, the text stays as it is."""
    server = Server("a", "b", system="be brief")
    (initialize,) = server.sent()
    assert initialize["method"] == "initialize"
    server.says({"id": initialize["id"], "result": {}})
    _, first, second = server.sent()
    assert [first["method"], second["method"]] == ["thread/start"] * 2
    assert first["params"]["baseInstructions"] == "be brief"
    assert (first["params"]["approvalPolicy"], first["params"]["sandbox"]) == ("never", "read-only")
    assert (first["params"]["ephemeral"], first["params"]["environments"]) == (True, [])
    server.says({"id": second["id"], "result": {"thread": {"id": "T2"}}})
    (start,) = server.sent()
    assert start["params"]["input"] == [{"type": "text", "text": "text of b", "text_elements": []}]


def test_a_turns_options_and_images_go_with_its_start():
    """And only those that it has."""
    server = Server()
    image = Image(media_type="image/png", base64="AA", at=1)
    prompt = Prompt(text="ab", images=(image,), output_schema={"type": "object"}, reasoning_effort="low")
    server.connection.start_turn("a", prompt)
    server.connection.start_turn("b", Prompt(text="x"))
    (initialize,) = server.sent()
    server.says({"id": initialize["id"], "result": {}})
    _, *threads = server.sent()
    for number, thread in enumerate(threads):
        server.says({"id": thread["id"], "result": {"thread": {"id": f"T{number}"}}})
    first, second = server.sent()
    assert first["params"] == {
        "threadId": "T0",
        "input": [
            {"type": "text", "text": "a", "text_elements": []},
            {"type": "image", "url": "data:image/png;base64,AA"},
            {"type": "text", "text": "b", "text_elements": []},
        ],
        "outputSchema": {"type": "object"},
        "effort": "low",
    }
    assert set(second["params"]) == {"threadId", "input"}


def test_concurrent_turns_do_not_mix():
    """Each delta goes to the turn of its thread, whatever the order."""
    server = Server("a", "b")
    server.open()
    batches = server.says(
        note("item/agentMessage/delta", "T1", delta="1"),
        note("item/agentMessage/delta", "T0", delta="0"),
        note("item/agentMessage/delta", "T9", delta="stray"),
        note("turn/completed", "T1", turn={"id": "U1", "status": "completed"}),
    )
    assert [(turn, [getattr(e, "content", type(e)) for e in events]) for turn, events in batches] == [
        ("b", ["1"]),
        ("a", ["0"]),
        ("b", [Result]),
    ]


def test_an_interrupt_before_the_turn_has_a_name_is_sent_when_it_has_one():
    """And nothing of the turn is told any more."""
    server = Server("a")
    (initialize,) = server.sent()
    server.says({"id": initialize["id"], "result": {}})
    _, start = server.sent()
    server.says({"id": start["id"], "result": {"thread": {"id": "T0"}}})
    (turn_start,) = server.sent()
    assert server.connection.interrupt("a") is True
    assert server.sent() == []
    assert server.says(note("item/agentMessage/delta", delta="late")) == []
    server.says({"id": turn_start["id"], "result": {"turn": {"id": "U0"}}})
    (interrupt,) = server.sent()
    assert (interrupt["method"], interrupt["params"]) == (
        "turn/interrupt",
        {"threadId": "T0", "turnId": "U0"},
    )
    assert server.says(note("turn/completed", turn={"id": "U0", "status": "interrupted"})) == []
    assert server.connection.closed(0, "") == []


def test_an_interrupt_before_the_thread_is_there_starts_no_turn():
    """The model is never asked."""
    server = Server("a")
    (initialize,) = server.sent()
    server.connection.interrupt("a")
    server.says({"id": initialize["id"], "result": {}})
    _, start = server.sent()
    server.says({"id": start["id"], "result": {"thread": {"id": "T0"}}})
    assert [request["method"] for request in server.sent()] == ["thread/start"]  # the spare one


def test_a_thread_is_started_in_advance_and_used_by_the_first_turn_without_a_system_prompt():
    """Starting one takes longer than the turn. The next one is started when no turn runs any more."""
    server = Server()
    (initialize,) = server.sent()
    server.says({"id": initialize["id"], "result": {}})
    _, spare = server.sent()
    server.says({"id": spare["id"], "result": {"thread": {"id": "T0"}}})
    server.connection.start_turn("own", Prompt(text="x", system="be brief"))
    server.connection.start_turn("a", Prompt(text="x"))
    own, turn_start = server.sent()
    assert (own["method"], own["params"]["baseInstructions"]) == ("thread/start", "be brief")
    assert (turn_start["method"], turn_start["params"]["threadId"]) == ("turn/start", "T0")
    server.says(note("turn/completed", turn={"id": "U0", "status": "completed"}))
    assert server.sent() == []
    server.says({"id": own["id"], "result": {"thread": {"id": "T1"}}})
    server.says(note("turn/completed", "T1", turn={"id": "U1", "status": "completed"}))
    assert [request["method"] for request in server.sent()] == ["turn/start", "thread/start"]


def test_a_turn_takes_over_the_thread_that_is_under_way():
    """Instead of asking for another one."""
    server = Server()
    (initialize,) = server.sent()
    server.says({"id": initialize["id"], "result": {}})
    _, spare = server.sent()
    server.connection.start_turn("a", Prompt(text="x"))
    assert server.sent() == []
    server.says({"id": spare["id"], "result": {"thread": {"id": "T0"}}})
    assert [request["method"] for request in server.sent()] == ["turn/start"]


@pytest.mark.parametrize(
    ("item", "name"),
    [
        ({"type": "function_call", "name": "exec_command", "arguments": "{}"}, "exec_command"),
        ({"type": "custom_tool_call", "name": "apply_patch", "input": "x"}, "apply_patch"),
        ({"type": "local_shell_call", "action": {"type": "exec"}}, "local_shell_call"),
        ({"type": "web_search_call"}, "web_search_call"),
        ({"type": "tool_search_call"}, "tool_search_call"),
        ({"type": "function_call_output", "output": "x"}, "function_call_output"),
    ],
)
def test_a_raw_call_is_a_tool_attempt_with_its_name(item: dict, name: str):
    """It shows before codex asks the model again."""
    server = Server("a")
    server.open()
    ((_, events),) = server.says(note("rawResponseItem/completed", item=item))
    assert events == [ToolUse(tool_name=name)]
    assert server.connection.is_spent


@pytest.mark.parametrize("kind", ["message", "reasoning", "compaction", "other", "something_new"])
def test_other_raw_items_are_nothing_new(kind: str):
    """What is read comes in other notifications."""
    server = Server("a")
    server.open()
    assert server.says(note("rawResponseItem/completed", item={"type": kind, "content": []})) == []
    assert not server.connection.is_spent


@pytest.mark.parametrize(
    "second",
    [
        note("thread/tokenUsage/updated", tokenUsage=USAGE),
        note("item/agentMessage/delta", delta="after the tool"),
        note("item/reasoning/summaryTextDelta", delta="after the tool"),
        note("item/completed", item={"type": "agentMessage", "text": "after the tool"}),
    ],
)
def test_a_second_model_request_is_a_tool_attempt(second: dict):
    """A call of a tool that is off shows as nothing else. The process gets no further turns."""
    server = Server("a")
    server.open()
    server.says(note("thread/tokenUsage/updated", tokenUsage=USAGE))
    assert not server.connection.is_spent
    ((_, events),) = server.says(second)
    assert [type(event) for event in events] == [ToolUse]
    assert server.connection.is_spent


@pytest.mark.parametrize(
    "kind", ["commandExecution", "fileChange", "mcpToolCall", "webSearch", "somethingNew"]
)
def test_any_item_that_is_not_text_is_a_tool_attempt(kind: str):
    """Also kinds that do not exist yet."""
    server = Server("a")
    server.open()
    ((_, events),) = server.says(note("item/started", item={"type": kind}))
    assert events == [ToolUse(tool_name=kind)]


def test_a_request_of_codex_to_us_is_refused():
    """Approvals and the like: an error answer, and the turn is over."""
    server = Server("a")
    server.open()
    method = "item/commandExecution/requestApproval"
    ((_, events),) = server.says({"id": 0, **note(method)})
    assert events == [ToolUse(tool_name=method)]
    (answer,) = server.sent()
    assert (answer["id"], answer["error"]["code"]) == (0, -32601)


def test_usage_has_its_details():
    """Cached and reasoning tokens are parts of the other two."""
    server = Server("a")
    server.open()
    projection = Projection()
    for _, events in server.says(
        note("item/agentMessage/delta", delta="x"),
        note("thread/tokenUsage/updated", tokenUsage=USAGE),
        note("turn/completed", turn={"id": "U0", "status": "completed"}),
    ):
        projection.show(events)
    usage = projection.completion.usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens, usage.reasoning_tokens) == (
        10,
        4,
        3,
        1,
    )


@pytest.mark.parametrize(
    ("info", "message", "code"),
    [
        *((word, "x", code) for word, code in INFO_CODES.items()),
        *(({word: {"new": 1}}, "x", code) for word, code in DETAILED_INFO_CODES.items()),
        ({"responseStreamDisconnected": {"httpStatusCode": None}}, "x", "provider_connection_failed"),
        ({"responseStreamConnectionFailed": None}, "x", "provider_connection_failed"),
        ({"httpConnectionFailed": {"httpStatusCode": 418}}, "x", "provider_error"),
        ("other", "Missing environment variable: `K`.", "not_logged_in"),
        ("other", "Invalid prompt: flagged", "content_filter"),
        ("somethingNew", "x", "provider_error"),
        (["odd"], "x", "provider_error"),
        (None, "x", "provider_error"),
    ],
)
def test_every_cause_that_codex_names_has_a_code(info: object, message: str, code: str):
    """And an unknown one is the general code."""
    server = Server("a")
    server.open()
    error = {"message": message, "codexErrorInfo": info}
    ((_, events),) = server.says(
        note("turn/completed", turn={"id": "U0", "status": "failed", "error": error})
    )
    assert events == [Failure(code=code, message=message)]


@pytest.mark.parametrize(
    ("info", "message", "wait_s"),
    [
        ("rateLimitExceeded", "Please try again in 11.5s. Visit x", 11.5),
        ("rateLimitExceeded", "Please try again in 250ms.", 0.25),
        ("rateLimitExceeded", "slow down", 60.0),
        ("usageLimitExceeded", "try again at 10:28 AM.", 60.0),
        ("internalServerError", "try again in 5s", None),
    ],
)
def test_the_time_to_wait_is_read_from_the_message_or_the_limits(
    info: str, message: str, wait_s: float | None
):
    """Of the limits, those that are used up count, by codex's own clock."""
    server = Server("a")
    server.open()
    full, free = {"usedPercent": 100, "resetsAt": 1060}, {"usedPercent": 20, "resetsAt": 9999}
    limits = {"rateLimits": {"primary": full, "secondary": free}}
    turn = {"id": "U0", "status": "failed", "error": {"message": message, "codexErrorInfo": info}}
    ((_, events),) = server.says(
        {"method": "account/rateLimits/updated", "params": limits},
        {**note("turn/completed", turn=turn), "emittedAtMs": 1_000_000},
    )
    assert events[0].retry_after_s == wait_s


def test_a_refused_handshake_fails_the_turns_that_wait():
    """Not only after a deadline."""
    server = Server("a")
    (initialize,) = server.sent()
    ((turn, events),) = server.says({"id": initialize["id"], "error": {"message": "no"}})
    assert (turn, events[0].code) == ("a", "provider_protocol_error")
    assert server.connection.is_spent


def test_a_refused_request_fails_its_turn_only():
    """The other turn goes on."""
    server = Server("a", "b")
    (initialize,) = server.sent()
    server.says({"id": initialize["id"], "result": {}})
    _, first, second = server.sent()
    ((turn, events),) = server.says(
        {"id": first["id"], "error": {"code": -32602, "message": "input_too_large"}}
    )
    assert turn == "a"
    assert events == [Failure(code="context_length_exceeded", message="thread/start: input_too_large")]
    server.says({"id": second["id"], "result": {"thread": {"id": "T1"}}})
    assert server.sent()


@pytest.mark.parametrize("line", [b"garbage", b"[1]", b'{"id":{}}', b"\xff\xfe"])
def test_what_is_not_the_protocol_fails_every_turn(line: bytes):
    """And the process gets no further ones."""
    server = Server("a", "b")
    server.open()
    failures = server.connection.receive([line])
    assert [(turn, events[0].code) for turn, events in failures] == [
        ("a", "provider_protocol_error"),
        ("b", "provider_protocol_error"),
    ]
    assert server.connection.is_spent


def test_unknown_notifications_are_tolerated():
    """A newer codex may say more."""
    server = Server("a")
    server.open()
    assert server.says({"method": "new/thing", "params": {"threadId": 7}}, {"method": "other/thing"}) == []
    ((_, events),) = server.says(note("warning", message="careful"))
    assert events == [Notice("careful")]


def test_the_catalogue_loses_its_tools_and_nothing_else():
    """Whatever else a version puts there stays."""
    model = {
        "slug": "m",
        "tool_mode": "code",
        "multi_agent_version": 2,
        "apply_patch_tool_type": "freeform",
        "experimental_supported_tools": ["x"],
        "supports_search_tool": True,
        "multi_agent_reasoning_effort": "low",
        "context_window": 9,
    }
    converted = json.loads(without_tools(json.dumps({"models": [model], "other": 1}).encode()))
    assert converted["other"] == 1
    assert converted["models"] == [
        {
            "slug": "m",
            "tool_mode": None,
            "multi_agent_version": None,
            "apply_patch_tool_type": None,
            "experimental_supported_tools": [],
            "supports_search_tool": False,
            "context_window": 9,
        }
    ]


@pytest.mark.parametrize("catalogue", [b"", b"[]", b"{}", b'{"models":{}}', b'{"models":["m"]}'])
def test_a_catalogue_of_another_shape_is_no_catalogue(catalogue: bytes):
    """Better no codex than one with tools."""
    with pytest.raises(ValueError, match=r".+"):
        without_tools(catalogue)


USER_CONFIG = """
model_provider = "mine"
notify = ["/bin/evil"]
openai_base_url = "http://127.0.0.1:1/v1"
[mcp_servers.evil]
command = "/bin/evil"
[model_providers.mine]
name = "Mine"
base_url = "http://127.0.0.1:2/v1"
env_key = "MY_KEY"
request_max_retries = 9
env_http_headers = { "x-team" = "MY_TEAM" }
[model_providers.other]
env_key = "OTHER_KEY"
"""


def test_of_the_users_settings_only_the_way_to_the_service_is_kept():
    """No MCP server, no notification program, no other provider."""
    inputs = msgspec.structs.replace(INPUTS, login="config", settings=USER_CONFIG)
    command = PROVIDER.command(inputs)
    (config,) = command.files.values()
    assert 'model_provider = "mine"' in config
    assert "MY_KEY" in config
    assert "request_max_retries = 0" in config
    assert "evil" not in config
    assert "OTHER_KEY" not in config
    assert variables_of(USER_CONFIG) == ("MY_KEY", "MY_TEAM")


@pytest.mark.parametrize("settings", ["", "not toml [", 'model_provider = "absent"', "model_provider = 7"])
def test_settings_without_a_model_provider_authenticate_nobody(settings: str):
    """Then another login counts."""
    assert own_model_provider(settings) == {}
    assert variables_of(settings) == ()


def test_neither_a_key_nor_a_model_name_is_in_argv():
    """The key is in the environment alone, the model in a file, where it cannot become a flag."""
    command = PROVIDER.command(INPUTS)
    assert not any("secret-key" in part or "weird" in part for part in command.argv)
    assert "secret-key" not in repr(command)
    assert "secret-key" not in "".join(command.files.values())
    assert 'model = "--weird=model"' in next(iter(command.files.values()))
    assert command.env["CODEX_HOME"] == "/h/.codex"


def test_a_logged_in_users_login_is_linked_from_where_it_is():
    """CODEX_HOME moves it."""
    inputs = msgspec.structs.replace(INPUTS, login="user", variables={})
    assert PROVIDER.command(inputs).links == {"/h/.codex/auth.json": "/u/.codex/auth.json"}
    inputs = msgspec.structs.replace(inputs, variables={"CODEX_HOME": "/elsewhere"})
    assert PROVIDER.command(inputs).links == {"/h/.codex/auth.json": "/elsewhere/auth.json"}
