"""Anthropic's ``claude`` command line as a completion-only backend. Measured with 2.1.330.

Locks: ``--tools ""`` and ``--strict-mcp-config`` leave the model no tool, ``--setting-sources ""`` keeps the user's
settings, hooks and memory files out, ``--disable-slash-commands`` and CLAUDE_CODE_DISABLE_ATTACHMENTS keep prompts
plain text, ``--permission-mode dontAsk`` and ``--max-turns 1`` refuse whatever is asked for all the same. Retries
and fallbacks are off: by default a permanent error takes three minutes, and a truncated stream is silently asked
again and would be shown twice.

``--bare`` also keeps the working directory and the date out of the request, but ignores every login that is not
a key in the environment; a logged-in user therefore runs without it, in the same empty workspace, and with claude's
own folder: a login that is renewed is a new file there.
"""

from __future__ import annotations

from shared.claude_wire.connection import ClaudeConnection
from shared.provider import Command, CommandInputs, Executable, Login, Provider, TurnOptions
from shared.versions import VersionRange, is_at_least

API_KEY = "api_key"
TAKES_COMPOSED = "2.1.248"
"""The first version that takes a composed message as it is, so that ``/clear`` in a prompt is no command."""
FLAGS = (
    "-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose",
    "--include-partial-messages", "--tools", "", "--strict-mcp-config", "--setting-sources", "",
    "--disable-slash-commands", "--no-session-persistence", "--permission-mode", "dontAsk", "--max-turns", "1",
)  # fmt: skip
SWITCHES = {
    "CLAUDE_CODE_MAX_RETRIES": "0",
    "CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK": "1",
    "CLAUDE_CODE_DISABLE_REFUSAL_RETRY": "1",
    "CLAUDE_CODE_DISABLE_REFUSAL_FALLBACK": "1",
    "CLAUDE_CODE_DISABLE_ATTACHMENTS": "1",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
}


def _command(inputs: CommandInputs) -> Command:
    bare = ("--bare",) if inputs.login == API_KEY else ()
    is_user = inputs.login == "user"
    own_folder = inputs.variables.get("CLAUDE_CONFIG_DIR") or f"{inputs.user_home}/.claude"
    return Command(
        argv=(*inputs.executable, *FLAGS, *bare, f"--model={inputs.model}"),
        env={**inputs.variables, **SWITCHES, "HOME": inputs.user_home if is_user else inputs.home},
        cwd=inputs.workspace,
        writes=(own_folder, f"{inputs.user_home}/.claude.json") if is_user else (),
    )


def _connect(inputs: CommandInputs) -> ClaudeConnection:
    return ClaudeConnection(hides_commands=not is_at_least(inputs.version, TAKES_COMPOSED))


PROVIDER = Provider(
    name="claude",
    title="Claude Code",
    capabilities=("approval", "cost", "interrupt", "resume", "streaming", "thinking", "tools"),
    native_extensions=True,
    executable=Executable(
        variable="CLAUDE_CLI_PATH",
        names=("claude-code", "claude"),
        known_places=(
            "~/.npm-global/bin/claude",
            "/usr/local/bin/claude",
            "~/.local/bin/claude",
            "~/node_modules/.bin/claude",
            "~/.yarn/bin/claude",
            "~/.claude/local/claude",
        ),
        install_hint="npm install -g @anthropic-ai/claude-code",
    ),
    logins=(
        Login(name=API_KEY, variables=("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")),
        Login(name="oauth_token", variables=("CLAUDE_CODE_OAUTH_TOKEN",)),
        Login(
            name="user",
            files=(".claude/.credentials.json",),
            home_variable="CLAUDE_CONFIG_DIR",
            home_variable_files=(".credentials.json",),
        ),
    ),
    login_hint="run `claude` once and log in, or set ANTHROPIC_API_KEY for the supervisor",
    environment=(
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_AUTH_TOKEN",
        "ANTHROPIC_BASE_URL",
        "CLAUDE_CODE_OAUTH_TOKEN",
        "CLAUDE_CONFIG_DIR",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "NO_PROXY",
        "NODE_EXTRA_CA_CERTS",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "CLAUDE_CODE_MAX_OUTPUT_TOKENS",
        "MAX_THINKING_TOKENS",
        "LANG",
        "LC_ALL",
        "TZ",
    ),
    file_variables=("NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    example_model="haiku",
    supported_versions=VersionRange("2.1.197", "2.1.332"),
    turn_options=TurnOptions(
        max_tokens=True,
        reasoning_efforts=("low", "medium", "high", "xhigh", "max"),
        response_formats=("json_object", "json_schema"),
        image_types=("image/gif", "image/jpeg", "image/png", "image/webp"),
    ),
    command=_command,
    connect=_connect,
)
