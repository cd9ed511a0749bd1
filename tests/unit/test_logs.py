"""One line per record, with its request's fields and without secrets, in a file that stays small."""

from __future__ import annotations

import asyncio
import datetime
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shared import logs
from shared.logs import ConsoleFormatter, JsonFormatter, LineHandler
from shared.redaction import MASK

LOGGER = logging.getLogger("asm_endpoint.test")
SECRET = "hunter-two-hunter-two"
API_KEY = "sk-ant-api03-canary-canary-canary"
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TIMEOUT_S = 60


def record(
    message: str, *args: object, error: BaseException | None = None, **extra: object
) -> logging.LogRecord:
    """As a logger makes it."""
    return LOGGER.makeRecord(
        LOGGER.name, logging.INFO, "file.py", 1, message, args,
        (type(error), error, error.__traceback__) if error else None, extra=extra,
    )  # fmt: skip


def as_json(entry: logging.LogRecord, *, fields: dict[str, str] | None = None, secrets: tuple[str, ...] = ()):
    """The record's JSON line, decoded; the line is one line."""
    line = JsonFormatter(fields or {}, secrets).format(entry)
    assert "\n" not in line
    return json.loads(line)


def test_a_json_line_begins_with_time_level_logger_and_message():
    """The time is RFC 3339 in UTC."""
    line = as_json(record("%s of %d", "one", 2))
    assert list(line) == ["time", "level", "logger", "message"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    assert datetime.datetime.fromisoformat(line["time"]).utcoffset() == datetime.timedelta()
    assert (line["level"], line["logger"], line["message"]) == ("info", "asm_endpoint.test", "one of 2")


def test_fields_of_process_request_and_record_are_in_the_line():
    """Numbers stay numbers, and what is not known is left out."""

    async def request() -> dict:
        logs.begin(request_id=TRACE_ID)
        logs.bind(turn="turn-1")
        return as_json(
            record("done", status=200, elapsed_ms=1.5, model=None), fields={"lease_ref": "lease_1"}
        )

    line = asyncio.run(request())
    assert line["lease_ref"] == "lease_1"
    assert line["request_id"] == TRACE_ID
    assert line["turn"] == "turn-1"
    assert (line["status"], line["elapsed_ms"]) == (200, 1.5)
    assert "model" not in line


def test_requests_do_not_see_each_others_fields():
    """What one starts carries its fields; another beginning on the same connection has only its own."""

    async def request(name: str) -> tuple[str | None, str | None, str | None]:
        logs.begin(request_id=name)
        logs.bind(turn=name)
        await asyncio.sleep(0)
        child = await asyncio.create_task(_bound())
        seen = logs.bound("turn")
        logs.begin(request_id="next")
        return seen, child, logs.bound("turn")

    async def both() -> list:
        return list(await asyncio.gather(request("a"), request("b")))

    assert asyncio.run(both()) == [("a", "a", None), ("b", "b", None)]
    assert logs.bound("request_id") is None


async def _bound() -> str | None:
    return logs.bound("turn")


def test_an_exception_is_a_field():
    """With its traceback, in the one line."""
    try:
        raise ValueError("broken")
    except ValueError as error:
        line = as_json(record("failed", error=error))
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ValueError: broken")


def test_an_identifier_may_look_random_but_not_like_a_key():
    """Trace ids are; somebody's key as a request id is masked all the same."""
    line = as_json(record("x"), fields={"one": TRACE_ID, "two": API_KEY, "three": SECRET}, secrets=(SECRET,))
    assert (line["one"], line["two"], line["three"]) == (TRACE_ID, MASK, MASK)


@pytest.mark.parametrize("formatter", [JsonFormatter, ConsoleFormatter])
def test_secrets_are_in_no_part_of_a_line(formatter: type[JsonFormatter | ConsoleFormatter]):
    """Known ones anywhere, unknown ones by their look; the control shows that the rest of each text is there."""
    try:
        raise ValueError(f"exception text {API_KEY}")
    except ValueError as error:
        entry = record("message text %s %s", SECRET, API_KEY, error=error, stderr=f"stderr text {API_KEY}")
    line = formatter({"lease_ref": f"ref {SECRET}"}, (SECRET,)).format(entry)
    for text in ("message text", "exception text", "stderr text", MASK):
        assert text in line
    assert SECRET not in line
    assert API_KEY not in line


def test_a_console_line_cannot_be_forged():
    """Control characters in others' words begin no line and move no cursor."""
    line = ConsoleFormatter({}, ()).format(
        record("a\n2026-01-01T00:00:00Z ERROR forged\x1b[2J", name_="b\r\nc", path="/a status=200")
    )
    assert "\n" not in line
    assert "\x1b" not in line
    assert r"a\n2026" in line
    assert line.endswith(r'[name_="b\r\nc" path="/a status=200"]')


def test_an_exception_cannot_forge_a_console_line():
    """Its text may be others' words too."""
    try:
        raise ValueError("a\n2026-01-01T00:00:00Z ERROR forged\x1b[2J")
    except ValueError as error:
        _, *rest = ConsoleFormatter({}, ()).format(record("failed", error=error)).splitlines()
    assert all(line.startswith("  ") for line in rest)
    assert rest[-1] == r"  2026-01-01T00:00:00Z ERROR forged\x1b[2J"


def test_a_console_line_is_for_people():
    """Level, logger and message first; a traceback in lines of its own."""
    try:
        raise ValueError("broken")
    except ValueError as error:
        first, *rest = ConsoleFormatter({}, ()).format(record("failed", error=error, status=500)).splitlines()
    assert first.split(" ", 1)[1] == "INFO    asm_endpoint.test failed [status=500]"
    assert rest[-1] == "  ValueError: broken"


@pytest.mark.parametrize("line", ["plain words", '{"level":"info","message":"plain words"}'])
def test_the_message_of_a_line_can_be_told(line: str):
    """Of a JSON line only the message."""
    assert logs.message_of(line) == "plain words"


def test_the_message_of_a_line_tells_its_exception():
    """Which is what somebody wants to know whose worker did not boot."""
    try:
        raise ValueError("broken")
    except ValueError as error:
        line = JsonFormatter({}, ()).format(record("cannot go on", error=error))
    assert logs.message_of(line) == "cannot go on: ValueError: broken"


def test_what_outlives_a_request_can_be_set_up_without_its_fields():
    """A callback that a request registers is not part of it."""

    async def request() -> list[str | None]:
        logs.begin(request_id="mine")
        seen: list[str | None] = []
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: seen.append(logs.bound("request_id")))
        logs.unbound(loop.call_soon, lambda: seen.append(logs.bound("request_id")))
        await asyncio.sleep(0)
        return seen

    assert asyncio.run(request()) == ["mine", None]


def test_a_long_text_is_cut_after_it_was_redacted():
    """So that no half of a secret is left at the cut."""
    text = "x " * (logs.MAX_TEXT_CHARS // 2 - 5) + API_KEY + " y" * 100
    message = as_json(record("%s", text))["message"]
    assert len(message) < logs.MAX_TEXT_CHARS + 50
    assert "sk-" not in message


@pytest.fixture(params=[os.O_RDWR, os.O_WRONLY], ids=["readable", "write-only"])
def log_fd(request: pytest.FixtureRequest, tmp_path: Path):
    """A log file as a worker and a zygote have it."""
    fd = os.open(tmp_path / "log", request.param | os.O_CREAT | os.O_APPEND, 0o600)
    yield fd
    os.close(fd)


def test_a_log_file_never_exceeds_its_bound(log_fd: int, tmp_path: Path):
    """The newest lines are there, whole, also after many rounds."""
    handler = LineHandler(log_fd, max_bytes=1000)
    for number in range(500):
        handler.emit(record("line %d", number))
        assert os.fstat(log_fd).st_size <= 1000
    lines = (tmp_path / "log").read_text().splitlines()
    numbers = [int(line.split()[-1]) for line in lines]
    assert numbers == list(range(numbers[0], 500))


def test_without_a_bound_it_grows(log_fd: int):
    """Positive control."""
    handler = LineHandler(log_fd)
    for number in range(500):
        handler.emit(record("line %d", number))
    assert os.fstat(log_fd).st_size > 1000


def test_only_a_file_that_is_appended_to_is_cut(tmp_path: Path):
    """Elsewhere a cut would leave a hole, or hit what somebody else reads."""
    fd = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT, 0o600)
    handler = LineHandler(fd, max_bytes=100)
    for number in range(50):
        handler.emit(record("line %d", number))
    os.close(fd)
    assert len((tmp_path / "log").read_text().splitlines()) == 50


def test_a_line_longer_than_the_whole_bound_stops_nothing(log_fd: int, tmp_path: Path):
    """It is written alone, and the file is small again after the next line."""
    handler = LineHandler(log_fd, max_bytes=100)
    handler.emit(record("before"))
    handler.emit(record("x" * 1000))
    handler.emit(record("after"))
    assert (tmp_path / "log").read_text() == "after\n"


def test_several_processes_share_one_bounded_file(tmp_path: Path):
    """Each with a descriptor of its own, as arbiter and worker process have after a fork."""
    path = tmp_path / "log"
    code = (
        "import logging, os, sys; from shared.logs import LineHandler\n"
        f"fd = os.open({str(path)!r}, os.O_RDWR | os.O_CREAT | os.O_APPEND)\n"
        "handler = LineHandler(fd, 4000)\n"
        "for number in range(2000): handler.emit(logging.makeLogRecord({'msg': f'{sys.argv[1]} {number} end'}))\n"
    )
    writers = [
        subprocess.Popen(
            (sys.executable, "-P", "-c", code, name), cwd=Path(__file__).parents[2], env={"PYTHONPATH": "."}
        )
        for name in "ab"
    ]
    assert [writer.wait(TIMEOUT_S) for writer in writers] == [0, 0]
    lines = path.read_text().splitlines()
    assert path.stat().st_size <= 5000
    assert all(re.fullmatch(r"[ab] \d+ end", line) for line in lines)


def test_what_cannot_be_written_raises_nothing():
    """A full disk, a closed pipe, or a value that cannot be shown."""

    class Unshowable:
        def __str__(self) -> str:
            raise RuntimeError

    full = os.open("/dev/full", os.O_WRONLY)
    try:
        LineHandler(full).emit(record("lost"))
        LineHandler(full).emit(record("%s", Unshowable()))
    finally:
        os.close(full)


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_configured_process_logs_everything_in_that_form(form: str):
    """Its own lines, warnings, gunicorn's, and the exception that ends it."""
    code = (
        "import logging, warnings\n"
        "from shared import logs\n"
        "from shared.serving import GunicornLog, common_settings\n"
        "from gunicorn.config import Config\n"
        f"logs.configure(logs.LogSettings(format={form!r}, level='warning'), secrets=('hidden-word',))\n"
        "config = Config(); [config.set(name, value) for name, value in common_settings().items()]\n"
        "log = config.logger_class(config)\n"
        "logging.getLogger('asm_endpoint').info('too little')\n"
        "logging.getLogger('asm_endpoint').warning('one hidden-word')\n"
        "log.error('two'); log.info('too little')\n"
        "warnings.warn('three', stacklevel=1)\n"
        "raise SystemError('four')\n"
    )
    ran = subprocess.run(
        (sys.executable, "-P", "-c", code), check=False, cwd=Path(__file__).parents[2], env={"PYTHONPATH": "."},
        capture_output=True, text=True, timeout=TIMEOUT_S,
    )  # fmt: skip
    assert ran.stdout == ""
    assert "too little" not in ran.stderr
    if form == "json":
        lines = [json.loads(line) for line in ran.stderr.splitlines()]
        assert [line["logger"] for line in lines] == [
            "asm_endpoint",
            "gunicorn.error",
            "py.warnings",
            "asm_endpoint",
        ]
        assert [line["message"] for line in lines[:2]] == [f"one {MASK}", "two"]
        assert lines[3]["exception"].endswith("SystemError: four")
    else:
        assert re.search(rf"^\S+Z WARNING asm_endpoint one {re.escape(MASK)}$", ran.stderr, re.MULTILINE)
        assert "SystemError: four" in ran.stderr
