"""What is known of the command lines on this machine: where, which version, logged in how. Versions are cached."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from shared import locate, provider
from shared.errors import ProviderError
from shared.hardening import Hardening
from shared.provider import CommandInputs, Provider
from supervisor.hardening import require_reach
from supervisor.publication import derive_publication

NO_LOGIN = "none_needed"
"""How the login of a provider that has none is described."""
ANY_MODEL = "any"
NO_FOLDER = "/nonexistent"
NO_HARDENING = Hardening()


class CommandLine(msgspec.Struct, frozen=True, kw_only=True):
    """One found command line, ready to be launched."""

    executable: tuple[str, ...]
    version: str | None
    login: str
    prepared: str = ""


class CommandLines:
    """Finds command lines in one environment."""

    def __init__(
        self,
        environ: Mapping[str, str],
        user_home: Path,
        prepared: Path,
        hardening: Hardening = NO_HARDENING,
    ) -> None:
        self._environ = environ
        self.user_home = user_home
        self._prepared = prepared
        self._hardening = hardening
        self._versions: dict[tuple[str, int, int], str] = {}

    async def find(self, chosen: Provider) -> CommandLine:
        """The provider's command line.

        Raises ProviderError ``cli_not_found``, ``not_logged_in`` or ``provider_crashed``.
        """
        executable = locate.find_executable(chosen, self._environ, self.user_home)
        login = locate.find_login(chosen, self._environ, self.user_home)
        self._require_reach(chosen, executable, login)
        version = await self._version(chosen, executable)
        prepared = ""
        if chosen.preparation:
            prepared = await asyncio.to_thread(
                locate.prepare, chosen, executable, version, self._environ, self._prepared
            )
        return CommandLine(executable=executable, version=version, login=login, prepared=prepared)

    def variables(self, chosen: Provider) -> dict[str, str]:
        """The variables of our environment that the provider's command line gets."""
        settings = locate.user_settings(chosen, self._environ, self.user_home)
        return locate.passed_variables(chosen, self._environ, settings)

    def _require_reach(self, chosen: Provider, executable: tuple[str, ...], login: str) -> None:
        """Do nothing when the command line gets at what it needs, as the user that it is to run as."""
        inputs = CommandInputs(
            executable=executable,
            model=ANY_MODEL,
            login=login,
            workspace=NO_FOLDER,
            home=NO_FOLDER,
            user_home=str(self.user_home),
            variables=self.variables(chosen),
            settings=locate.user_settings(chosen, self._environ, self.user_home),
        )
        require_reach(self._hardening, chosen.command(inputs))

    async def describe(self, name: str) -> dict[str, Any]:
        """The provider's publication and what is installed of it here."""
        chosen = provider.load(name)
        described = {
            "provider": name,
            "title": chosen.title,
            "published": chosen.published,
            "publication": derive_publication(chosen).to_builtins(),
            "cli": None,
            "login": None,
            "problem": None,
        }
        try:
            executable = locate.find_executable(chosen, self._environ, self.user_home)
            version = await self._version(chosen, executable)
            described["cli"] = provider.describe_cli(chosen, executable[-1], version)
            login = locate.find_login(chosen, self._environ, self.user_home)
            described["login"] = login or NO_LOGIN
            self._require_reach(chosen, executable, login)
        except ProviderError as error:
            described["problem"] = {"code": error.code, "message": error.message}
        return described

    async def diagnose(self, name: str) -> dict[str, Any]:
        """As :meth:`describe`, with the credentials that are here and all that passes; names, never values."""
        chosen = provider.load(name)
        credentials = locate.seen_credentials(chosen, self._environ, self.user_home)
        login = next(iter(credentials), None if chosen.logins else "")
        described = await self.describe(name)
        return described | {"credentials": credentials, "passes": self._passes(chosen, login)}

    def _passes(self, chosen: Provider, login: str | None) -> dict[str, Any]:
        """Exactly what of our environment and of the user's home may reach the command line.

        ``files`` are the user's own: those that the variables name and, for the ``login`` that is used, those that
        are linked into the command line's home or that it keeps itself; ``home`` is the user's home where the login
        cannot be had without it.
        """
        variables = self.variables(chosen)
        files = {variables[name] for name in chosen.file_variables if name in variables}
        home = None
        if login is not None:
            command = chosen.command(self._inputs(chosen, login, variables))
            files |= {*command.links.values(), *command.writes}
            home = command.env["HOME"] if command.env["HOME"] == str(self.user_home) else None
        return {
            "variables_set": sorted(set(variables) - {"PATH"}),
            "variables": sorted(chosen.environment),
            "files": sorted(filter(os.path.exists, files)),
            "home": home,
            "login_files": [file for each in chosen.logins for file in each.files],
            "settings_read": [chosen.settings.file] if chosen.settings else [],
        }

    def _inputs(self, chosen: Provider, login: str, variables: dict[str, str]) -> CommandInputs:
        """As for a lease whose folders do not exist."""
        return CommandInputs(
            executable=(chosen.name,),
            model=chosen.example_model,
            login=login,
            workspace="/lease/workspace",
            home="/lease/home",
            user_home=str(self.user_home),
            variables=variables,
            settings=locate.user_settings(chosen, self._environ, self.user_home),
        )

    async def _version(self, chosen: Provider, executable: tuple[str, ...]) -> str | None:
        if chosen.executable.pinned:
            return None
        try:
            stat = os.stat(executable[-1])
        except OSError:
            return None
        key = (executable[-1], stat.st_mtime_ns, stat.st_size)
        if key not in self._versions:
            version = await asyncio.to_thread(
                locate.read_version, chosen.executable, executable, self._environ
            )
            if version is None:
                return None  # perhaps only not in time: asked again
            self._versions[key] = version
        return self._versions[key]
