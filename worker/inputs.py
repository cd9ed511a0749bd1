"""What one command line is started with, found on this machine as a supervisor would, in private folders."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from shared import locate, provider
from shared.provider import CommandInputs


@contextlib.asynccontextmanager
async def private_inputs(provider_name: str, *, model: str) -> AsyncIterator[CommandInputs]:
    """Executable, login and allow-listed variables of this process's environment; the folders go at the end.

    Raises RequestError ``unsupported_provider``, ProviderError ``model_not_found``, ``cli_not_found``,
    ``not_logged_in`` or ``provider_crashed``.
    """
    chosen = provider.load(provider_name)
    user_home = Path.home()
    executable = locate.find_executable(chosen, os.environ, user_home)
    login = locate.find_login(chosen, os.environ, user_home)
    provider.require_model(chosen, model)
    with tempfile.TemporaryDirectory(prefix="asm-endpoint-session-", ignore_cleanup_errors=True) as folder:
        for name in ("workspace", "home", "tmp"):
            (Path(folder) / name).mkdir(mode=0o700)
        settings = locate.user_settings(chosen, os.environ, user_home)
        yield CommandInputs(
            executable=executable,
            login=login,
            model=model,
            workspace=f"{folder}/workspace",
            home=f"{folder}/home",
            user_home=str(user_home),
            variables=locate.passed_variables(chosen, os.environ, settings),
            prepared=await asyncio.to_thread(
                locate.prepare, chosen, executable, None, os.environ, Path(folder)
            ),
            settings=settings,
        )
