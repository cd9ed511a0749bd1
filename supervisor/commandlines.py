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
from shared.provider import Provider
from supervisor.publication import derive_publication


class CommandLine(msgspec.Struct, frozen=True, kw_only=True):
    """One found command line, ready to be launched."""

    executable: tuple[str, ...]
    version: str | None
    login: str
    prepared: str = ""


class CommandLines:
    """Finds command lines in one environment."""

    def __init__(self, environ: Mapping[str, str], user_home: Path, prepared: Path) -> None:
        self._environ = environ
        self.user_home = user_home
        self._prepared = prepared
        self._versions: dict[tuple[str, int, int], str | None] = {}

    async def find(self, chosen: Provider) -> CommandLine:
        """The provider's command line.

        Raises ProviderError ``cli_not_found``, ``not_logged_in`` or ``provider_crashed``.
        """
        executable = locate.find_executable(chosen, self._environ, self.user_home)
        login = locate.find_login(chosen, self._environ, self.user_home)
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

    async def describe(self, name: str) -> dict[str, Any]:
        """The provider's publication and what is installed of it here."""
        chosen = provider.load(name)
        described = {
            "provider": name,
            "title": chosen.title,
            "published": chosen.published,
            "measured_version": chosen.measured_version or None,
            "publication": derive_publication(chosen).to_builtins(),
            "cli": None,
            "login": None,
            "problem": None,
        }
        try:
            executable = locate.find_executable(chosen, self._environ, self.user_home)
            described["cli"] = {"path": executable[-1], "version": await self._version(chosen, executable)}
            described["login"] = locate.find_login(chosen, self._environ, self.user_home) or "none_needed"
        except ProviderError as error:
            described["problem"] = {"code": error.code, "message": error.message}
        return described

    async def _version(self, chosen: Provider, executable: tuple[str, ...]) -> str | None:
        if chosen.executable.pinned:
            return None
        try:
            stat = os.stat(executable[-1])
        except OSError:
            return None
        key = (executable[-1], stat.st_mtime_ns, stat.st_size)
        if key not in self._versions:
            self._versions[key] = await asyncio.to_thread(
                locate.read_version, chosen.executable, executable, self._environ
            )
        return self._versions[key]
