"""Options of the Codex SDK, derived from what a codex lease uses: one bag for the app server, one for a thread.

By default a thread may only read and nothing is approved; a program that wants more says so with native overrides::

    async with private_inputs("codex", model="gpt-5.5") as inputs:
        async with codex.connect_app_server(inputs) as server:
            thread = await server.thread_start(**codex.thread_options(inputs))
            print((await thread.run("Which files are here?")).final_response)

The SDK's option names are those of openai-codex 0.163.0.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from shared import extensions, provider
from shared.provider import CommandInputs
from worker.bridges import combine
from worker.starter import furnish

if TYPE_CHECKING:
    from openai_codex import AsyncCodex, CodexConfig

EXTENSION = "openai_codex"


def derive_options(inputs: CommandInputs) -> dict[str, Any]:
    """The app server's options that a lease decides. Writes codex's private home, with the login and the model."""
    command = provider.load("codex").command(inputs)
    furnish(command, inputs.home)
    return {"codex_bin": inputs.executable[0], "cwd": command.cwd, "env": command.env}


def codex_options(inputs: CommandInputs, *, native_overrides: Mapping[str, Any] | None = None) -> CodexConfig:
    """The options of the SDK's app server.

    Raises ProviderError ``sdk_not_installed``, RequestError ``conflicting_options`` or ``invalid_request``.
    """
    extensions.require(EXTENSION)
    from openai_codex import CodexConfig

    known = {field.name for field in dataclasses.fields(CodexConfig)} - {"launch_args_override"}
    return CodexConfig(**combine(derive_options(inputs), {}, native_overrides, known))


def thread_options(
    inputs: CommandInputs, *, system_prompt: str = "", native_overrides: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The keyword arguments of the SDK's ``thread_start``. Raises as :func:`codex_options`."""
    extensions.require(EXTENSION)
    from openai_codex import ApprovalMode, AsyncCodex, Sandbox

    derived = {"model": inputs.model, "cwd": inputs.workspace}
    if system_prompt:
        derived["base_instructions"] = system_prompt
    defaults = {"approval_mode": ApprovalMode.deny_all, "sandbox": Sandbox.read_only, "ephemeral": True}
    known = set(inspect.signature(AsyncCodex.thread_start).parameters) - {"self"}
    return combine(derived, defaults, native_overrides, known)


def connect_app_server(
    inputs: CommandInputs, *, native_overrides: Mapping[str, Any] | None = None
) -> AsyncCodex:
    """The SDK's client of an app server, to be entered with ``async with``. Raises as :func:`codex_options`."""
    options = codex_options(inputs, native_overrides=native_overrides)
    from openai_codex import AsyncCodex

    return AsyncCodex(options)
