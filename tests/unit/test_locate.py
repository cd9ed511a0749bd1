"""Finding command lines and logins: the order, the errors, and what of the environment goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared import locate
from shared.claude_wire.connection import ClaudeConnection
from shared.errors import ProviderError
from shared.provider import Command, Executable, Login, Provider

PROVIDER = Provider(
    name="thing",
    title="Thing",
    capabilities=("streaming",),
    example_model="any",
    command=lambda inputs: Command(argv=inputs.executable, env={}, cwd=inputs.workspace),
    connect=lambda _inputs: ClaudeConnection(),
    executable=Executable(
        variable="THING_PATH",
        names=("thing-code", "thing"),
        known_places=("~/.thing/bin/thing",),
        install_hint="npm install -g thing",
    ),
    logins=(
        Login(name="key", variables=("THING_KEY", "THING_TOKEN")),
        Login(
            name="user",
            files=(".thing/credentials",),
            home_variable="THING_HOME",
            home_variable_files=("credentials",),
        ),
    ),
    login_hint="run `thing login`",
    environment=("THING_KEY", "THING_URL"),
)


def program(path: Path, mode: int = 0o755) -> Path:
    """A program that prints a version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\necho 'Thing v1.2.3-beta.4 (build 9)'\n")
    path.chmod(mode)
    return path


def find(home: Path, **environ: str) -> str:
    """The path that is found."""
    (path,) = locate.find_executable(PROVIDER, environ, home)
    return path


def test_the_variable_goes_first(tmp_path: Path):
    """Before PATH and known places."""
    named = program(tmp_path / "named" / "my-thing")
    program(tmp_path / "bin" / "thing")
    assert find(tmp_path, THING_PATH=str(named), PATH=str(tmp_path / "bin")) == str(named)


def test_a_bare_name_in_the_variable_is_searched_on_path(tmp_path: Path):
    """It is a name, not a path."""
    other = program(tmp_path / "bin" / "other")
    assert find(tmp_path, THING_PATH="other", PATH=str(tmp_path / "bin")) == str(other)


def test_names_are_tried_in_order_on_path(tmp_path: Path):
    """The first name wins, in whichever folder."""
    program(tmp_path / "a" / "thing")
    wanted = program(tmp_path / "b" / "thing-code")
    assert find(tmp_path, PATH=f"{tmp_path / 'a'}:{tmp_path / 'b'}") == str(wanted)


def test_known_places_come_last(tmp_path: Path):
    """Below the user's home."""
    known = program(tmp_path / ".thing" / "bin" / "thing")
    assert find(tmp_path, PATH="/nowhere") == str(known)


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("/no/such/file", "points to the non-existent file"),
        ("{home}/plain", "points to the non-executable file"),
        ("no-such-name", "cannot find 'no-such-name' on PATH, which THING_PATH names"),
        ("", "install it with `npm install -g thing`"),
    ],
)
def test_what_is_not_found_says_what_to_do(tmp_path: Path, variable: str, words: str):
    """cli_not_found, 503."""
    program(tmp_path / "plain", mode=0o644)
    with pytest.raises(ProviderError, match="cannot") as missing:
        find(tmp_path, THING_PATH=variable.format(home=tmp_path), PATH="/nowhere")
    assert (missing.value.code, missing.value.status) == ("cli_not_found", 503)
    assert words in missing.value.message


@pytest.mark.parametrize(
    ("environ", "file", "login"),
    [
        ({"THING_KEY": "x"}, None, "key"),
        ({"THING_TOKEN": "x"}, ".thing/credentials", "key"),
        ({}, ".thing/credentials", "user"),
        ({"THING_HOME": "{home}/else"}, "else/credentials", "user"),
        ({"THING_KEY": ""}, ".thing/credentials", "user"),
    ],
)
def test_logins_in_order(tmp_path: Path, environ: dict[str, str], file: str | None, login: str):
    """A key before the user's own login; an empty variable is none."""
    if file:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    given = {name: value.format(home=tmp_path) for name, value in environ.items()}
    assert locate.find_login(PROVIDER, given, tmp_path) == login


@pytest.mark.parametrize("environ", [{}, {"THING_HOME": "/nowhere"}])
def test_not_logged_in_says_what_to_do(tmp_path: Path, environ: dict[str, str]):
    """not_logged_in, 503; a named home hides the usual one."""
    if environ:
        (tmp_path / ".thing").mkdir()
        (tmp_path / ".thing" / "credentials").touch()
    with pytest.raises(ProviderError, match="run `thing login`") as missing:
        locate.find_login(PROVIDER, environ, tmp_path)
    assert (missing.value.code, missing.value.status) == ("not_logged_in", 503)


def test_only_named_variables_go_on():
    """And PATH, which a script needs to find its interpreter."""
    environ = {"THING_KEY": "k", "THING_URL": "", "SECRET": "s", "PATH": "/bin", "HOME": "/root"}
    assert locate.passed_variables(PROVIDER, environ) == {"THING_KEY": "k", "PATH": "/bin"}


def test_versions_are_read(tmp_path: Path):
    """From whatever a command line prints around it; None when it cannot say."""
    assert locate.read_version(PROVIDER.executable, (str(program(tmp_path / "thing")),), {}) == "1.2.3-beta.4"
    assert locate.read_version(PROVIDER.executable, ("/no/such/program",), {}) is None


def test_credentials_are_seen_by_name(tmp_path: Path):
    """Every login that is there, in order; names of variables, paths of files, no values."""
    assert locate.seen_credentials(PROVIDER, {"THING_URL": "x", "THING_KEY": ""}, tmp_path) == {}
    credentials = tmp_path / ".thing" / "credentials"
    credentials.parent.mkdir()
    credentials.write_text("secret")
    seen = locate.seen_credentials(PROVIDER, {"THING_TOKEN": "secret"}, tmp_path)
    assert seen == {"key": ("THING_TOKEN",), "user": (str(credentials),)}
    elsewhere = locate.seen_credentials(PROVIDER, {"THING_HOME": str(credentials.parent)}, tmp_path / "no")
    assert elsewhere == {"user": (str(credentials),)}
