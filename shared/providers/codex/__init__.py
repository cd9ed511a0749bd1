"""OpenAI's ``codex`` command line as a completion-only backend, over ``codex app-server``. Measured with 0.169.0.

Locks: every tool has its own feature switch, and all are off; for the service's own model names the tools stand in
the model catalogue as well, so codex gets a catalogue made from its own without them. Approval is ``never``, the
sandbox read-only. The user's CODEX_HOME is not used: codex gets a home of its own, with a link to the user's login
and, of the user's settings, only how to reach the model service. No MCP server, hook, skill or AGENTS.md comes along.

app-server never reads OPENAI_API_KEY, CODEX_API_KEY or OPENAI_BASE_URL by itself: a key or a base URL takes effect
through a ``model_providers`` entry. A user's own login and ``model_provider`` come first.
"""

from __future__ import annotations

import json
import tomllib
from typing import Any

from shared.provider import (
    Command,
    CommandInputs,
    Executable,
    Login,
    Preparation,
    Provider,
    TurnOptions,
    UserSettings,
)
from shared.providers.codex.connection import CodexConnection
from shared.versions import VersionRange

API_KEY = "api_key"
KEY_VARIABLES = ("CODEX_API_KEY", "OPENAI_API_KEY")
DEFAULT_BASE_URL = "https://api.openai.com/v1"
OURS = "asm-endpoint"
STREAM_IDLE_TIMEOUT_MS = 300_000
"""codex's own patience with a silent model service; the worker's deadlines are usually shorter."""
KEPT_SETTINGS = ("chatgpt_base_url", "cli_auth_credentials_store", "model_provider", "openai_base_url")
"""Of the user's settings, beside the model provider itself: only how to reach the service."""
DISABLED_FEATURES = (
    "apps", "browser_use", "code_mode_host", "computer_use", "daemon_auto_start", "goals", "guardian_approval",
    "hooks", "image_generation", "in_app_browser", "memories", "multi_agent", "plugins", "remote_plugin",
    "shell_snapshot", "shell_tool", "skill_mcp_dependency_install", "skill_search", "sleep_tool",
    "tool_call_mcp_elicitation", "tool_suggest", "unbounded_connection_retries", "unified_exec", "view_image",
    "workspace_dependencies",
)  # fmt: skip
OVERRIDES = (
    "analytics.enabled=false",
    "check_for_update_on_startup=false",
    'web_search="disabled"',
    "include_environment_context=false",
    "include_permissions_instructions=false",
    "include_apps_instructions=false",
    "include_collaboration_mode_instructions=false",
    "project_doc_max_bytes=0",
    "skills.include_instructions=false",
    "skills.bundled.enabled=false",
    "tools.experimental_request_user_input={enabled=false}",
    "mcp_servers={}",
)
TOOLLESS_MODEL: dict[str, Any] = {
    "tool_mode": None,
    "multi_agent_version": None,
    "apply_patch_tool_type": None,
    "experimental_supported_tools": [],
    "supports_search_tool": False,
}


def without_tools(catalogue: bytes) -> bytes:
    """codex's bundled model catalogue with no tool in any model. Raises ValueError when it looks otherwise."""
    content = json.loads(catalogue)
    models = content.get("models") if isinstance(content, dict) else None
    if not isinstance(models, list) or not all(isinstance(model, dict) for model in models):
        raise ValueError("the model catalogue has no list of models")
    for model in models:
        model.update(TOOLLESS_MODEL)
        model.pop("multi_agent_reasoning_effort", None)
    return json.dumps(content).encode()


def own_model_provider(settings: str) -> dict[str, Any]:
    """The model provider that a user's ``config.toml`` chooses and defines; {} when it does not."""
    content = _parsed(settings)
    providers = content.get("model_providers")
    chosen = providers.get(content.get("model_provider")) if isinstance(providers, dict) else None
    return chosen if isinstance(chosen, dict) else {}


def variables_of(settings: str) -> tuple[str, ...]:
    """The environment variables that the user's model provider takes its key and headers from."""
    chosen = own_model_provider(settings)
    names = [chosen.get("env_key"), *_table(chosen.get("env_http_headers")).values()]
    return tuple(name for name in names if isinstance(name, str))


def _parsed(settings: str) -> dict[str, Any]:
    try:
        return tomllib.loads(settings)
    except tomllib.TOMLDecodeError:
        return {}


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _config(inputs: CommandInputs) -> str:
    """``config.toml`` of the private CODEX_HOME: the model, and how to reach its service."""
    import tomli_w

    no_retries = {
        "request_max_retries": 0,
        "stream_max_retries": 0,
        "stream_idle_timeout_ms": STREAM_IDLE_TIMEOUT_MS,
    }
    user = _parsed(inputs.settings)
    config: dict[str, Any] = {"model": inputs.model}
    if inputs.login == API_KEY:
        key_variable = next(name for name in KEY_VARIABLES if inputs.variables.get(name))
        base_url = inputs.variables.get("OPENAI_BASE_URL", DEFAULT_BASE_URL)
        ours = {"name": OURS, "base_url": base_url, "env_key": key_variable, "wire_api": "responses"}
        config |= {"model_provider": OURS, "model_providers": {OURS: {**ours, **no_retries}}}
    else:
        config |= {name: user[name] for name in KEPT_SETTINGS if isinstance(user.get(name), str)}
        if chosen := own_model_provider(inputs.settings):
            config["model_providers"] = {user["model_provider"]: {**chosen, **no_retries}}
    return tomli_w.dumps(config)


def _command(inputs: CommandInputs) -> Command:
    home = f"{inputs.home}/.codex"
    user_folder = inputs.variables.get("CODEX_HOME") or f"{inputs.user_home}/.codex"
    overrides = (*OVERRIDES, f"model_catalog_json={json.dumps(inputs.prepared)}")
    return Command(
        argv=(
            *inputs.executable,
            "app-server",
            *(part for override in overrides for part in ("-c", override)),
            *(part for feature in DISABLED_FEATURES for part in ("--disable", feature)),
        ),
        env={**inputs.variables, "HOME": inputs.home, "CODEX_HOME": home},
        cwd=inputs.workspace,
        files={f"{home}/config.toml": _config(inputs)},
        links={f"{home}/auth.json": f"{user_folder}/auth.json"} if inputs.login == "user" else {},
    )


PROVIDER = Provider(
    name="codex",
    title="OpenAI Codex",
    capabilities=("interrupt", "plan", "reasoning", "streaming", "structured_output", "tools"),
    native_extensions=True,
    executable=Executable(
        variable="CODEX_PATH", names=("codex",), install_hint="npm install -g @openai/codex"
    ),
    logins=(
        Login(
            name="config",
            files=(".codex/config.toml",),
            home_variable="CODEX_HOME",
            home_variable_files=("config.toml",),
            accepts=lambda settings: bool(own_model_provider(settings).get("env_key")),
        ),
        Login(
            name="user",
            files=(".codex/auth.json",),
            home_variable="CODEX_HOME",
            home_variable_files=("auth.json",),
        ),
        Login(name=API_KEY, variables=KEY_VARIABLES),
    ),
    login_hint="run `codex login`, or set OPENAI_API_KEY for the supervisor",
    environment=(
        "CODEX_HOME",
        *KEY_VARIABLES,
        "OPENAI_BASE_URL",
        "OPENAI_ORGANIZATION",
        "OPENAI_PROJECT",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "NO_PROXY",
        "CODEX_CA_CERTIFICATE",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "LANG",
        "LC_ALL",
        "TZ",
    ),
    file_variables=("CODEX_CA_CERTIFICATE", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    settings=UserSettings(
        file=".codex/config.toml",
        home_variable="CODEX_HOME",
        home_variable_file="config.toml",
        variables=variables_of,
    ),
    preparation=Preparation(
        name="models-without-tools.json", argv=("debug", "models", "--bundled"), convert=without_tools
    ),
    example_model="gpt-6-luna",
    supported_versions=VersionRange("0.163.0", "0.171.0"),
    turn_options=TurnOptions(
        reasoning_efforts=("none", "minimal", "low", "medium", "high", "xhigh", "max"),
        response_formats=("json_schema",),  # always strict, so that any object is not one of its schemas
        image_types=("image/gif", "image/jpeg", "image/png", "image/webp"),
    ),
    command=_command,
    connect=lambda _inputs: CodexConnection(),
)
