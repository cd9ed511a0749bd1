"""Finding what is on this machine: a provider's executable, its version, how its user is logged in, and what it needs.

Reads the filesystem and, for versions and preparations, runs the executable; the environment and home come in as
arguments.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from shared.errors import ProviderError
from shared.provider import Executable, Login, Provider

VERSION_TIMEOUT_S = 10.0
PREPARATION_TIMEOUT_S = 30.0
MAX_SETTINGS_BYTES = 1024 * 1024
IDENTITY_DIGITS = 16
PREPARED_MODE = 0o644
"""What a command line prints of itself is no secret, and one that runs as another user has to read it."""
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
        if _variables_set(login, environ) or _files_accepted(login, environ, user_home):
            return login.name
    raise ProviderError(
        "not_logged_in",
        f"cannot use {provider.title}: no credentials found; {provider.login_hint}",
        should_retry=False,
    )


def seen_credentials(
    provider: Provider, environ: Mapping[str, str], user_home: Path
) -> dict[str, tuple[str, ...]]:
    """For each login that is there: the names of its variables and the paths of its files. Never what they hold."""
    seen = {
        login.name: (*_variables_set(login, environ), *_files_accepted(login, environ, user_home))
        for login in provider.logins
    }
    return {name: credentials for name, credentials in seen.items() if credentials}


def _variables_set(login: Login, environ: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(variable for variable in login.variables if environ.get(variable))


def _files_accepted(login: Login, environ: Mapping[str, str], user_home: Path) -> tuple[str, ...]:
    folder = environ.get(login.home_variable, "") if login.home_variable else ""
    if folder:
        paths = [Path(folder) / name for name in login.home_variable_files]
    else:
        paths = [user_home / name for name in login.files]
    accepts = login.accepts
    return tuple(str(path) for path in paths if path.is_file() and (not accepts or accepts(_text(path))))


def user_settings(provider: Provider, environ: Mapping[str, str], user_home: Path) -> str:
    """The text of the user's own settings of the command line; "" where there are none to be read."""
    settings = provider.settings
    if settings is None:
        return ""
    folder = environ.get(settings.home_variable)
    return _text(Path(folder) / settings.home_variable_file if folder else user_home / settings.file)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_SETTINGS_BYTES).decode(errors="replace")
    except OSError:
        return ""


def passed_variables(provider: Provider, environ: Mapping[str, str], settings: str = "") -> dict[str, str]:
    """The part of the supervisor's environment that may reach the command line.

    That is PATH, what its file names, and what the user's own ``settings`` name.
    """
    named = provider.settings.variables(settings) if provider.settings and settings else ()
    return {name: environ[name] for name in ("PATH", *provider.environment, *named) if environ.get(name)}


def read_version(
    executable: Executable,
    argv: tuple[str, ...],
    environ: Mapping[str, str],
    timeout_s: float = VERSION_TIMEOUT_S,
) -> str | None:
    """The version a command line prints of itself; None when it prints none in time, by default 10 seconds."""
    try:
        printed = _printed((*argv, *executable.version_argv), environ, timeout_s)
    except (OSError, subprocess.SubprocessError):
        return None
    found = VERSION.search(printed.decode(errors="replace"))
    return found[0] if found else None


def prepare(
    provider: Provider, argv: tuple[str, ...], version: str | None, environ: Mapping[str, str], folder: Path
) -> str:
    """The path of the provider's prepared file for this version, made in ``folder`` at first use; "" for none.

    May take 30 seconds. Raises ProviderError ``provider_crashed`` when it cannot be made.
    """
    preparation = provider.preparation
    if preparation is None:
        return ""
    identity = hashlib.sha256(f"{argv}{os.stat(argv[-1]).st_mtime_ns}".encode()).hexdigest()[:IDENTITY_DIGITS]
    path = folder / f"{provider.name}-{version}-{identity}-{preparation.name}"
    if not path.is_file():
        try:
            content = preparation.convert(
                _printed((*argv, *preparation.argv), environ, PREPARATION_TIMEOUT_S)
            )
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            raise ProviderError(
                "provider_crashed",
                f"cannot prepare {provider.title}: `{' '.join(preparation.argv)}` gave no {preparation.name}: {error}",
            ) from error
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            file.write(content)
        os.chmod(file.name, PREPARED_MODE)
        os.rename(file.name, path)
    return str(path)


def _printed(argv: tuple[str, ...], environ: Mapping[str, str], timeout_s: float) -> bytes:
    """What a command prints in an empty home, with nothing of the environment but the search path."""
    with tempfile.TemporaryDirectory(prefix="asm-endpoint-home-") as home:
        return subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            env={"PATH": environ.get("PATH") or os.defpath, "HOME": home, "DISABLE_AUTOUPDATER": "1"},
            cwd=home,
            check=True,
        ).stdout
