"""How every process of this product logs: one line per record, as JSON or for people, with its request beside it.

The logging itself is the standard library's; this module owns the form of a line, the fields that travel with a
request (a context variable, so whatever a request starts carries them too), what must never be in a line, and the
bound of a log file. It knows no HTTP, no lease table and no turn. JSON lines have ``time`` (RFC 3339, UTC), ``level``,
``logger``, ``message``, then the request's fields, then the record's own (``extra``), then ``exception``.
"""

from __future__ import annotations

import contextvars
import datetime
import fcntl
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Literal

import msgspec

from shared.redaction import redacted

STDERR_FD = 2
MAX_TEXT_CHARS = 32 * 1024
"""A longer text in one field is cut, after it was redacted."""
INDENT = "  "
"""Before the lines of an exception, so that none looks like a line of the log."""
KEPT_SHARE = 2
"""Of a full log file the newest half is kept."""
Level = Literal["debug", "info", "warning", "error"]
Format = Literal["json", "console"]
_WORD = re.compile(r"[^\s\"=\[\]]+")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_context: contextvars.ContextVar[dict[str, str]] = contextvars.ContextVar("log_context", default={})  # noqa: B039  # never changed in place


class LogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a process logs. ``max_bytes`` bounds the file behind stderr; None for streams that are not ours to cut."""

    format: Format = "json"
    level: Level = "info"
    content: bool = False
    """Log prompts and answers too. Secrets are never logged, not even then."""
    max_bytes: int | None = None


def begin(**fields: str) -> None:
    """Begin with these fields and no others: for what this task logs from now on, and whatever it starts."""
    _context.set(fields)


def bind(**fields: str) -> None:
    """Add fields to those of this task."""
    _context.set({**_context.get(), **fields})


def bound(name: str) -> str | None:
    """One of this task's fields, such as ``request_id``."""
    return _context.get().get(name)


def unbound(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call it without any fields: for what a request sets up and others will use after it."""
    return contextvars.Context().run(call, *arguments)


def configure(
    settings: LogSettings, *, fields: Mapping[str, str] | None = None, secrets: Iterable[str] = ()
) -> None:
    """Log to stderr from now on, and nowhere else; ``fields`` are in every line, ``secrets`` in none."""
    handler = LineHandler(STDERR_FD, settings.max_bytes)
    formatter = JsonFormatter if settings.format == "json" else ConsoleFormatter
    handler.setFormatter(formatter(fields or {}, tuple(secrets)))
    logging.basicConfig(handlers=[handler], level=settings.level.upper(), force=True)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught


def message_of(line: str) -> str:
    """The message of a log line of either form, with the exception it tells of, for people."""
    try:
        decoded = msgspec.json.decode(line, type=_Line)
    except msgspec.MsgspecError:
        return line
    return (
        f"{decoded.message}: {decoded.exception.splitlines()[-1]}" if decoded.exception else decoded.message
    )


class _Line(msgspec.Struct):
    message: str
    exception: str = ""


class _Formatter(logging.Formatter):
    def __init__(self, fields: Mapping[str, str], secrets: tuple[str, ...]) -> None:
        super().__init__()
        self._fields = dict(fields)
        self._secrets = secrets

    def described(self, record: logging.LogRecord) -> dict[str, Any]:
        """What the line says beyond time, level and logger, without secrets."""
        message = self._clean(record.getMessage())
        travelling = {
            name: redacted(value, self._secrets, is_identifier=True)
            for name, value in (self._fields | _context.get()).items()
        }
        own = {
            name: self._clean(value)
            for name, value in vars(record).items()
            if name not in _STANDARD and value is not None
        }
        if record.exc_info and record.exc_info[0]:
            own["exception"] = self._clean(self.formatException(record.exc_info))
        return {"message": message, **travelling, **own}

    def _clean(self, value: Any) -> Any:
        if isinstance(value, bool | int | float):
            return value
        text = redacted(str(value), self._secrets)
        return text if len(text) <= MAX_TEXT_CHARS else f"{text[:MAX_TEXT_CHARS]}... ({len(text)} characters)"


class JsonFormatter(_Formatter):
    """One JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Without the newline."""
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            **self.described(record),
        }
        return msgspec.json.encode(line).decode()


class ConsoleFormatter(_Formatter):
    """Time, level, logger, message, and the fields in brackets; an exception in lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """Without the newline; others' words cannot begin a line of their own, in an exception neither."""
        described = self.described(record)
        message, exception = described.pop("message"), described.pop("exception", None)
        fields = " ".join(f"{name}={_field(value)}" for name, value in described.items())
        line = _one_line(f"{record.levelname:<7} {record.name} {message}{f' [{fields}]' if fields else ''}")
        indented = (f"{INDENT}{_one_line(text)}" for text in (exception or "").splitlines())
        return "\n".join((f"{_time(record)} {line}", *indented))


class LineHandler(logging.Handler):
    """Writes whole lines to a descriptor. What cannot be written is lost: a full disk stops nothing else.

    A file that the descriptor appends to never grows beyond ``max_bytes``: its older half gives way, in place, because
    other processes append to it through descriptors of their own. A line that one of them writes in that very moment
    may be lost with it.
    """

    def __init__(self, fd: int, max_bytes: int | None = None) -> None:
        super().__init__()
        self._fd = fd
        self._max_bytes = max_bytes

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, or nothing."""
        try:
            line = f"{self.format(record)}\n".encode(errors="backslashreplace")
            if self._max_bytes is not None:
                _make_room(self._fd, len(line), self._max_bytes)
            while line:
                line = line[os.write(self._fd, line) :]
        except Exception:
            pass


def _make_room(fd: int, wanted: int, max_bytes: int) -> None:
    if os.fstat(fd).st_size + wanted <= max_bytes or not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND:
        return
    fcntl.lockf(fd, fcntl.LOCK_EX)
    try:
        size = os.fstat(fd).st_size
        kept = max(0, min(max_bytes // KEPT_SHARE, max_bytes - wanted))
        newest = _end_of(fd, kept, size)
        os.ftruncate(fd, 0)
        os.write(fd, newest[newest.find(b"\n") + 1 :])
    finally:
        fcntl.lockf(fd, fcntl.LOCK_UN)


def _end_of(fd: int, wanted: int, size: int) -> bytes:
    """The last bytes of a file; none where the descriptor is only for writing."""
    try:
        return os.pread(fd, wanted, max(0, size - wanted))
    except OSError:
        return b""


def _time(record: logging.LogRecord) -> str:
    at = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _field(value: Any) -> str:
    """As it is where it is one word, otherwise quoted."""
    text = str(value)
    return text if _WORD.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _log_uncaught(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
    logging.getLogger("asm_endpoint").critical("cannot go on: %s", kind.__name__, exc_info=(kind, error, at))
