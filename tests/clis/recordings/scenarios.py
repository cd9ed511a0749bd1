"""The table of scenarios: what is asked of a command line, and how our connection has to see the turn end. Pure.

One table for all command lines; a row is there for those that it applies to. amp's service is proprietary, so amp
only has the rows that need none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.clis.attempts import ATTEMPTS
from tests.clis.failures import AMP_STATUSES, FAILURES
from tests.clis.table import CLIS, Cli

NOT_LOGGED_IN = "not-logged-in"
UNREACHABLE = "unreachable"
NOWHERE = "http://127.0.0.1:1"
TOOL_INPUT = '{"command": "touch pwned", "cmd": "touch pwned", "file_path": "pwned", "description": "d"}'
WITHOUT_KEY_SETTINGS = """
model_provider = "mine"
[model_providers.mine]
name = "Mine"
base_url = "http://127.0.0.1:1/v1"
wire_api = "responses"
env_key = "A_VARIABLE_THAT_IS_NOT_SET"
"""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One process with one turn, and how it ends: an error code, or a finish reason.

    ``is_interrupted`` cancels the turn after its first piece; where the process lives on, it serves another one.
    ``refused_with`` is the status of a service that refuses everything, for a command line without scripted model.
    """

    name: str
    end: str | None
    prompt: str = "hello"
    system: str = ""
    text: str | None = None
    is_interrupted: bool = False
    login: str = "api_key"
    settings: str = ""
    url: str | None = None
    refused_with: int | None = None


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A command line to record: its package, its executable below the installed modules, and how it gets a model."""

    provider: str
    package: str
    executable: str
    model: str
    path_variable: str
    key_variable: str
    url_variable: str
    url_suffix: str = ""
    cli: Cli | None = None
    scenarios: tuple[Scenario, ...]


def slug(cause: str) -> str:
    """A row's name in the name of a file."""
    return re.sub(r"[^a-z]+", "-", cause.lower())


def _of_scripted_model(cli: Cli) -> Iterator[Scenario]:
    yield Scenario(name="completion", prompt="[[usage:123,45,20,5]] hello", end="stop", text="echo: hello")
    yield Scenario(name="deltas", prompt="[[deltas:5]] [[delay:0.02]] x", end="stop", text="w0 w1 w2 w3 w4 ")
    yield Scenario(name="thinking", prompt="[[thinking:3]] go", end="stop", text="echo: go")
    yield Scenario(name="system-prompt", system="You are S.", end="stop")
    for name, prompt in (
        ("command", "/clear"),
        ("file-mention", "see @/etc/hostname"),
        ("flag", "--version"),
    ):
        yield Scenario(name=f"prompt-like-a-{name}", prompt=prompt, end="stop", text=f"echo: {prompt}")
    yield Scenario(name="interrupt", prompt="[[deltas:1000]] [[delay:0.05]] x", end=None, is_interrupted=True)
    for cause, failing in FAILURES[cli.provider].items():
        if failing.by == "model":
            yield Scenario(name=slug(cause), prompt=failing.prompt, end=failing.end)
    tools = list(ATTEMPTS[cli.provider])
    for name in (tools[0], tools[-1]):
        yield Scenario(
            name=f"tool-{name}", prompt=f"[[tool:{name}]] [[tool-input:{TOOL_INPUT}]]", end="tool_use_refused"
        )


def _without_a_model(provider: str) -> Iterator[Scenario]:
    login, settings = ("config", WITHOUT_KEY_SETTINGS) if provider == "codex" else ("user", "")
    yield Scenario(name=NOT_LOGGED_IN, login=login, settings=settings, end="not_logged_in")
    yield Scenario(name=UNREACHABLE, url=NOWHERE, end="provider_connection_failed")


AMP = Subject(
    provider="amp",
    package="@ampcode/cli",
    executable="@ampcode/cli-linux-*/amp",
    model="default",
    path_variable="AMP_CLI_PATH",
    key_variable="AMP_API_KEY",
    url_variable="AMP_URL",
    scenarios=(
        *_without_a_model("amp"),
        *(
            Scenario(name=f"status-{status}", refused_with=status, end=code)
            for status, code in AMP_STATUSES.items()
            if status
        ),
    ),
)
SUBJECTS = {
    cli.provider: Subject(
        provider=cli.provider,
        package=cli.package,
        executable=cli.executable,
        model=cli.model,
        path_variable=cli.path_variable,
        key_variable=cli.key_variable,
        url_variable=cli.url_variable,
        url_suffix=cli.url_suffix,
        cli=cli,
        scenarios=(*_of_scripted_model(cli), *_without_a_model(cli.provider)),
    )
    for cli in CLIS.values()
} | {AMP.provider: AMP}
