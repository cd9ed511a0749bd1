"""Options of the Claude Agent SDK, derived from what a claude lease uses.

By default the model gets no tool, as in a lease; a program that wants some says so with the native override
``tools``, and with ``can_use_tool`` or ``hooks`` decides about each use::

    async with private_inputs("claude", model="sonnet") as inputs:
        async with claude.start_client(inputs, native_overrides={"tools": ["Read"], "max_turns": 3}) as client:
            await client.query("Which files are here?")

The SDK's option names are those of claude-agent-sdk 0.2.187.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from shared import extensions, provider
from shared.provider import CommandInputs
from worker.bridges import combine
from worker.starter import furnish

if TYPE_CHECKING:
    from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKClient

EXTENSION = "claude_agent_sdk"
DEFAULTS = {"tools": [], "permission_mode": "dontAsk"}
"""What native overrides may replace."""


def derive_options(inputs: CommandInputs, *, system_prompt: str = "") -> dict[str, Any]:
    """The SDK options that a lease decides, by the SDK's names: executable, model, folders, environment, isolation.

    Without ``--bare``, which a lease with a key uses: it would keep the SDK's hooks from being called.
    """
    command = provider.load("claude").command(inputs)
    furnish(command, inputs.home)
    options: dict[str, Any] = {
        "cli_path": inputs.executable[0],
        "model": inputs.model,
        "cwd": command.cwd,
        "env": command.env,
        "setting_sources": [],
        "strict_mcp_config": True,
    }
    return options | ({"system_prompt": system_prompt} if system_prompt else {})


def sdk_options(
    inputs: CommandInputs, *, system_prompt: str = "", native_overrides: Mapping[str, Any] | None = None
) -> ClaudeAgentOptions:
    """The SDK's options.

    Raises ProviderError ``sdk_not_installed``, RequestError ``conflicting_options`` or ``invalid_request``.
    """
    extensions.require(EXTENSION)
    from claude_agent_sdk import ClaudeAgentOptions

    known = {field.name for field in dataclasses.fields(ClaudeAgentOptions)}
    derived = derive_options(inputs, system_prompt=system_prompt)
    return ClaudeAgentOptions(**combine(derived, DEFAULTS, native_overrides, known))


def start_client(
    inputs: CommandInputs, *, system_prompt: str = "", native_overrides: Mapping[str, Any] | None = None
) -> ClaudeSDKClient:
    """The SDK's client, to be entered with ``async with``. Raises as :func:`sdk_options`."""
    options = sdk_options(inputs, system_prompt=system_prompt, native_overrides=native_overrides)
    from claude_agent_sdk import ClaudeSDKClient

    return ClaudeSDKClient(options)
