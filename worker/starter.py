"""Starting one more command line of a lease: its home, the files it finds there, its whole environment."""

from __future__ import annotations

import functools
import os
import secrets
import shutil
from pathlib import Path

import msgspec

from shared.errors import ProviderError
from shared.launch import MARKER_VARIABLE, TurnLimits
from shared.provider import Command, CommandInputs, Provider
from worker.confinement import Confinement
from worker.runner import CliProcess

HOME_NAME_BYTES = 8


class Starter:
    """Starts processes of one provider."""

    def __init__(
        self,
        chosen: Provider,
        inputs: CommandInputs,
        limits: TurnLimits,
        *,
        marker: str = "",
        confinement: Confinement | None = None,
    ) -> None:
        self._command = chosen.command
        self._connect = chosen.connect
        self._has_own_home = chosen.home_per_process
        self._inputs = inputs
        self._exit_grace_s = limits.exit_grace_s
        self._confinement = confinement or Confinement(dies_with_parent=False)
        self._reads = tuple(
            path for path in (inputs.prepared, *map(inputs.variables.get, chosen.file_variables)) if path
        )
        tmp = str(Path(inputs.home).with_name("tmp"))
        self._environment = {"PATH": os.defpath, "TMPDIR": tmp}
        self._marker = marker

    def start(self) -> CliProcess:
        """One more process. Raises ProviderError ``cli_not_found`` or ``provider_crashed``."""
        inputs = self._inputs
        if self._has_own_home:
            name = secrets.token_hex(HOME_NAME_BYTES)
            inputs = msgspec.structs.replace(inputs, home=f"{inputs.home}/{name}")
        try:
            command = self._complete(self._command(inputs))
            with self._confinement.entrance(
                command, functools.partial(furnish, command, inputs.home)
            ) as before_exec:
                process = CliProcess.start(command, self._connect(inputs), self._exit_grace_s, before_exec)
        except BaseException:
            self._clear(inputs.home)
            raise
        process.exited.add_done_callback(lambda _: self._clear(inputs.home))
        return process

    def _complete(self, command: Command) -> Command:
        """With what every command has, and what its variables name."""
        env = {**self._environment, **command.env, MARKER_VARIABLE: self._marker}
        return msgspec.structs.replace(command, env=env, reads=(*command.reads, *self._reads))

    def _clear(self, home: str) -> None:
        """Remove a process's own home; it may hold prompts."""
        if self._has_own_home:
            shutil.rmtree(home, ignore_errors=True)


def furnish(command: Command, home: str) -> None:
    """Make the home, the command's files and its links, all for the owner alone. Raises ProviderError."""
    try:
        os.makedirs(home, mode=0o700, exist_ok=True)
        for path, text in command.files.items():
            Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(
                os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
            ) as file:
                file.write(text)
        for path, target in command.links.items():
            Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.path.lexists(path):
                os.symlink(target, path)
    except OSError as error:
        raise ProviderError(
            "provider_crashed", f"cannot prepare a home for {command.argv[0]}: {error}"
        ) from error
