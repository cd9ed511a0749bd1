"""Which state folder a command line serves from."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.starting import served_home

CWD = Path("/somewhere")
ENVIRON = {"ASM_ENDPOINT_HOME": "/of/the/environment"}


@pytest.mark.parametrize(
    ("argv", "home"),
    [
        ("python /bin/asm-endpoint serve", "/of/the/environment"),
        ("asm-endpoint serve --port 0 --home /named", "/named"),
        ("asm-endpoint serve --home=/named --port 0", "/named"),
        ("python -P -m supervisor serve --home named", "/somewhere/named"),
        ("timeout 60 asm-endpoint serve --home ./named", "/somewhere/named"),
        ("asm-endpoint ls --home /named", None),
        ("asm-endpoint run --provider echo --model any -- serve", None),
        ("mkdocs serve --home /named", None),
        ("serve", None),
        ("", None),
    ],
)
def test_a_command_line_that_serves(argv: str, home: str | None):
    """However it was started; any other one serves from nowhere."""
    assert served_home(argv.split(" "), ENVIRON, CWD) == (None if home is None else Path(home))


def test_the_default_is_the_users_own(monkeypatch: pytest.MonkeyPatch):
    """As for the process itself."""
    monkeypatch.setenv("HOME", "/home/u")
    assert served_home(["asm-endpoint", "serve"], {}, CWD) == Path("/home/u/.local/state/asm-endpoint")
    assert served_home(["asm-endpoint", "serve", "--home", "~/x"], {}, CWD) == Path("/home/u/x")
