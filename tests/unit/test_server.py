"""How a family's end is put into words."""

from __future__ import annotations

import pytest

from worker.server import CRASH_LOOP_EXIT, DEATHS_WINDOW_S, MAX_DEATHS, exit_text


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0, "exit 0"),
        (1, "exit 1"),
        (-9, "signal SIGKILL"),
        (
            CRASH_LOOP_EXIT,
            f"exit 70: its worker process died more than {MAX_DEATHS} times in {DEATHS_WINDOW_S:g} s",
        ),
    ],
)
def test_an_exit_status_has_words(code: int, text: str):
    """A crash loop says what it is, in numbers."""
    assert exit_text(code) == text
