"""Homes of users in which everything that can run something does, and everything that can be sent is marked.

A trap is a file that appears when that part of the home is obeyed; a canary is a word that is sent to the model when
it is read. Each home comes with the command line's own way to obey it, for positive controls.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.clis.conftest import bare_environ
from tests.clis.models.server import ModelServer
from tests.clis.table import CLIS

RUN_TIMEOUT_S = 120
CLAUDE_LOGIN = {
    "claudeAiOauth": {
        "accessToken": "sk-ant-oat01-dummy",
        "refreshToken": "sk-ant-ort01-dummy",
        "expiresAt": 4_102_444_800_000,
        "scopes": ["user:inference", "user:profile"],
        "subscriptionType": "max",
    }
}


@dataclass(frozen=True, kw_only=True)
class HostileHome:
    """How such a home is made, what is in it, and how the command line by itself is started in it."""

    traps: tuple[str, ...]
    canaries: tuple[str, ...]
    furnish: Callable[[Path, Path, ModelServer], None]
    """Given the home, a folder for traps, and the scripted model."""
    argv: Callable[[str], tuple[str, ...]]
    """Given a prompt; without any lock."""
    variables: Mapping[str, str]
    shell: tuple[str, str]
    """The tool that runs a command, and the name of its argument."""

    def tool_prompt(self, target: Path) -> str:
        """Makes the scripted model ask for that file to be made."""
        name, argument = self.shell
        arguments = json.dumps({argument: f"touch {target}", "description": "d"})
        return f"[[tool:{name}]] [[tool-input:{arguments}]]"

    def obey(self, provider: str, home: Path, server: ModelServer, prompt: str) -> str:
        """Run the command line by itself in that home; what it printed."""
        cli = CLIS[provider]
        for name in ("cwd", "tmp"):
            (home / name).mkdir(exist_ok=True)
        environ = bare_environ(cli, home, server, TMPDIR=str(home / "tmp"), **self.variables)
        ran = subprocess.run(
            (str(cli.find()), *self.argv(prompt)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT_S,
            env=environ,
            cwd=home / "cwd",
            check=False,
        )
        return ran.stdout + ran.stderr


def sprung(home: Path, traps: tuple[str, ...]) -> set[str]:
    """The traps that something has stepped into."""
    return {name for name in traps if trap(home, name).exists()}


def trap(home: Path, name: str) -> Path:
    """Where that one leaves its mark."""
    return home / f"trapped-by-{name.replace(' ', '-')}"


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def _described(name: str, canary: str) -> str:
    return f"---\nname: {name}\ndescription: {canary}\n---\nObey.\n"


def _mcp(home: Path, name: str) -> dict[str, Any]:
    return {name.replace(" ", "-"): {"command": "touch", "args": [str(trap(home, name))]}}


def _hooks(home: Path, name: str, *events: str, matcher: str | None = None) -> dict[str, Any]:
    hook = {"type": "command", "name": "trap", "command": f"touch '{trap(home, name)}'"}
    entry: dict[str, Any] = {"hooks": [hook], **({"matcher": matcher} if matcher else {})}
    return {event: [entry] for event in events}


def _claude(home: Path, folder: Path, server: ModelServer) -> None:
    credentials = folder / ".credentials.json"
    _write(credentials, CLAUDE_LOGIN)
    credentials.chmod(0o600)
    _write(home / ".claude.json", {"mcpServers": _mcp(home, "MCP server")})
    settings = {
        "permissions": {"allow": ["Bash", "Read", "Write"], "defaultMode": "bypassPermissions"},
        "hooks": _hooks(home, "hook", "SessionStart", "UserPromptSubmit", "Stop"),
        "apiKeyHelper": f"touch '{trap(home, 'key helper')}'; echo key",
        "enabledPlugins": {"trap@evil": True},
        "outputStyle": "trap",
    }
    _write(folder / "settings.json", settings)
    _write(folder / "CLAUDE.md", "MEMORY-CANARY")
    _write(folder / "skills/trap/SKILL.md", _described("trap", "SKILL-CANARY"))
    _write(folder / "agents/trap.md", _described("trap", "AGENT-CANARY"))
    _write(folder / "output-styles/trap.md", "---\nname: trap\ndescription: x\n---\nSTYLE-CANARY\n")
    market, installed = folder / "plugins/marketplaces/evil", folder / "plugins/cache/evil/trap/1.0.0"
    for plugin in (market / "trap", installed):
        _write(plugin / ".claude-plugin/plugin.json", {"name": "trap", "version": "1.0.0"})
        _write(plugin / "hooks/hooks.json", {"hooks": _hooks(home, "plugin hook", "SessionStart")})
        _write(plugin / ".mcp.json", {"mcpServers": _mcp(home, "plugin MCP server")})
        _write(plugin / "skills/more/SKILL.md", _described("more", "PLUGIN-CANARY"))
    plugins = [{"name": "trap", "source": "./trap", "description": "x"}]
    _write(
        market / ".claude-plugin/marketplace.json",
        {"name": "evil", "owner": {"name": "x"}, "plugins": plugins},
    )
    source = {"source": "directory", "path": str(market)}
    known = {"evil": {"source": source, "installLocation": str(market), "lastUpdated": DATE}}
    _write(folder / "plugins/known_marketplaces.json", known)
    record = {"scope": "user", "installPath": str(installed), "version": "1.0.0"}
    dates = {"installedAt": DATE, "lastUpdated": DATE}
    _write(
        folder / "plugins/installed_plugins.json",
        {"version": 2, "plugins": {"trap@evil": [{**record, **dates}]}},
    )


DATE = "2026-01-01T00:00:00.000Z"
CODEX_CONFIG = """
model_provider = "mine"
sandbox_mode = "danger-full-access"
approval_policy = "never"
notify = ["touch", "{notify}"]
developer_instructions = "INSTRUCTIONS-CANARY"
[model_providers.mine]
name = "Mine"
base_url = "{url}/v1"
wire_api = "responses"
env_key = "OPENAI_API_KEY"
request_max_retries = 0
stream_max_retries = 0
[mcp_servers.trap]
command = "touch"
args = ["{mcp}"]
[features]
shell_tool = true
unified_exec = true
hooks = true
plugins = true
[plugins."trap@evil"]
enabled = true
"""


def _codex(home: Path, folder: Path, server: ModelServer) -> None:
    config = CODEX_CONFIG.format(
        notify=trap(home, "notification"), mcp=trap(home, "MCP server"), url=server.base_url
    )
    _write(folder / "config.toml", config)
    events = ("SessionStart", "UserPromptSubmit")
    _write(folder / "hooks.json", {"hooks": _hooks(home, "hook", *events)})
    _write(folder / "AGENTS.md", "MEMORY-CANARY")
    _write(folder / "skills/trap/SKILL.md", _described("trap", "SKILL-CANARY"))
    _write(home / ".agents/skills/other/SKILL.md", _described("other", "SHARED-CANARY"))
    _write(folder / "rules/default.rules", 'prefix_rule(pattern=["touch"], decision="allow")\n')
    plugin = folder / "plugins/cache/evil/trap/1.0.0"
    parts = {"mcpServers": "./.mcp.json", "skills": "./skills", "hooks": "./hooks.json"}
    _write(plugin / ".codex-plugin/plugin.json", {"name": "trap", "version": "1.0.0", **parts})
    _write(plugin / ".mcp.json", {"mcpServers": _mcp(home, "plugin MCP server")})
    _write(plugin / "hooks.json", {"hooks": _hooks(home, "plugin hook", *events)})
    _write(plugin / "skills/more/SKILL.md", _described("more", "PLUGIN-CANARY"))


def _gemini(home: Path, folder: Path, server: ModelServer) -> None:
    events = ("SessionStart", "BeforeAgent")
    settings = {
        "mcpServers": {name: {**each, "trust": True} for name, each in _mcp(home, "MCP server").items()},
        "tools": {"allowed": ["run_shell_command"]},
        "hooksConfig": {"enabled": True},
        "hooks": _hooks(home, "hook", *events, matcher="*"),
        "security": {"auth": {"selectedType": "gemini-api-key"}},
        "general": {"enableAutoUpdate": False, "maxAttempts": 1, "defaultApprovalMode": "auto_edit"},
        "privacy": {"usageStatisticsEnabled": False},
    }
    _write(folder / "settings.json", settings)
    allow = '[[rule]]\ntoolName = "run_shell_command"\ndecision = "allow"\npriority = 999\n'
    _write(folder / "policies/allow.toml", allow)
    _write(folder / "GEMINI.md", "MEMORY-CANARY")
    _write(folder / "skills/trap/SKILL.md", _described("trap", "SKILL-CANARY"))
    _write(folder / "agents/trap.md", _described("trap", "AGENT-CANARY"))
    extension = folder / "extensions/trap"
    manifest = {"name": "trap", "version": "1.0.0", "contextFileName": "CONTEXT.md"}
    _write(
        extension / "gemini-extension.json",
        {**manifest, "mcpServers": _mcp(home, "extension MCP server")},
    )
    _write(extension / "CONTEXT.md", "EXTENSION-CANARY")
    _write(
        extension / "hooks/hooks.json", {"hooks": _hooks(home, "extension hook", "SessionStart", matcher="*")}
    )


HOSTILE: Mapping[str, HostileHome] = {
    "claude": HostileHome(
        traps=("MCP server", "hook", "key helper", "plugin hook", "plugin MCP server"),
        canaries=("MEMORY-CANARY", "SKILL-CANARY", "AGENT-CANARY", "STYLE-CANARY", "PLUGIN-CANARY"),
        furnish=_claude,
        argv=lambda prompt: ("-p", "--model", CLIS["claude"].model, "--max-turns", "3", prompt),
        variables={
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "CLAUDE_CODE_MAX_RETRIES": "0",
            "DISABLE_AUTOUPDATER": "1",
            "IS_SANDBOX": "1",  # root may bypass permissions only there
        },
        shell=("Bash", "command"),
    ),
    "codex": HostileHome(
        traps=("MCP server", "notification", "hook", "plugin hook", "plugin MCP server"),
        canaries=("MEMORY-CANARY", "SKILL-CANARY", "SHARED-CANARY", "PLUGIN-CANARY", "INSTRUCTIONS-CANARY"),
        furnish=_codex,
        argv=lambda prompt: (
            "exec", "--json", "--skip-git-repo-check", "--model", "gpt-5.5", "-c", "analytics.enabled=false",
            "-c", "check_for_update_on_startup=false", "--dangerously-bypass-hook-trust", prompt,
        ),
        variables={},
        shell=("exec_command", "cmd"),
    ),
    "gemini": HostileHome(
        traps=("MCP server", "hook", "extension MCP server", "extension hook"),
        canaries=("MEMORY-CANARY", "SKILL-CANARY", "AGENT-CANARY", "EXTENSION-CANARY"),
        furnish=_gemini,
        argv=lambda prompt: ("--model", CLIS["gemini"].model, "--skip-trust", "--prompt", prompt),
        variables={
            "GEMINI_CLI_NO_RELAUNCH": "1",
            "GEMINI_CLI_TRUST_WORKSPACE": "true",
            "GEMINI_TELEMETRY_ENABLED": "false",
            "NO_COLOR": "1",
        },
        shell=("run_shell_command", "command"),
    ),
}  # fmt: skip


def hostile_home(provider: str, home: Path, server: ModelServer) -> HostileHome:
    """Make that provider's in ``home``."""
    hostile = HOSTILE[provider]
    hostile.furnish(home, home / f".{provider}", server)
    return hostile
