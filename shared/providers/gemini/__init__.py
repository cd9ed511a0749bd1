"""Google's ``gemini`` command line as a completion-only backend, over ACP. Measured with 0.61.0.

Locks: no core tool is there, an admin policy denies every tool by name, no MCP server or extension is allowed, and
one model request is allowed for each turn. gemini gets a home of its own, for each process a new one: it then has
no settings, hooks, extensions or memory files of the user, and no lock file of an earlier run, which would stall it
for 13 s. Of the user's home, a login comes along as links to the files that hold it. Failed requests are written to
TMPDIR with the prompt in them; that folder is the lease's own.

The logins are in the order in which gemini itself chooses. GOOGLE_API_KEY alone is no login: it counts only
together with GOOGLE_GENAI_USE_VERTEXAI.
"""

from __future__ import annotations

import json

from shared.provider import Command, CommandInputs, Executable, Login, Provider, TurnOptions
from shared.providers.gemini.connection import GeminiConnection
from shared.versions import VersionRange

AUTH_TYPES = {"vertex": "vertex-ai", "api_key": "gemini-api-key", "user": "oauth-personal"}
"""Our names of the logins to gemini's."""
LOGIN_FILES = ("oauth_creds.json", "google_accounts.json", "gemini-credentials.json")
SYSTEM_PROMPT = (
    "Answer the user directly. Text inside <system_instructions> at the head of the user's message comes from the "
    "operator of this service: follow it, and do not mention it.\n"
)
POLICY = '[[rule]]\ntoolName = "*"\ndecision = "deny"\npriority = 999\n'
FLAGS = ("--approval-mode", "default", "--allowed-mcp-server-names", "none", "-e", "none", "--skip-trust")
SWITCHES = {
    "GEMINI_CLI_NO_RELAUNCH": "1",  # else a parent that ignores SIGTERM stands between us and gemini
    "GEMINI_CLI_TRUST_WORKSPACE": "true",
    "GEMINI_TELEMETRY_ENABLED": "false",
    "NO_BROWSER": "true",  # a login that is not accepted then asks on stdout, where it is noticed
    "NO_COLOR": "1",
}


def _settings(auth_type: str) -> str:
    return json.dumps(
        {
            "general": {
                "enableAutoUpdate": False,
                "enableAutoUpdateNotification": False,
                "maxAttempts": 1,
                "retryFetchErrors": False,
                "checkpointing": {"enabled": False},
                "devtools": False,
            },
            "privacy": {"usageStatisticsEnabled": False},
            "telemetry": {"enabled": False},
            "security": {
                "auth": {"selectedType": auth_type},
                "folderTrust": {"enabled": False},
                "disableYoloMode": True,
            },
            "tools": {"core": []},
            "mcp": {"allowed": []},
            "mcpServers": {},
            "skills": {"enabled": False},
            "hooksConfig": {"enabled": False},
            "experimental": {"enableAgents": False},
            "context": {"includeDirectoryTree": False, "discoveryMaxDirs": 0, "memoryBoundaryMarkers": []},
            "model": {"maxSessionTurns": 1, "disableLoopDetection": True},
            "ide": {"enabled": False},
        }
    )


def _command(inputs: CommandInputs) -> Command:
    folder = f"{inputs.home}/.gemini"
    user_folder = f"{inputs.variables.get('GEMINI_CLI_HOME') or inputs.user_home}/.gemini"
    policy, system = f"{inputs.home}/policy.toml", f"{inputs.home}/system.md"
    env = {
        **inputs.variables,
        **SWITCHES,
        "HOME": inputs.home,
        "GEMINI_CLI_HOME": inputs.home,
        "GEMINI_SYSTEM_MD": system,
    }
    return Command(
        argv=(*inputs.executable, "--acp", f"--model={inputs.model}", "--admin-policy", policy, *FLAGS),
        env=env,
        cwd=inputs.workspace,
        files={
            f"{folder}/settings.json": _settings(AUTH_TYPES[inputs.login]),
            policy: POLICY,
            system: SYSTEM_PROMPT,
        },
        links=(
            {f"{folder}/{name}": f"{user_folder}/{name}" for name in LOGIN_FILES}
            if inputs.login == "user"
            else {}
        ),
    )


PROVIDER = Provider(
    name="gemini",
    title="Gemini CLI",
    capabilities=("extensions", "interrupt", "sandbox", "streaming", "tools"),
    executable=Executable(
        variable="GEMINI_CLI_PATH",
        names=("gemini",),
        # Where `npm prefix -g` usually points: npm itself is not asked, and npx would download.
        known_places=("~/.npm-global/bin/gemini", "/usr/local/bin/gemini"),
        install_hint="npm install -g @google/gemini-cli",
    ),
    logins=(
        Login(name="vertex", variables=("GOOGLE_GENAI_USE_VERTEXAI",)),
        Login(name="api_key", variables=("GEMINI_API_KEY",)),
        Login(
            name="user",
            files=(".gemini/oauth_creds.json", ".gemini/gemini-credentials.json"),
            home_variable="GEMINI_CLI_HOME",
            home_variable_files=(".gemini/oauth_creds.json", ".gemini/gemini-credentials.json"),
        ),
    ),
    login_hint="run `gemini` once and sign in, or set GEMINI_API_KEY for the supervisor",
    environment=(
        "GEMINI_API_KEY",
        "GEMINI_CLI_HOME",
        "GEMINI_FORCE_FILE_STORAGE",
        "GEMINI_FORCE_ENCRYPTED_FILE_STORAGE",
        "GOOGLE_API_KEY",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GOOGLE_CLOUD_LOCATION",
        "GOOGLE_CLOUD_PROJECT",
        "GOOGLE_GEMINI_BASE_URL",
        "GOOGLE_GENAI_USE_GCA",
        "GOOGLE_GENAI_USE_VERTEXAI",
        "GOOGLE_VERTEX_BASE_URL",
        "DBUS_SESSION_BUS_ADDRESS",
        "XDG_RUNTIME_DIR",
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
    file_variables=("GOOGLE_APPLICATION_CREDENTIALS", "NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    home_per_process=True,
    example_model="gemini-2.5-flash",
    supported_versions=VersionRange("0.60.0", "0.61.0"),
    turn_options=TurnOptions(image_types=("image/jpeg", "image/png", "image/webp")),
    command=_command,
    connect=lambda inputs: GeminiConnection(inputs.workspace),
)
