"""Finding what is on this machine: a provider's executable, its version, and how its user is logged in.

Reads the filesystem and, for the version, runs the executable; the environment and home come in as arguments.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from shared.errors import ProviderError
from shared.provider import Executable, Login, Provider

VERSION_TIMEOUT_S = 10.0
VERSION = re.compile(r"\d+\.\d+(?:\.\d+)?(?:[-+.][0-9A-Za-z.-]+)?")


def find_executable(provider: Provider, environ: Mapping[str, str], user_home: Path) -> tuple[str, ...]:
    """The argv prefix that starts the provider's command line.

    Order: the provider's variable, its names on PATH, its known places. Raises ProviderError ``cli_not_found``
    with the way to install it.
    """
    executable = provider.executable
    if executable.pinned:
        return executable.pinned
    named = environ.get(executable.variable, "").strip()
    if named:
        return (_named(provider, named, environ),)
    for name in executable.names:
        if found := shutil.which(name, path=environ.get("PATH", "")):
            return (found,)
    for place in executable.known_places:
        path = user_home / place[2:] if place.startswith("~/") else Path(place)
        if _is_executable(path):
            return (str(path),)
    raise ProviderError(
        "cli_not_found",
        f"cannot find the {provider.name} command line on PATH; install it with `{executable.install_hint}` "
        f"or set {executable.variable} to its path",
    )


def _named(provider: Provider, named: str, environ: Mapping[str, str]) -> str:
    variable = provider.executable.variable
    if "/" not in named and not named.startswith("."):
        if found := shutil.which(named, path=environ.get("PATH", "")):
            return found
        raise ProviderError("cli_not_found", f"cannot find {named!r} on PATH, which {variable} names")
    path = Path(named)
    if not path.exists():
        raise ProviderError(
            "cli_not_found", f"cannot use {variable}: it points to the non-existent file {named}"
        )
    if not _is_executable(path):
        raise ProviderError(
            "cli_not_found", f"cannot use {variable}: it points to the non-executable file {named}"
        )
    return str(path.absolute())


def _is_executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def find_login(provider: Provider, environ: Mapping[str, str], user_home: Path) -> str:
    """The name of the first way in which the user is authenticated; "" for providers that need none.

    Raises ProviderError ``not_logged_in`` with the way to log in.
    """
    if not provider.logins:
        return ""
    for login in provider.logins:
        if any(environ.get(variable) for variable in login.variables) or _has_file(login, environ, user_home):
            return login.name
    raise ProviderError(
        "not_logged_in",
        f"cannot use {provider.title}: no credentials found; {provider.login_hint}",
        should_retry=False,
    )


def _has_file(login: Login, environ: Mapping[str, str], user_home: Path) -> bool:
    folder = environ.get(login.home_variable, "") if login.home_variable else ""
    if folder:
        return any((Path(folder) / name).is_file() for name in login.home_variable_files)
    return any((user_home / name).is_file() for name in login.files)


def passed_variables(provider: Provider, environ: Mapping[str, str]) -> dict[str, str]:
    """The part of the supervisor's environment that may reach the command line: PATH and what its file names."""
    return {name: environ[name] for name in ("PATH", *provider.environment) if environ.get(name)}


def read_version(executable: Executable, argv: tuple[str, ...]) -> str | None:
    """The version a command line prints of itself; None when it prints none in time. May take 10 seconds."""
    try:
        answer = subprocess.run(
            (*argv, *executable.version_argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=VERSION_TIMEOUT_S,
            env={"PATH": os.defpath, "HOME": "/nonexistent", "DISABLE_AUTOUPDATER": "1"},
            cwd="/",
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = VERSION.search(answer.stdout.decode(errors="replace"))
    return found[0] if found else None
