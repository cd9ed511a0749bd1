"""The ``amp`` command line: profile only, for now. Facts measured with @ampcode/cli 0.0.1790142911.

A login must be found before amp is started: without one it waits for a pasted key, even with stdin closed.
AMP_SETTINGS_FILE is not passed on, because a user's settings could reopen the tools that ours shut.
"""

from __future__ import annotations

from shared.provider import Executable, Login, Provider

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
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
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
)
