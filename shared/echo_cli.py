"""A tiny command line that speaks claude's stream-json and answers with the user's own text.

It is the program behind the ``echo`` provider: started by path with ``-I -S``, standard library only, no import of
this project. One word is one delta; usage is word counts. Markers in the user's text steer it and are not echoed:

``[[pause:SECONDS]]``
    wait before each word
``[[burst:N]]``
    N short deltas, written as fast as the pipe takes them (at most 100 000)

As a turn's settings, it takes the most words of its answer (``max_tokens`` is then its stop reason), and a JSON schema:
the answer is the user's text when that is a JSON object, else one made for the schema, with that text as its strings;
where the schema names no properties, the words in single quotes in that text are their names.

Only with ``--misbehave`` (the supervisor's variable ASM_ENDPOINT_ECHO_MISBEHAVE=1; for tests of the supervisor):

``[[silence]]`` nothing more is printed, ``[[stall:N]]`` nothing after N words, ``[[garbage]]`` a line that is not
JSON, ``[[half-line]]`` half a line and exit, ``[[huge-line:BYTES]]`` one long line first, ``[[ignore-term]]`` SIGTERM,
SIGINT and SIGHUP do nothing from now on, ``[[daemonise]]`` a double-forked grandchild in its own session that ignores
SIGTERM and holds stdout, ``[[hide]]`` another one, which has scrubbed its environment too and is called
``echo-hidden``, ``[[exit:CODE]]`` exit without a result, ``[[stderr:TEXT]]`` a line on stderr, ``[[tool:NAME]]`` a
request for a tool, ``[[error:STATUS]]`` a failed result, ``[[whole]]`` the answer as one message without deltas,
``[[cwd]]`` answer with the working directory, ``[[environ]]`` answer with the environment's names, ``[[cost:USD]]`` a
cost other than 0, ``[[uncounted]]`` no usage; ``[[read:PATH]]``, ``[[create:PATH]]``, ``[[mode:PATH]]`` (set to what it
is), ``[[chroot:PATH]]``, ``[[signal:PID]]``, ``[[supervise:PATH]]`` (the zygote's socket) answer with ``done`` or the
name of the error they met.

It uses up, and holds until it ends: ``[[allocate:MB]]`` memory, ``[[burn:SECONDS]]`` processor time, ``[[fork:N]]``
processes, ``[[open:N]]`` descriptors, ``[[write:BYTES]]`` disk in the working directory; as much as it is allowed.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable

TYPE_CHECKING = False
if TYPE_CHECKING:  # a tenth of the start-up would be the import of typing
    from typing import Any

MARKER = re.compile(r"\[\[([a-z-]+)(?::([^\]]*))?\]\]\s?")
BENIGN = {"pause", "burst"}
MISBEHAVIOUR = {
    "silence", "stall", "garbage", "half-line", "huge-line", "ignore-term", "daemonise", "hide", "exit", "stderr",
    "tool", "error", "whole", "cwd", "environ", "cost", "read", "create", "mode", "chroot", "signal", "supervise",
    "allocate", "burn", "fork", "open", "write", "uncounted",
}  # fmt: skip
ATTEMPTS = {
    "read": lambda path: os.close(os.open(path, os.O_RDONLY)),
    "create": lambda path: os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)),
    "mode": lambda path: os.chmod(path, os.stat(path).st_mode & 0o7777),
    "chroot": os.chroot,
    "signal": lambda pid: os.kill(int(pid), 0),
    "supervise": lambda path: supervise(path),  # noqa: PLW0108  # which is further down
}
MAX_BURST = 100_000
MAX_DEPTH = 8
QUOTED = re.compile(r"'(\w+)'")
TEXT_BLOCK = ({"type": "text", "text": ""}, "text_delta", "text")
SCHEMA_BLOCK = (
    {"type": "tool_use", "id": "toolu_0", "name": "StructuredOutput"},
    "input_json_delta",
    "partial_json",
)
WRITE_BYTES = 64 * 1024
held: list[object] = []
MAX_SLEEP_S = 600.0
BURST_LINES_PER_WRITE = 200
HIDDEN_NAME = "echo-hidden"


def main(argv: list[str]) -> None:
    """Serve turns from stdin until it closes."""
    known = BENIGN | MISBEHAVIOUR if "--misbehave" in argv else BENIGN
    model = argv[argv.index("--model") + 1] if "--model" in argv else "echo"
    wishes: dict[str, Any] = {}
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if message["type"] == "control_request":
            wishes |= message["request"] | message["request"].get("settings", {}).get("env", {})
            reply = {"subtype": "success", "request_id": message["request_id"]}
            put({"type": "control_response", "response": reply})
        elif message["type"] == "user":
            answer(message["message"]["content"], model, known, wishes)


def answer(prompt: str, model: str, known: set[str], wishes: dict[str, Any]) -> None:
    """One turn: the lines claude would print."""
    markers = {name: value for name, value in MARKER.findall(prompt) if name in known}
    text = MARKER.sub(lambda match: "" if match[1] in known else match[0], prompt)
    if "cwd" in markers:
        text = os.getcwd()
    if "environ" in markers:
        text = " ".join(sorted(os.environ))
    for name, attempt in ATTEMPTS.items():
        if name in markers:
            text = outcome_of(attempt, markers[name])
    schema = wishes.get("jsonSchema")
    if schema:
        text = json.dumps(parsed(text) or instance(schema, text, schema))
    words = words_of(text)[: int(wishes.get("CLAUDE_CODE_MAX_OUTPUT_TOKENS", MAX_BURST))]
    is_whole = "".join(words) == text
    text = "".join(words)
    usage = {"input_tokens": len(prompt.split()), "output_tokens": 0} if "uncounted" not in markers else None
    init = {"session_id": str(os.getpid()), "model": model, "tools": ["StructuredOutput"] if schema else []}
    put({"type": "system", "subtype": "init", **init})
    use_up(markers)
    misbehave(markers)
    event({"type": "message_start", "message": {"model": model, "content": [], "usage": usage}})
    block, delta, name = TEXT_BLOCK if not schema else SCHEMA_BLOCK
    if "burst" in markers:
        text = burst(min(int(markers["burst"]), MAX_BURST))
    elif "whole" not in markers:
        event({"type": "content_block_start", "index": 0, "content_block": block})
        for number, word in enumerate(words):
            nap(markers.get("pause"))
            if markers.get("stall") == str(number):
                time.sleep(MAX_SLEEP_S)
            event({"type": "content_block_delta", "index": 0, "delta": {"type": delta, name: word}})
    usage = {**usage, "output_tokens": len(text.split())} if usage else None
    if not schema:
        block = {"type": "text", "text": text}
    put({"type": "assistant", "message": {"model": model, "content": [block]}})
    event({"type": "content_block_stop", "index": 0})
    if "error" not in markers:
        reason = "end_turn" if is_whole else "max_tokens"
        event({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage})
        event({"type": "message_stop"})
    finish(markers, text, usage)


def parsed(text: str) -> object:
    """The JSON object in a text; None when it is no such thing."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def instance(schema: Any, text: str, root: Any, depth: int = 0) -> Any:
    """A small value that has the schema, as far as types, properties, choices and references in it say."""
    schema = chosen(schema, root)
    if depth > MAX_DEPTH or "const" in schema or "enum" in schema:
        return schema.get("const", *schema.get("enum", ())[:1])
    kind = schema.get("type", "object")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        properties = schema.get("properties") or {key: {"type": "string"} for key in QUOTED.findall(text)}
        return {name: instance(each, text, root, depth + 1) for name, each in properties.items()}
    if kind == "array":
        return [instance(schema.get("items", {}), text, root, depth + 1)] * schema.get("minItems", 1)
    return {"string": text, "integer": 1, "number": 1.5, "boolean": True}.get(kind)


def chosen(schema: Any, root: Any) -> dict[str, Any]:
    """The schema that another one refers to, or gives as its first choice."""
    for _ in range(MAX_DEPTH):
        choices = next((schema[name] for name in ("anyOf", "oneOf", "allOf") if schema.get(name)), None)
        if "$ref" in schema:
            schema = functools.reduce(lambda at, step: at[step], schema["$ref"].split("/")[1:], root)
        elif choices:
            schema = choices[0]
    return dict(schema) if isinstance(schema, dict) else {}


def outcome_of(attempt: Callable[[str], None], target: str) -> str:
    """What came of trying that."""
    try:
        attempt(target)
    except OSError as error:
        return type(error).__name__
    return "done"


def supervise(path: str) -> None:
    """Greet the zygote as its supervisor would. Raises OSError when it does not answer."""
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(path)
        connection.send(b'{"type":"hello","protocol":1,"adopt_grace_s":60}')
        if not connection.recv(4096):
            raise ConnectionResetError


def use_up(markers: dict[str, str]) -> None:
    """Take of the machine what the markers name, until an error says that it is enough."""
    with contextlib.suppress(OSError, MemoryError):
        if "allocate" in markers:
            held.append(bytearray(os.urandom(1)) * (int(markers["allocate"]) << 20))
        held.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(int(markers.get("open", 0))))
        for _ in range(int(markers.get("fork", 0))):
            if os.fork() == 0:
                time.sleep(MAX_SLEEP_S)
                os._exit(0)
        if "write" in markers:
            with open("written", "wb", buffering=0) as file:
                for _ in range(int(markers["write"]) // WRITE_BYTES + 1):
                    file.write(bytes(WRITE_BYTES))
    end = time.process_time() + float(markers.get("burn", 0))
    while time.process_time() < end:
        pass


def finish(markers: dict[str, str], text: str, usage: dict[str, int] | None) -> None:
    """The terminal record."""
    outcome: dict[str, object] = {"is_error": False, "result": text}
    if "error" in markers:
        outcome = {"is_error": True, "api_error_status": int(markers["error"]), "result": "scripted error"}
    outcome["total_cost_usd"] = float(markers.get("cost", 0))
    put({"type": "result", "subtype": "success", "stop_reason": "end_turn", "usage": usage, **outcome})


def words_of(text: str) -> list[str]:
    """The text cut into words that keep their spaces, so that joining them gives the text back."""
    words = text.split(" ")
    return [word + " " for word in words[:-1]] + ([words[-1]] if words[-1] else [])


def burst(count: int) -> str:
    """Write ``count`` deltas in large writes; returns their text."""
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "w "}}
    line = json.dumps({"type": "stream_event", "event": delta}, separators=(",", ":")).encode() + b"\n"
    chunk = line * BURST_LINES_PER_WRITE
    for _ in range(count // BURST_LINES_PER_WRITE):
        sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.write(line * (count % BURST_LINES_PER_WRITE))
    sys.stdout.buffer.flush()
    return "w " * count


def misbehave(markers: dict[str, str]) -> None:
    """What no good command line does; each on demand."""
    if "ignore-term" in markers:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
    if "stderr" in markers:
        print(markers["stderr"], file=sys.stderr, flush=True)
    if "daemonise" in markers:
        daemonise(sleep)
    if "hide" in markers:
        daemonise(hide)
    if "garbage" in markers:
        raw(b"this is not JSON\n")
    if "huge-line" in markers:
        put({"type": "system", "subtype": "padding", "content": "x" * int(markers["huge-line"])})
    if "half-line" in markers:
        raw(b'{"type":"stream_event","event":{"ty')
        os._exit(0)
    if "tool" in markers:
        block = {"type": "tool_use", "id": "toolu_1", "name": markers["tool"], "input": {}}
        event({"type": "content_block_start", "index": 0, "content_block": block})
        time.sleep(MAX_SLEEP_S)
    if "exit" in markers:
        os._exit(int(markers["exit"]))
    if "silence" in markers:
        time.sleep(MAX_SLEEP_S)


def daemonise(live: Callable[[], None]) -> None:
    """Leave a grandchild behind that has left our session and parentage, and lives as it is told."""
    if child := os.fork():
        os.waitpid(child, 0)
        return
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork():
        os._exit(0)
    live()
    os._exit(0)


def sleep() -> None:
    """Stay there."""
    time.sleep(MAX_SLEEP_S)


def hide() -> None:
    """Become a program of another name that has no environment at all, and stay there."""
    program = f"import time; time.sleep({MAX_SLEEP_S})"
    os.execve(sys.executable, (HIDDEN_NAME, "-I", "-S", "-c", program), {})  # noqa: S606


def nap(seconds: str | None) -> None:
    """Sleep for a marker's value, bounded; None is no wait."""
    if seconds:
        time.sleep(min(float(seconds), MAX_SLEEP_S))


def event(payload: object) -> None:
    """Print one Anthropic stream event."""
    put({"type": "stream_event", "event": payload})


def put(payload: object) -> None:
    """Print one JSON line."""
    raw(json.dumps(payload, separators=(",", ":")).encode() + b"\n")


def raw(data: bytes) -> None:
    """Print bytes at once."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(1)
