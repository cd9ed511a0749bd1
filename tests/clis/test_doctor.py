"""``asm-endpoint doctor`` over the real command lines: where, which, whose login, what passes, and one real turn."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shared.provider import load
from tests.clis.conftest import bare_environ, posts
from tests.clis.models.server import ModelServer
from tests.clis.table import CLIS, KEY, PINS, Cli

pytestmark = [pytest.mark.cli, pytest.mark.process]
RUN_TIMEOUT_S = 180


def doctor(environ: dict[str, str], *argv: str, code: int = 0) -> dict[str, dict[str, Any]]:
    """The reports, by provider."""
    ran = subprocess.run(
        (sys.executable, "-m", "supervisor", "doctor", "--json", *argv),
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        env=environ,
        check=False,
    )
    assert ran.returncode == code, ran.stderr
    assert KEY not in ran.stdout + ran.stderr
    return {report["provider"]: report for report in json.loads(ran.stdout)}


def test_one_command_line_with_a_real_turn(cli: Cli, server: ModelServer, tmp_path: Path):
    """All that there is to know of it, the secret's name alone, and three times in the order they happen."""
    report = doctor(bare_environ(cli, tmp_path, server), "--provider", cli.provider, "--live")[cli.provider]
    assert report["cli"] == {
        "path": str(cli.find()),
        "version": PINS[cli.package],
        "supported_versions": str(load(cli.provider).supported_versions),
        "is_supported": True,
    }
    assert report["credentials"] == {"api_key": [cli.key_variable]}
    assert report["login"] == "api_key"
    assert report["passes"]["variables_set"] == sorted((cli.key_variable, cli.url_variable))
    assert report["passes"]["home"] is None
    live = report["live"]
    assert live["text"].startswith("echo: Answer with the one word")
    assert live["model"] == load(cli.provider).example_model
    assert live["lease_ms"] > 0
    assert 0 < live["first_piece_ms"] <= live["total_ms"]
    assert len(posts(server)) == 1


def test_all_that_are_usable_run_a_real_turn(server: ModelServer, tmp_path: Path):
    """Claude is logged out and amp is not there: both are reported, and neither is an error."""
    environ = {"AMP_CLI_PATH": "/nonexistent"}
    for cli in CLIS.values():
        environ |= bare_environ(cli, tmp_path, server)
    del environ[CLIS["claude"].key_variable]
    reports = doctor(environ, "--live")
    assert {name for name, report in reports.items() if "live" in report} == {"codex", "gemini", "echo"}
    assert all("text" in report["live"] for report in reports.values() if "live" in report)
    assert reports["claude"]["problem"]["code"] == "not_logged_in"
    assert reports["amp"]["problem"]["code"] == "cli_not_found"


def test_a_real_turn_that_fails_is_an_error(cli: Cli, server: ModelServer, tmp_path: Path):
    """In the report with its code, and in the exit status."""
    environ = bare_environ(cli, tmp_path, server) | {cli.url_variable: "http://127.0.0.1:1"}
    report = doctor(environ, "--provider", cli.provider, "--live", code=4)[cli.provider]
    assert report["problem"] is None
    assert report["live"]["problem"]["code"] == "provider_connection_failed"
