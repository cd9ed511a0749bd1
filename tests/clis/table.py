"""What differs between the real command lines, so that one suite serves all of them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests.clis.models.log import RecordedRequest
from tests.clis.models.server import ModelServer
from tests.clis.netns import is_loopback_only

MODULES = Path(__file__).parents[2] / ".clis" / "node_modules"
PINS = json.loads((Path(__file__).parent / "package.json").read_text())["dependencies"]
VERSION_TIMEOUT_S = 60
KEY = "dummy-key"
ZERO_WIDTH_SPACE = "\u200b"


@dataclass(frozen=True, kw_only=True)
class Cli:
    """One command line: where it is, how it reaches the scripted model, and what its requests and answers look like."""

    provider: str
    package: str
    executable: str
    """Below the installed modules; may be a glob."""
    model: str
    path_variable: str
    key_variable: str
    url_variable: str
    url_suffix: str = ""
    login_variables: tuple[str, ...] = ()
    key_of: Callable[[RecordedRequest], str]
    model_of: Callable[[RecordedRequest], str] = lambda request: request.body["model"]
    system_of: Callable[[RecordedRequest], str]
    user_text: Callable[[RecordedRequest], str]
    tools_of: Callable[[RecordedRequest], Any]
    reasoning: str = "thought0 thought1 thought2 "
    has_details: bool = True
    """Whether usage tells cached and reasoning tokens."""
    reports_cost: bool = False
    """Whether it tells what a turn has cost, or that a failed one has cost nothing."""
    requests_of_a_tool_attempt: int = 1

    def variables(self, server: ModelServer) -> dict[str, str]:
        """How its user reaches the scripted model, but for the key."""
        return {self.path_variable: str(self.find()), self.url_variable: server.base_url + self.url_suffix}

    def find(self) -> Path:
        """The pinned executable; a skip without it, which CI does not allow."""
        if not is_loopback_only():
            pytest.skip("real command lines run only in a loopback-only network, and none is permitted here")
        found = sorted(MODULES.glob(self.executable))
        if not found:
            pytest.skip(f"{self.provider} is not installed; `make clis` installs it where npm is there")
        return found[0]

    def check_version(self) -> None:
        """The installed one is the pinned one."""
        printed = subprocess.run(
            (self.find(), "--version"),
            capture_output=True,
            text=True,
            timeout=VERSION_TIMEOUT_S,
            check=True,
            env={
                "PATH": os.environ["PATH"],
                "HOME": "/nonexistent",
                "DISABLE_AUTOUPDATER": "1",
            },
        ).stdout
        assert PINS[self.package] in printed.split(), (
            f"{self.provider} is not the pinned one: run `make clean clis`"
        )


def _anthropic_user_text(request: RecordedRequest) -> str:
    content = request.body["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content)


def _responses_text(request: RecordedRequest, role: str) -> str:
    items = [item for item in request.body["input"] if item.get("role") == role]
    return "".join(part["text"] for part in items[-1]["content"]) if items else ""


def _responses_tools(request: RecordedRequest) -> list[Any]:
    hidden = [item for item in request.body["input"] if item.get("type") == "additional_tools"]
    return [*request.body.get("tools", []), *hidden]


def _generative_parts(request: RecordedRequest) -> list[str]:
    parts = (part["text"] for part in request.body["contents"][-1]["parts"])
    return [part for part in parts if not part.startswith("<session_context>")]


def _generative_tools(request: RecordedRequest) -> list[Any]:
    return [each for tool in request.body.get("tools", []) for each in tool["functionDeclarations"]]


CLAUDE = Cli(
    provider="claude",
    package="@anthropic-ai/claude-code",
    executable="@anthropic-ai/claude-code-linux-*/claude",
    model="mock-1",
    path_variable="CLAUDE_CLI_PATH",
    key_variable="ANTHROPIC_API_KEY",
    url_variable="ANTHROPIC_BASE_URL",
    reports_cost=True,
    login_variables=("ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CONFIG_DIR"),
    key_of=lambda request: request.headers["x-api-key"],
    system_of=lambda request: "\n".join(block["text"] for block in request.body["system"]),
    user_text=_anthropic_user_text,
    tools_of=lambda request: request.body["tools"],
    has_details=False,
)  # fmt: skip
CODEX = Cli(
    provider="codex",
    package="@openai/codex",
    executable="@openai/codex-linux-*/vendor/*/bin/codex",
    model="gpt-6.1-sol",
    path_variable="CODEX_PATH",
    key_variable="OPENAI_API_KEY",
    url_variable="OPENAI_BASE_URL",
    url_suffix="/v1",
    login_variables=("CODEX_API_KEY", "CODEX_HOME"),
    key_of=lambda request: request.headers["authorization"].removeprefix("Bearer "),
    system_of=lambda request: _responses_text(request, "developer"),
    user_text=lambda request: _responses_text(request, "user"),
    tools_of=_responses_tools,
    requests_of_a_tool_attempt=2,
)  # fmt: skip
GEMINI = Cli(
    provider="gemini",
    package="@google/gemini-cli",
    executable=".bin/gemini",
    model="gemini-2.5-flash",
    path_variable="GEMINI_CLI_PATH",
    key_variable="GEMINI_API_KEY",
    url_variable="GOOGLE_GEMINI_BASE_URL",
    login_variables=("GEMINI_CLI_HOME", "GOOGLE_API_KEY", "GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_GENAI_USE_GCA"),
    key_of=lambda request: request.headers["x-goog-api-key"],
    model_of=lambda request: unquote(request.path.rpartition("/")[2].partition(":stream")[0]),
    system_of=lambda request: "".join(_generative_parts(request)[:-1]),
    user_text=lambda request: _generative_parts(request)[-1].removeprefix(ZERO_WIDTH_SPACE),
    tools_of=_generative_tools,
    reasoning="****\nthought0****\nthought1****\nthought2",
    has_details=False,
)  # fmt: skip
CLIS = {cli.provider: cli for cli in (CLAUDE, CODEX, GEMINI)}
