"""Lines come out whole, in order, however the bytes came in."""

from __future__ import annotations

import pytest

from shared.framing import LineFramer, LineTooLong

TEXT = b"one\n\ntwo with \xff\xfe bytes\n  spaced  \nlast"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_lines_do_not_depend_on_the_chunks(size: int):
    """The same lines for every cut; the unfinished one comes at the flush."""
    framer, lines = LineFramer(), []
    for start in range(0, len(TEXT), size):
        lines += framer.push(TEXT[start : start + size])
    assert lines == TEXT.split(b"\n")[:-1]
    assert framer.flush() == b"last"
    assert framer.flush() == b""


@pytest.mark.parametrize("chunks", [[b"x" * 11], [b"x" * 6, b"x" * 6], [b"x" * 11 + b"\n"]])
def test_a_line_over_the_limit_is_an_error(chunks: list[bytes]):
    """Finished or not, in one chunk or in several."""
    framer = LineFramer(max_line_bytes=10)
    with pytest.raises(LineTooLong):
        for chunk in chunks:
            framer.push(chunk)


def test_a_line_at_the_limit_is_not():
    """The limit itself is allowed."""
    assert LineFramer(max_line_bytes=10).push(b"x" * 10 + b"\n") == [b"x" * 10]
