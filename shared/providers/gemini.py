"""Google's ``gemini`` command line: profile only, for now. Facts measured with 0.61.0.

The logins are in the order in which gemini itself chooses. GOOGLE_API_KEY alone is no login: it counts only
together with GOOGLE_GENAI_USE_VERTEXAI.
"""

from __future__ import annotations

from shared.provider import Executable, Login, Provider

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
)
