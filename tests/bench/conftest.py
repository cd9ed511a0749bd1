"""One embedded supervisor for all measurements."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared import locate, provider
from supervisor import InferenceEndpoint
from tests.bench import scripted_codex
from tests.bench.measure import REPORTED
from tests.clis.conftest import cli, model_server, start_supervisor, with_key
from tests.clis.table import Cli

__all__ = ["cli", "endpoint", "model_server", "start_supervisor", "with_key"]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[InferenceEndpoint]:
    """A running supervisor and its client."""
    with InferenceEndpoint() as running:
        yield running


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferenceEndpoint]:
    """A supervisor whose codex is the scripted one."""
    codex = tmp_path_factory.mktemp("scripted") / "codex"
    program = Path(scripted_codex.__file__).read_text(encoding="utf-8")
    codex.write_text(f"#!{sys.executable} -IS\n{program}", encoding="utf-8")
    codex.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CODEX_PATH", str(codex))
        patch.setenv("CODEX_API_KEY", "none")
        patch.setenv("HOME", str(codex.parent))
        patch.delenv("CODEX_HOME", raising=False)
        with InferenceEndpoint() as endpoint:
            yield endpoint


@pytest.fixture(scope="session")
def prepared(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The provider's prepared file, which is made once and not for each request."""
    folder = tmp_path_factory.mktemp("prepared")
    return locate.prepare(provider.load(cli.provider), (str(cli.find()),), None, os.environ, folder)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was measured, whatever else pytest has kept to itself."""
    for line in REPORTED:
        terminalreporter.write_line(line)
