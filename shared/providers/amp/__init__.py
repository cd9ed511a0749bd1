"""Sourcegraph's ``amp`` command line as a completion-only backend. Measured with @ampcode/cli 0.0.1790142911.

amp's inference runs on its service, and its models are its modes: ``low``, ``medium``, ``high``, ``ultra``, or
``default``, which leaves the choice to amp. Locks: a settings file of ours that enables no tool, disables and
rejects all of them, and names no MCP server or skill; an empty workspace and a home of amp's own, so no AGENTS.md
and no user settings come along. Nothing in the protocol keeps the model from asking, so the first request for a
tool ends the turn. Of the user's home only the file with the login is linked.

A login must be found before amp is started: without one it waits for a pasted key, even with stdin closed.
AMP_SETTINGS_FILE is not passed on, because a user's settings could reopen the tools that ours shut.
"""

from __future__ import annotations

import json

from shared.provider import Command, CommandInputs, Executable, Login, Provider
from shared.providers.amp.connection import AmpConnection
from shared.versions import VersionRange

DEFAULT_MODE = "default"
MODES = ("low", "medium", "high", "ultra")
FLAGS = ("-x", "--stream-json", "--stream-json-input", "--stream-json-thinking", "--no-ide")
SETTINGS = json.dumps(
    {
        "amp.updates.mode": "disabled",
        "amp.tools.enable": ["__none__"],  # an empty list would allow all
        "amp.tools.disable": ["*"],
        "amp.permissions": [{"tool": "*", "action": "reject"}],
        "amp.dangerouslyAllowAll": False,
        "amp.mcpServers": {},
        "amp.notifications.enabled": False,
        "amp.skills.disableClaudeCodeSkills": True,
        "amp.skills.disableGlobalAgentsSkills": True,
    }
)


def _command(inputs: CommandInputs) -> Command:
    mode = () if inputs.model == DEFAULT_MODE else ("--mode", inputs.model)
    settings = f"{inputs.home}/settings.json"
    user_secrets = inputs.variables.get("XDG_DATA_HOME") or f"{inputs.user_home}/.local/share"
    xdg = {
        f"XDG_{kind}_HOME": f"{inputs.home}/{folder}"
        for kind, folder in (("DATA", ".local/share"), ("CONFIG", ".config"), ("CACHE", ".cache"))
    }
    return Command(
        argv=(
            *inputs.executable,
            *FLAGS,
            "--settings-file",
            settings,
            "--log-file",
            f"{inputs.home}/amp.log",
            *mode,
        ),
        env={**inputs.variables, "HOME": inputs.home, **xdg},
        cwd=inputs.workspace,
        files={settings: SETTINGS},
        links=(
            {f"{inputs.home}/.local/share/amp/secrets.json": f"{user_secrets}/amp/secrets.json"}
            if inputs.login == "user"
            else {}
        ),
    )


PROVIDER = Provider(
    name="amp",
    title="Amp",
    capabilities=("approval", "interrupt", "mcp", "streaming", "thinking", "tools"),
    executable=Executable(
        variable="AMP_CLI_PATH",
        names=("amp",),
        known_places=("~/.amp/bin/amp", "~/.local/bin/amp"),
        install_hint="npm install -g @sourcegraph/amp",
    ),
    logins=(
        Login(name="api_key", variables=("AMP_API_KEY",)),
        Login(
            name="user",
            files=(".local/share/amp/secrets.json",),
            home_variable="XDG_DATA_HOME",
            home_variable_files=("amp/secrets.json",),
        ),
    ),
    login_hint="run `amp login`, or set AMP_API_KEY for the supervisor",
    environment=(
        "AMP_API_KEY",
        "AMP_URL",
        "XDG_DATA_HOME",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "NO_PROXY",
        "NODE_EXTRA_CA_CERTS",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "LANG",
        "LC_ALL",
        "TZ",
    ),
    file_variables=("NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    home_per_process=True,
    example_model="low",
    supported_versions=VersionRange("0.0.1790142911-g7618fb", "0.0.1790142911-g7618fb"),
    streams_whole_messages=True,
    models=(DEFAULT_MODE, *MODES),
    command=_command,
    connect=lambda _inputs: AmpConnection(),
)
