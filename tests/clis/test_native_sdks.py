"""The provider-native SDKs, through our bridges: their own environment, the pinned command lines, the scripted model."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.clis.conftest import posts
from tests.clis.models.server import ModelServer
from tests.clis.table import CLAUDE, CODEX, KEY, Cli

pytestmark = [pytest.mark.cli, pytest.mark.process]
ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".sdks" / "bin" / "python"
RUN_TIMEOUT_S = 180


def run(cli: Cli, server: ModelServer, home: Path, *argv: str) -> str:
    """What a program prints where the SDKs are installed, in the shoes of a user with a key."""
    if not PYTHON.is_file():
        pytest.skip("the SDKs are not installed; `make sdks` installs them")
    cli.check_version()
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    ran = subprocess.run(
        (PYTHON, *argv),
        env=kept | cli.variables(server) | {cli.key_variable: KEY, "HOME": str(home)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_claude_answers_a_native_client(server: ModelServer, tmp_path: Path):
    """Same model, key and isolation as the lease; no tool unless the program wants one."""
    printed = run(
        CLAUDE, server, tmp_path, "examples/claude_native.py", "--model", CLAUDE.model, "--message", "hello"
    )
    assert f"leased: claude {CLAUDE.model}" in printed
    assert "native: echo: hello" in printed
    (request,) = posts(server)
    assert CLAUDE.key_of(request) == KEY
    assert "Answer in one sentence." in CLAUDE.system_of(request)
    assert [tool["name"] for tool in request.body["tools"]] == ["Bash"]


def test_a_native_hook_decides_about_a_tool(server: ModelServer, tmp_path: Path):
    """The native surface works: the model's attempt reaches the program's hook, which denies it."""
    victim = tmp_path / "executed"
    message = f'[[tool:Bash]] [[tool-input:{{"command": "touch {victim}", "description": "x"}}]] hello'
    printed = run(
        CLAUDE, server, tmp_path, "examples/claude_native.py", "--model", CLAUDE.model, "--message", message
    )
    assert "hook: denied Bash" in printed
    assert not victim.exists()


def test_codex_answers_a_native_thread(server: ModelServer, tmp_path: Path):
    """Same model, key and home as the lease, and a thread that remembers."""
    printed = run(
        CODEX, server, tmp_path, "examples/codex_native.py", "--model", CODEX.model, "--message", "hello"
    )
    assert f"leased: codex {CODEX.model}" in printed
    assert "native: echo: hello" in printed
    assert "native: echo: Again: hello" in printed
    first, second = posts(server)
    assert CODEX.key_of(first) == KEY
    assert len(second.body["input"]) > len(first.body["input"])


REFUSALS = """
import asyncio
from shared.errors import EndpointError
from worker.bridges import claude, codex
from worker.inputs import private_inputs

async def main():
    async with private_inputs({name!r}, model="m") as inputs:
        for call, overrides in {calls}:
            try:
                call(inputs, native_overrides=overrides)
            except EndpointError as error:
                print(error.code, error.param, error.message)
            else:
                print("accepted", sorted(overrides))

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("cli", "calls", "expected"),
    [
        (
            CLAUDE,
            (
                '[(claude.sdk_options, {"model": "other", "cwd": "/"}), (claude.sdk_options, {"env": {"HOME": "/"}}),'
                ' (claude.sdk_options, {"no_such": 1}), (claude.sdk_options, {"env": {"MORE": "1"}, "max_turns": 3})]'
            ),
            [
                "conflicting_options cwd cannot use native overrides: derived from the lease's options are cwd, model",
                "conflicting_options env.HOME ",
                "invalid_request None cannot use native overrides: unknown are no_such",
                "accepted ['env', 'max_turns']",
            ],
        ),
        (
            CODEX,
            (
                '[(codex.codex_options, {"codex_bin": "/bin/true"}), (codex.thread_options, {"model": "other"}),'
                ' (codex.codex_options, {"launch_args_override": ()}), (codex.thread_options, {"personality": None})]'
            ),
            [
                "conflicting_options codex_bin ",
                "conflicting_options model ",
                "invalid_request None cannot use native overrides: unknown are launch_args_override",
                "accepted ['personality']",
            ],
        ),
    ],
    ids=["claude", "codex"],
)
def test_native_overrides_never_redefine_what_is_derived(
    server: ModelServer, tmp_path: Path, cli: Cli, calls: str, expected: list[str]
):
    """Conflicts and unknown names are refused by name; what is new is accepted."""
    printed = run(cli, server, tmp_path, "-c", REFUSALS.format(name=cli.provider, calls=calls)).splitlines()
    assert len(printed) == len(expected)
    for line, words in zip(printed, expected, strict=True):
        assert line.startswith(words)


def test_the_report_names_what_is_importable(server: ModelServer, tmp_path: Path):
    """Where the SDKs are, the report says so, and every name of their surface exists."""
    code = (
        "import importlib\nfrom shared.extensions import capability_report\n"
        "for report in capability_report():\n"
        "    print(report.provider, report.composition_mode, report.sdk_available, *report.native_capabilities)\n"
        "    for each in report.registered:\n"
        "        sdk = importlib.import_module(each.module)\n"
        "        assert not [name for name in each.native_surface if not hasattr(sdk, name)], each.id\n"
    )
    assert run(CLAUDE, server, tmp_path, "-c", code).splitlines() == [
        "amp common_surface_only False",
        "claude native_extension True control_client control_protocol hooks permission_callbacks",
        "codex native_extension True app_server approvals sandbox threads",
        "gemini common_surface_only False",
    ]
