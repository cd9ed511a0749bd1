"""What people see: a sign of progress on a terminal, tables, and errors in one line. Knows nothing of leases."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TextIO, TypeVar

PROGRAM = "asm-endpoint"
FRAMES = "|/-\\"
FRAME_S = 0.1
ERASE_LINE = "\r\x1b[K"
Value = TypeVar("Value")


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody watches the stream on a terminal that can erase a line; a closed stream is None."""
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


@contextlib.contextmanager
def progress(doing: str) -> Iterator[None]:
    """Show on stderr that something takes its time, and erase it afterwards. Nothing where there is no terminal."""
    if not is_terminal(sys.stderr):
        yield
        return
    is_over = threading.Event()
    spinner = threading.Thread(target=_spin, args=(sys.stderr, doing, is_over), daemon=True)
    spinner.start()
    try:
        yield
    finally:
        is_over.set()
        spinner.join()


def _spin(stream: TextIO, doing: str, is_over: threading.Event) -> None:
    with contextlib.suppress(OSError):
        for frame in itertools.cycle(FRAMES):
            print(f"{ERASE_LINE}{frame} {doing}", end="", file=stream, flush=True)
            if is_over.wait(FRAME_S):
                break
        print(ERASE_LINE, end="", file=stream, flush=True)


def print_error(message: str) -> None:
    """One line on stderr, whatever the message holds."""
    with contextlib.suppress(OSError):
        print(f"{PROGRAM}: {plain(message)}", file=sys.stderr, flush=True)


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as their widest cell."""
    lines = [list(head), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(map(str.ljust, line, widths)).rstrip())


def print_list(
    values: Sequence[Value],
    head: Sequence[str],
    row: Callable[[Value], Sequence[str]],
    *,
    as_json: bool,
    otherwise: str = "",
) -> None:
    """As JSON, or as a table with a row for each; ``otherwise`` is for people when there are none."""
    if as_json:
        print_json(values)
    elif values or not otherwise:
        print_table(head, map(row, values))
    else:
        print(otherwise)


def print_fields(fields: dict[str, str]) -> None:
    """Names and values, one pair a line."""
    width = max(map(len, fields))
    for name, value in fields.items():
        print(f"{name:<{width}}  {plain(value)}")


def print_json(value: Any) -> None:
    """Indented JSON of anything msgspec can encode."""
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def plain(text: str) -> str:
    """The text as one line without control characters, which others' words might hold."""
    return "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))
