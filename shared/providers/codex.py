"""OpenAI's ``codex`` command line: profile only, for now. Facts measured with 0.169.0.

``codex app-server`` never reads OPENAI_API_KEY, CODEX_API_KEY or OPENAI_BASE_URL by itself: a key or a base
URL takes effect through a ``model_providers`` entry that the command has to pass. A user's own login and
``model_provider`` therefore come first among the logins.
"""

from __future__ import annotations

from shared.provider import Executable, Login, Provider

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
            name="user",
            files=(".codex/auth.json",),
            home_variable="CODEX_HOME",
            home_variable_files=("auth.json",),
        ),
        Login(
            name="config",
            files=(".codex/config.toml",),
            home_variable="CODEX_HOME",
            home_variable_files=("config.toml",),
        ),
        Login(name="api_key", variables=("CODEX_API_KEY", "OPENAI_API_KEY")),
    ),
    login_hint="run `codex login`, or set OPENAI_API_KEY for the supervisor",
    environment=(
        "CODEX_HOME",
        "CODEX_API_KEY",
        "OPENAI_API_KEY",
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
)
