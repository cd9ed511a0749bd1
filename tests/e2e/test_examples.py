"""Every example runs as it stands, on the embedded provider."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process
EXAMPLES = Path(__file__).parents[2] / "examples"
TIMEOUT_S = 120
EXPECTED = {
    ("inference_endpoint_http.py",): ["Bearer <redacted>", "Say hello to the world", "0 survivors"],
    ("inference_endpoint_http.py", "--stream", "--message", "a b c"): ["\na b c\n", "0 survivors"],
    ("inference_endpoint_http.py", "--model", "other"): ["model_identity: other"],
    ("openai_client.py",): [
        "completion: Say hello to the world",
        "stream: Say hello to the world",
        "usage: 5 + 5",
    ],
    ("two_isolated_leases.py",): ["own token: 200", "the other's token: 401", "second still answers: hello"],
    ("query_and_stream.py",): ["query: Say hello to the world (stop)", "stream: Say hello to the world"],
}


NATIVE = {"claude_native.py", "codex_native.py"}
"""They need an SDK and a real command line: ``tests/clis/test_native_sdks.py`` runs them."""


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    """One example, with warnings as errors."""
    return subprocess.run(
        (sys.executable, "-W", "error", EXAMPLES / argv[0], *argv[1:]),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def test_every_example_is_run():
    """None is forgotten here."""
    assert {path.name for path in EXAMPLES.glob("*.py")} == {argv[0] for argv in EXPECTED} | NATIVE


@pytest.mark.parametrize("argv", EXPECTED, ids=" ".join)
def test_an_example_runs(argv: tuple[str, ...]):
    """Its output says what it shows."""
    ran = run(*argv)
    assert ran.returncode == 0, ran.stderr
    for words in EXPECTED[argv]:
        assert words in ran.stdout


def test_an_example_fails_in_one_line_and_releases():
    """A refused lease is an error, not a hang."""
    ran = run("inference_endpoint_http.py", "--provider", "nobody")
    assert ran.returncode != 0
    assert "unsupported_provider" in ran.stderr or "cannot" in ran.stderr
