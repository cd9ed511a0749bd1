"""The gemini connection over recorded sessions of the real command line, and what a recording cannot show."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from pathlib import Path
from typing import Any

import pytest

from shared.events import AssistantDelta, Failure, Result, RunStarted, ToolUse, Usage
from shared.provider import CommandInputs
from shared.providers.gemini import PROVIDER
from shared.providers.gemini.connection import SESSIONS_READY, ZERO_WIDTH_SPACE, GeminiConnection
from shared.result import Projection
from shared.sansio import Image, Prompt

RECORDINGS = Path(__file__).parents[1] / "transcripts" / "gemini"


class Replay:
    """Plays a recording's answers to a connection, whose requests have ids of their own."""

    def __init__(self, name: str) -> None:
        self.connection = GeminiConnection("/lease/path")
        self.outcomes: dict[str, Projection] = {}
        self._asked: defaultdict[str, deque[int]] = defaultdict(deque)
        self._methods: dict[Any, str] = {}
        self.connection.handshake()
        for text in (RECORDINGS / f"{name}.jsonl").read_text().splitlines():
            record = json.loads(text)
            (self._recorded_request if record["dir"] == ">" else self._recorded_answer)(record["msg"])

    def _recorded_request(self, message: dict[str, Any]) -> None:
        self._methods[message.get("id")] = message["method"]
        if message["method"] == "session/prompt":
            text = message["params"]["prompt"][0]["text"]
            self.outcomes[text] = Projection()
            self.connection.start_turn(text, Prompt(text=text))

    def _recorded_answer(self, message: dict[str, Any]) -> None:
        for line in self.connection.data_to_send().splitlines():
            request = json.loads(line)
            self._asked[request["method"]].append(request.get("id"))
        if "method" not in message:
            asked = self._asked[self._methods[message["id"]]]
            if not asked:
                return
            message = {**message, "id": asked.popleft()}
        for turn, events in self.connection.receive([json.dumps(message).encode()]):
            self.outcomes[turn].show(events)


@pytest.fixture(scope="module")
def recorded() -> dict[str, Projection]:
    """The outcomes of a recording with one prompt for each session."""
    return Replay("per_prompt_sessions").outcomes


ENDS = {
    "[[tool]]": ("I will call a tool. ", "tool_use_refused"),
    "[[error:400]]": ("", "provider_rejected_request"),
    "[[error:401]]": ("", "provider_auth_failed"),
    "[[error:403]]": ("", "provider_auth_failed"),
    "[[error:404]]": ("", "model_not_found"),
    "[[error:429]]": ("", "rate_limit_exceeded"),
    "[[error:500]]": ("", "provider_error"),
    "[[error:503]]": ("", "provider_overloaded"),
    "[[cut:2]]": ("d1 d2 ", "provider_connection_failed"),
    "[[nofinish:2]]": ("d1 d2 ", "provider_connection_failed"),
    "[[empty]]": ("", "provider_error"),
    "[[badjson:1]]": ("d1 ", "provider_error"),
    "[[deltas:2]][[finish:SAFETY]]": ("d1 d2 ", "stop"),
    "[[deltas:2]][[finish:MAX_TOKENS]]": ("d1 d2 ", "stop"),
    "[[hang]]": ("", "turn_cancelled"),
    "[[text:pro]]": ("pro", "stop"),
}


@pytest.mark.parametrize("prompt", ENDS)
def test_a_recorded_turn_means_what_it_means(recorded: dict[str, Projection], prompt: str):
    """Text and outcome of each case; gemini tells nobody why an answer is short, so that is a stop."""
    projection = recorded[prompt]
    text, end = ENDS[prompt]
    assert projection.completion.text == text
    assert (projection.error.code if projection.error else projection.completion.finish_reason) == end


def test_a_command_that_gemini_runs_itself_is_no_completion(recorded: dict[str, Projection]):
    """No model answered: not a success, whatever text there is."""
    error = recorded[" /help"].error
    assert error is not None
    assert error.code == "provider_connection_failed"


def test_usage_is_the_turns_own(recorded: dict[str, Projection]):
    """From the end of the turn."""
    usage = recorded["[[text:pro]]"].completion.usage
    assert usage == Usage(prompt_tokens=174, completion_tokens=1)


class Server:
    """The other side of a connection."""

    def __init__(self) -> None:
        self.connection = GeminiConnection("/w")
        self.connection.handshake()
        (initialize,) = self.sent()
        self.answer(initialize)
        self.sessions = 0

    def sent(self) -> list[dict]:
        return [json.loads(line) for line in self.connection.data_to_send().splitlines()]

    def answer(self, request: dict, **result: object) -> list:
        return self.says({"id": request["id"], "result": result})

    def says(self, *messages: dict) -> list:
        return self.connection.receive([json.dumps({"jsonrpc": "2.0", **each}).encode() for each in messages])

    def make_sessions(self) -> list[dict]:
        """Answer every request for a session; what else was sent."""
        others = []
        while asked := self.sent():
            for request in asked:
                if request["method"] == "session/new":
                    self.sessions += 1
                    self.answer(request, sessionId=f"S{self.sessions}")
                else:
                    others.append(request)
        return others

    def start(self, text: str = "hi", system: str = "", turn: str = "a") -> dict:
        """A running turn's request."""
        self.connection.start_turn(turn, Prompt(text=text, system=system))
        (prompt,) = self.make_sessions()
        return prompt


def update(kind: str, session: str = "S1", **more: object) -> dict:
    """A session's news."""
    return {
        "method": "session/update",
        "params": {"sessionId": session, "update": {"sessionUpdate": kind, **more}},
    }


def test_sessions_are_made_in_advance_and_one_at_a_time():
    """Several at once wait for one another's lock files."""
    server = Server()
    for _ in range(SESSIONS_READY):
        (asked,) = server.sent()
        assert (asked["method"], asked["params"]) == ("session/new", {"cwd": "/w", "mcpServers": []})
        server.answer(asked, sessionId="S")
    assert server.sent() == []


def test_each_turn_has_a_session_of_its_own():
    """A second prompt in a session would be refused, or see the first."""
    server = Server()
    sessions = [server.start(turn=turn)["params"]["sessionId"] for turn in "abcdef"]
    assert len(set(sessions)) == len(sessions)


def test_turns_that_come_before_the_handshake_wait():
    """And are then served in order."""
    connection = GeminiConnection("/w")
    server = Server.__new__(Server)
    server.connection, server.sessions = connection, 0
    connection.handshake()
    for turn in "ab":
        connection.start_turn(turn, Prompt(text=turn))
    (initialize,) = server.sent()
    server.answer(initialize)
    prompts = server.make_sessions()
    assert [each["params"]["prompt"][0]["text"] for each in prompts] == ["a", "b"]


def test_the_system_prompt_goes_before_the_text_in_a_part_of_its_own():
    """The one in the file belongs to the whole process."""
    system, text = Server().start("/hello", system="be brief")["params"]["prompt"]
    assert system["text"] == "<system_instructions>\nbe brief\n</system_instructions>\n"
    assert text["text"] == "/hello"


TRIMMED = (
    "\t\n\v\f\r \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000\ufeff"
)
"""Every character that JavaScript's ``trim()`` takes away (ECMA-262, WhiteSpace and LineTerminator)."""


@pytest.mark.parametrize("text", ["/quit", "$skill x", "  /help", "\n/memory show", f"{TRIMMED}/init"])
def test_a_prompt_that_looks_like_a_command_stays_text(text: str):
    """gemini trims a prompt before it looks."""
    (part,) = Server().start(text)["params"]["prompt"]
    assert part["text"] == ZERO_WIDTH_SPACE + text
    assert ZERO_WIDTH_SPACE not in TRIMMED


@pytest.mark.parametrize("blank", TRIMMED)
def test_no_character_that_is_trimmed_hides_a_command(blank: str):
    """Alone, or after others that are not."""
    for text in (f"{blank}/init", f"{blank}$x", f"\u200d{blank}/init"):
        (part,) = Server().start(text)["params"]["prompt"]
        assert part["text"] == ZERO_WIDTH_SPACE + text


@pytest.mark.parametrize("text", ["hello", "a /quit", "@file", "--flag", "1$", "\ufeffhello", "  "])
def test_any_other_prompt_is_sent_as_it_is(text: str):
    """Nothing is added where nothing is needed."""
    (part,) = Server().start(text)["params"]["prompt"]
    assert part["text"] == text


def test_images_are_parts_and_the_first_text_is_no_command():
    """In order; the text after an image is still the first one."""
    server = Server()
    images = tuple(Image(media_type="image/png", base64="AA", at=at) for at in (0, 3))
    server.connection.start_turn("a", Prompt(text="/onetwo", images=images))
    (prompt,) = server.make_sessions()
    picture = {"type": "image", "mimeType": "image/png", "data": "AA"}
    text = {"type": "text", "text": f"{ZERO_WIDTH_SPACE}/on"}
    assert prompt["params"]["prompt"] == [picture, text, picture, {"type": "text", "text": "etwo"}]


def test_an_interrupt_cancels_in_its_session_and_silences_the_turn():
    """What comes late belongs to nobody."""
    server = Server()
    prompt = server.start()
    assert server.connection.interrupt("a") is True
    (cancel,) = server.sent()
    assert cancel == {"jsonrpc": "2.0", "method": "session/cancel", "params": {"sessionId": "S1"}}
    assert server.says(update("agent_message_chunk", content={"type": "text", "text": "late"})) == []
    assert server.answer(prompt, stopReason="cancelled") == []
    assert server.connection.closed(0, "") == []


def test_an_interrupt_while_waiting_for_a_session_asks_no_model():
    """The session serves the next turn."""
    server = Server()
    server.connection.start_turn("a", Prompt(text="never"))
    server.connection.interrupt("a")
    assert server.make_sessions() == []


@pytest.mark.parametrize(
    "message",
    [
        {"id": 0, "method": "session/request_permission", "params": {"sessionId": "S1", "options": []}},
        {"id": 0, "method": "fs/read_text_file", "params": {"sessionId": "S1", "path": "/etc/passwd"}},
        {"id": 0, "method": "terminal/create", "params": {"sessionId": "S1", "command": "sh"}},
        update("tool_call", title="run_shell_command", toolCallId="1"),
    ],
)
def test_whatever_looks_like_a_tool_ends_the_turn_and_the_process_with_it(message: dict):
    """A request to us is refused besides."""
    server = Server()
    server.start()
    ((_, events),) = server.says(message)
    assert [type(event) for event in events] == [ToolUse]
    assert server.connection.is_spent
    answers = [line for line in server.sent() if "error" in line]
    assert [answer["error"]["code"] for answer in answers] == ([-32601] if "id" in message else [])


def test_thoughts_and_unknown_updates():
    """Thoughts are reasoning; a newer gemini may say more."""
    server = Server()
    server.start()
    projection = Projection()
    batches = server.says(
        update("agent_thought_chunk", content={"type": "text", "text": "hm"}),
        update("something_new", content=[1, 2]),
        update("plan", entries=[]),
        update("agent_message_chunk", content={"type": "text", "text": "yes"}),
    )
    for _, events in batches:
        projection.show(events)
    assert (projection.completion.reasoning, projection.completion.text) == ("hm", "yes")


@pytest.mark.parametrize(
    ("status", "message", "code", "wait_s"),
    [
        (429, "busy\nSuggested retry after 7s.", "rate_limit_exceeded", 7.0),
        (429, "You exceeded your current quota\nSuggested retry after 33.5s.", "rate_limit_exceeded", 33.5),
        (429, "Resource has been exhausted (e.g. check quota).", "rate_limit_exceeded", None),
        (429, "You have exhausted your daily quota on this model.", "quota_exhausted", None),
        (429, "You exceeded your current quota, please check your plan", "quota_exhausted", None),
        (429, "Your prepayment credits are depleted.", "quota_exhausted", None),
        (400, "API key not valid. Please pass a valid API key.", "provider_auth_failed", None),
        (400, "The input token count exceeds the maximum number of tokens allowed", "context_length_exceeded", None),
        (400, "an author is missing", "provider_rejected_request", None),
        (500, "models/x is not found", "model_not_found", None),
        (503, "authentication backend overloaded", "provider_overloaded", None),
        (418, "teapot", "provider_error", None),
    ],
)  # fmt: skip
def test_a_failure_is_told_by_its_status_and_where_that_is_vague_by_its_message(
    status: int, message: str, code: str, wait_s: float | None
):
    """A limit that passes soon is another one than a quota that is used up; the time to wait is in the message."""
    server = Server()
    prompt = server.start()
    ((_, events),) = server.says({"id": prompt["id"], "error": {"code": status, "message": message}})
    assert events[-1] == Failure(code=code, message=message, retry_after_s=wait_s)


@pytest.mark.parametrize(
    ("reason", "usage", "code"),
    [
        ("end_turn", [{}], "provider_error"),
        ("end_turn", [], "provider_connection_failed"),
        ("max_tokens", [], "context_length_exceeded"),
        ("cancelled", [], "turn_cancelled"),
        ("something_new", [{}], "provider_protocol_error"),
    ],
)
def test_an_end_without_text_is_a_failure(reason: str, usage: list, code: str):
    """gemini itself calls an empty answer an invalid one; ``max_tokens`` is its estimate of the prompt."""
    server = Server()
    prompt = server.start()
    ((_, events),) = server.answer(prompt, stopReason=reason, _meta={"quota": {"model_usage": usage}})
    assert events[-1].code == code


@pytest.mark.parametrize(
    "line", [b"\x1b[?1049h\x1b[2JPlease visit the following URL to authorize the application:", b"\x1b[1G"]
)
def test_a_login_dialogue_is_no_login_and_the_process_is_to_be_killed(line: bytes):
    """It would take the next line of the protocol for the code that it asks for."""
    connection = GeminiConnection("/w")
    connection.handshake()
    connection.start_turn("a", Prompt(text="x"))
    ((turn, events),) = connection.receive([line])
    assert (turn, events[0].code) == ("a", "not_logged_in")
    assert connection.would_go_on
    assert connection.is_spent


def test_an_odd_line_after_the_handshake_is_no_login_dialogue():
    """Whatever it says."""
    server = Server()
    server.start()
    ((_, events),) = server.connection.receive([b"authorize"])
    assert events[0].code == "provider_protocol_error"
    assert not server.connection.would_go_on


def test_a_session_that_cannot_be_made_fails_the_turns_that_wait():
    """With what gemini says, and the process is of no use."""
    server = Server()
    server.connection.start_turn("a", Prompt(text="x"))
    (asked,) = server.sent()
    error = {"code": -32000, "message": "Authentication required"}
    ((turn, events),) = server.says({"id": asked["id"], "error": error})
    assert (turn, events) == ("a", [Failure(code="not_logged_in", message="Authentication required")])
    assert server.connection.is_spent
    assert server.sent() == []


@pytest.mark.parametrize("line", [b"garbage", b"[1]", b'{"id":{}}', b"\xff\xfe"])
def test_what_is_not_the_protocol_fails_every_turn(line: bytes):
    """Running and waiting ones."""
    server = Server()
    server.start(turn="a")
    failures = server.connection.receive([line])
    assert [(turn, events[0].code) for turn, events in failures] == [("a", "provider_protocol_error")]
    assert server.connection.is_spent


def test_a_dead_process_fails_every_turn():
    """With the end of its stderr."""
    server = Server()
    server.start()
    ((turn, events),) = server.connection.closed(-9, "out of memory")
    assert turn == "a"
    assert events[0].code == "provider_crashed"
    assert "out of memory" in events[0].message


def test_concurrent_turns_do_not_mix():
    """By session, whatever the order."""
    server = Server()
    first, second = server.start(turn="a"), server.start(turn="b")
    quota = {"quota": {"token_count": {"input_tokens": 1, "output_tokens": 2}, "model_usage": [{}]}}
    batches = server.says(
        update("agent_message_chunk", second["params"]["sessionId"], content={"type": "text", "text": "B"}),
        update("agent_message_chunk", first["params"]["sessionId"], content={"type": "text", "text": "A"}),
        {"id": second["id"], "result": {"stopReason": "end_turn", "_meta": quota}},
    )
    assert [(turn, [type(event) for event in events]) for turn, events in batches] == [
        ("b", [AssistantDelta]),
        ("a", [AssistantDelta]),
        ("b", [RunStarted, Result]),
    ]


INPUTS = CommandInputs(
    executable=("/bin/gemini",),
    model="--yolo",
    login="user",
    workspace="/w",
    home="/h",
    user_home="/u",
    variables={"GEMINI_API_KEY": "secret-key"},
)


def test_the_locks_are_in_the_home_of_the_process():
    """Settings, policy and system prompt are ours; of the user's home, only the login."""
    command = PROVIDER.command(INPUTS)
    settings = json.loads(command.files["/h/.gemini/settings.json"])
    assert (settings["tools"], settings["mcpServers"], settings["mcp"]) == ({"core": []}, {}, {"allowed": []})
    assert settings["model"]["maxSessionTurns"] == 1
    assert settings["general"]["maxAttempts"] == 1
    assert settings["security"]["auth"]["selectedType"] == "oauth-personal"
    assert 'decision = "deny"' in command.files["/h/policy.toml"]
    assert set(command.links.values()) == {
        "/u/.gemini/oauth_creds.json",
        "/u/.gemini/google_accounts.json",
        "/u/.gemini/gemini-credentials.json",
    }
    assert command.env["GEMINI_CLI_NO_RELAUNCH"] == "1"
    assert "--model=--yolo" in command.argv
    assert not any("secret-key" in part for part in command.argv)
