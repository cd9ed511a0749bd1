"""``asm-endpoint`` as scripts and people use it: output, exit codes, signals, and that it always releases."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from supervisor import SupervisorClient
from tests.process.serving import until

pytestmark = pytest.mark.process
TIMEOUT_S = 120
PROGRAM = (sys.executable, "-m", "supervisor")
LEASE = ("--provider", "echo", "--model", "any")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(supervisor_client: SupervisorClient, state_home: Path) -> Run:
    """Runs a command against the running supervisor."""

    def run_command(
        *argv: str, home: Path = state_home, stdin: int = subprocess.DEVNULL
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            (*PROGRAM, *argv),
            capture_output=True,
            text=True,
            stdin=stdin,
            timeout=TIMEOUT_S,
            env={**os.environ, "ASM_ENDPOINT_HOME": str(home)},
            check=False,
        )

    return run_command


def live(client: SupervisorClient) -> set[str]:
    """The leases that are not closed."""
    return {view.lease_ref for view in client.endpoints() if view.state != "closed"}


def test_ensure_ls_release(run: Run, supervisor_client: SupervisorClient):
    """A lease in the words of a person: made, listed without its token, released with proof."""
    made = run("ensure", *LEASE)
    assert made.returncode == 0, made.stderr
    (lease_ref,) = {word for word in made.stdout.split() if word.startswith("lease_0")}
    listed = run("ls")
    assert lease_ref in listed.stdout
    assert "\x1b" not in made.stdout + made.stderr + listed.stdout
    released = run("release", lease_ref)
    assert released.returncode == 0
    assert "no survivors" in released.stdout
    assert lease_ref not in live(supervisor_client)
    assert run("release", lease_ref, "lease_unknown").returncode == 0


def test_ensure_json(run: Run, supervisor_client: SupervisorClient):
    """The contract's own JSON."""
    answer = json.loads(run("ensure", *LEASE, "--json", "--ttl-s", "60").stdout)
    assert answer["compatibility"]["compatible?"] is True
    listed = json.loads(run("ls", "--json").stdout)
    assert answer["endpoint"]["headers"]["authorization"] not in json.dumps(listed)
    supervisor_client.release_endpoint(answer["endpoint"]["lease_ref"])


def test_budgets_and_queues_are_options(run: Run, supervisor_client: SupervisorClient):
    """Whatever the command that leases: a limit is kept, an unknown one refused, and a wrong word never sent."""
    budget = ("--budget", "requests=1", "--budget", "cli_s=2.5", "--queue-limit", "0")
    script = 'for i in 1 2; do curl -s -o /dev/null -w "%{http_code} " "$OPENAI_BASE_URL/chat/completions" '
    script += '-H "Authorization: Bearer $OPENAI_API_KEY" -H "Content-Type: application/json" '
    script += """-d '{"prompt":"x"}'; done"""
    ran = run("run", *LEASE, *budget, "--", "sh", "-c", script)
    assert (ran.returncode, ran.stdout) == (0, "200 429 "), ran.stderr
    unknown = run("ensure", *LEASE, "--budget", "wishes=3")
    assert unknown.returncode == 3
    assert "budget.wishes is not a known field" in unknown.stderr
    for wrong in ("requests", "requests=many", ""):
        refused = run("ensure", *LEASE, "--budget", wrong)
        assert refused.returncode == 2
        assert "is not NAME=NUMBER" in refused.stderr
    assert not live(supervisor_client)


def test_limits_are_options_and_lists_say_which_ended_a_lease(run: Run, supervisor_client: SupervisorClient):
    """With its number; an unknown one is refused, and a wrong word never sent."""
    limits = ("--limit", "wall_s=2.5", "--limit", "memory_bytes=8000000000")
    lease_ref = json.loads(run("ensure", *LEASE, *limits, "--json").stdout)["endpoint"]["lease_ref"]
    until(lambda: supervisor_client.endpoint(lease_ref).state == "closed")
    (line,) = [line for line in run("ls", "--all").stdout.splitlines() if lease_ref in line]
    assert re.search(r"closed \(limit_exceeded: wall_s: \d\S* s over the limit of 2.5 s\)", line)
    unknown = run("ensure", *LEASE, "--limit", "wishes=3")
    assert unknown.returncode == 3
    assert "limits.wishes is not a known field" in unknown.stderr
    refused = run("ensure", *LEASE, "--limit", "cpu_s=much")
    assert refused.returncode == 2
    assert "is not NAME=NUMBER" in refused.stderr
    assert not live(supervisor_client)


def test_ensure_env_is_for_a_shell(run: Run, supervisor_client: SupervisorClient):
    """A real shell evaluates it, and a real client could use it."""
    exports = run("ensure", *LEASE, "--env").stdout
    script = f'{exports}\nprintf "%s\\n" "$OPENAI_BASE_URL" "$OPENAI_API_KEY" "$ASM_ENDPOINT_LEASE_REF"'
    shell = subprocess.run(
        ("sh", "-euc", script), capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    )
    base_url, key, lease_ref = shell.stdout.split()
    assert base_url.startswith("http://127.0.0.1:")
    assert len(key) == 43
    supervisor_client.release_endpoint(lease_ref)


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (("ensure", "--provider", "nobody", "--model", "m"), 3, "cannot"),
        (("ensure", "--provider", "codex", "--model", "m"), 4, "cannot use CODEX_PATH"),
        (("ensure", "--provider", "echo", "--model", "-m"), 2, "--model"),
        (("ensure", "--provider", "echo"), 2, "--model"),
        (("ensure", *LEASE, "--ttl-s", "0"), 3, "ttl_s"),
        (("demo", "--provider", "nobody"), 3, "known are"),
        (("doctor", "--model", "m"), 2, "--live"),
        (("serve", "--port", "70000"), 2, "not a port"),
        (("serve", "--host", "192.0.2.1"), 2, "only loopback"),
        (("serve", "--set", "nonsense=1"), 2, "known are"),
        (("serve", "--set", "drain_s=soon"), 2, "a number above 0"),
        (("serve", "--harden", "seccomp"), 2, "known are landlock"),
        (("serve", "--harden", "uid:no-such-user"), 2, "there is none"),
        (("doctor", "--harden", "seccomp"), 2, "known are landlock"),
        (("serve", "--cors-origin", "example"), 2, "'example'"),
        (("serve", "--take-over", "--set", "nonsense=1"), 2, "known are"),
        (("nonsense",), 2, "nonsense"),
        ((), 2, "cannot"),
    ],
)  # fmt: skip
def test_errors_are_one_line_with_a_code(run: Run, argv: tuple[str, ...], code: int, words: str):
    """On stderr, with nothing on stdout."""
    failed = run(*argv)
    assert (failed.returncode, failed.stdout) == (code, "")
    assert len(failed.stderr.strip().splitlines()) == 1
    assert words in failed.stderr


@pytest.mark.parametrize("argv", [("ls",), ("ensure", *LEASE), ("release", "lease_x")])
def test_no_supervisor_is_a_code_of_its_own(run: Run, tmp_path: Path, argv: tuple[str, ...]):
    """And it says how to start one; nothing is created by asking."""
    failed = run(*argv, home=tmp_path / "none")
    assert failed.returncode == 5
    assert "asm-endpoint serve" in failed.stderr
    assert not (tmp_path / "none").exists()


def test_providers_and_manifest(run: Run, tmp_path: Path):
    """With a supervisor and without one, the same is published."""
    for home in (None, tmp_path / "none"):
        given = {} if home is None else {"home": home}
        described = json.loads(run("providers", "--json", **given).stdout)
        assert [each["provider"] for each in described] == ["amp", "claude", "codex", "echo", "gemini"]
        assert json.loads(run("manifest", **given).stdout)["consumer"] == "asm_openai_endpoint"


def test_extensions_reports_every_published_provider(run: Run):
    """As a table and as JSON, whatever is installed."""
    reports = json.loads(run("extensions", "--json").stdout)
    assert [report["provider"] for report in reports] == ["amp", "claude", "codex", "gemini"]
    printed = run("extensions").stdout
    assert "claude-agent-sdk" in printed
    assert printed.count("common surface only") == 2


def test_doctor_looks_at_every_command_line(run: Run, monkeypatch: pytest.MonkeyPatch):
    """What passes is named and never shown; what is not there is said, with the way to get it."""
    monkeypatch.setenv("GEMINI_API_KEY", "a-secret-value")
    monkeypatch.setenv("CODEX_PATH", "/nonexistent/codex")
    printed = run("doctor", "--json").stdout
    reports = {each["provider"]: each for each in json.loads(printed)}
    assert set(reports) == {"amp", "claude", "codex", "echo", "gemini"}
    assert "GEMINI_API_KEY" in reports["gemini"]["passes"]["variables_set"]
    assert "a-secret-value" not in printed
    assert reports["codex"]["problem"]["code"] == "cli_not_found"
    assert reports["codex"]["passes"]["settings_read"] == [".codex/config.toml"]
    assert reports["amp"]["publication"]["streaming_granularity"] == "message"
    assert run("doctor").returncode == 0
    assert run("doctor", "--provider", "codex").returncode == 4


def test_doctor_names_what_passes_of_a_logged_in_user(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The files that are there, linked or read in place; nothing of a login that is not there."""
    claude, codex = tmp_path / ".claude" / ".credentials.json", tmp_path / ".codex" / "auth.json"
    for path in (claude, codex):
        path.parent.mkdir()
        path.write_text('{"secret": "a-secret-value"}')
    for variable in ("ANTHROPIC_API_KEY", "CLAUDE_CONFIG_DIR", "CODEX_HOME", "GEMINI_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    for variable in ("NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(variable, raising=False)
    certificates = tmp_path / ".ca.pem"
    certificates.touch()
    monkeypatch.setenv("CODEX_CA_CERTIFICATE", str(certificates))
    monkeypatch.setenv("HOME", str(tmp_path))
    printed = run("doctor", "--json").stdout
    reports = {each["provider"]: each for each in json.loads(printed)}
    assert reports["codex"]["credentials"] == {"user": [str(codex)]}
    assert reports["codex"]["passes"]["files"] == [str(certificates), str(codex)]
    assert reports["codex"]["passes"]["home"] is None
    assert reports["claude"]["credentials"] == {"user": [str(claude)]}
    assert reports["claude"]["passes"]["files"] == [str(claude.parent)]
    assert reports["claude"]["passes"]["home"] == str(tmp_path)
    assert reports["gemini"]["credentials"] == {}
    assert reports["gemini"]["passes"]["files"] == []
    assert "a-secret-value" not in printed


def test_doctor_runs_a_real_turn(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """With its times; of all that are usable when none is named."""
    (report,) = json.loads(run("doctor", "--provider", "echo", "--live", "--json").stdout)
    assert report["live"]["text"] == "Answer with the one word: ready"
    assert report["live"]["total_ms"] >= report["live"]["first_piece_ms"] > 0
    for variable in ("AMP_CLI_PATH", "CLAUDE_CLI_PATH", "CODEX_PATH", "GEMINI_CLI_PATH"):
        monkeypatch.setenv(variable, str(tmp_path / "nowhere"))
    reports = json.loads(run("doctor", "--live", "--json").stdout)
    assert [report["provider"] for report in reports if "live" in report] == ["echo"]
    shown = run("doctor", "--live")
    assert shown.returncode == 0
    assert "first piece after" in shown.stdout


def test_doctor_looks_with_the_locks_that_it_is_given(run: Run):
    """A real turn runs behind them too; without one named, there are none to report."""
    (report,) = json.loads(
        run("doctor", "--provider", "echo", "--harden", "landlock", "--live", "--json").stdout
    )
    assert report["locks"] == ["landlock"]
    assert report["live"]["text"] == "Answer with the one word: ready"
    (bare,) = json.loads(run("doctor", "--provider", "echo", "--json").stdout)
    assert bare["locks"] == []


def test_doctor_says_what_another_user_would_not_reach(run: Run, monkeypatch: pytest.MonkeyPatch):
    """The program, or first of all the state folder, with the place that is closed; the control: without the lock."""
    if os.geteuid() != 0:
        pytest.skip("only root may run command lines as another user")
    with tempfile.TemporaryDirectory() as closed, tempfile.TemporaryDirectory() as home:
        program = Path(closed, "claude")
        program.write_text("#!/bin/sh\necho '2.1.332 (Claude Code)'\n")
        program.chmod(0o755)
        monkeypatch.setenv("CLAUDE_CLI_PATH", str(program))
        monkeypatch.setenv("ANTHROPIC_API_KEY", "dummy-key")
        asked = ("doctor", "--provider", "claude")
        assert run(*asked, home=Path(home)).returncode == 0
        refused = run(*asked, "--harden", "uid", home=Path(home))
        assert refused.returncode == 4
        assert f"as user 65534: {closed} is closed to it" in refused.stderr
        unavailable = run(*asked, "--harden", "uid", "--live", home=Path(closed, "home"))
        assert unavailable.returncode == 1
        assert f"as user 65534: {closed} is closed to it, and the state folder" in unavailable.stderr
        assert unavailable.stdout.startswith("provider ")


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137)],
)
def test_run_exits_as_its_command_does_and_releases(
    run: Run, supervisor_client: SupervisorClient, script: str, code: int
):
    """Whatever way the command ends."""
    before = live(supervisor_client)
    assert run("run", *LEASE, "--", "sh", "-c", script).returncode == code
    assert live(supervisor_client) == before


@pytest.mark.parametrize(("command", "code"), [("/no/such/command", 127), ("/etc/hostname", 126)])
def test_run_of_what_cannot_run(run: Run, supervisor_client: SupervisorClient, command: str, code: int):
    """The shell's codes, one line, and the lease is released."""
    before = live(supervisor_client)
    failed = run("run", *LEASE, "--", command)
    assert failed.returncode == code
    assert len(failed.stderr.strip().splitlines()) == 1
    assert live(supervisor_client) == before


@pytest.mark.parametrize("embedded", [False, True])
def test_run_gives_the_command_an_endpoint(run: Run, tmp_path: Path, embedded: bool):
    """In its environment, not in its argv; with a running supervisor and with one of its own."""
    code = (
        "import os, httpx; r = httpx.post(os.environ['OPENAI_BASE_URL'] + '/chat/completions', trust_env=False,"
        "headers={'authorization': 'Bearer ' + os.environ['OPENAI_API_KEY']}, json={'prompt': 'through run'});"
        "print(r.json()['choices'][0]['message']['content'], os.environ['OPENAI_API_KEY'] in open('/proc/self/cmdline').read())"
    )
    given = {"home": tmp_path / "none"} if embedded else {}
    ran = run("run", *LEASE, "--", sys.executable, "-c", code, **given)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "through run False\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_run_passes_signals_on(
    supervisor_client: SupervisorClient, state_home: Path, tmp_path: Path, number: signal.Signals
):
    """The command decides what to do with them; the lease is released after it."""
    before, ready = live(supervisor_client), tmp_path / "ready"
    script = f"trap 'exit 9' {number.name.removeprefix('SIG')}; touch {shlex.quote(str(ready))}; while :; do sleep 0.05; done"
    with subprocess.Popen(
        (*PROGRAM, "run", *LEASE, "--", "sh", "-c", script),
        env={**os.environ, "ASM_ENDPOINT_HOME": str(state_home)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        until(ready.exists)
        os.kill(process.pid, number)
        assert process.wait(TIMEOUT_S) == 9
    assert live(supervisor_client) == before


def test_a_killed_run_ends_its_lease(supervisor_client: SupervisorClient, state_home: Path):
    """The lease belongs to the process: nothing can keep it from ending."""
    before = live(supervisor_client)
    with subprocess.Popen(
        (*PROGRAM, "run", *LEASE, "--", "sleep", "600"),
        env={**os.environ, "ASM_ENDPOINT_HOME": str(state_home)},
        start_new_session=True,
    ) as process:
        until(lambda: live(supervisor_client) != before)
        (sleeper,) = until(lambda: psutil.Process(process.pid).children())
        process.kill()
        sleeper.kill()
    until(lambda: live(supervisor_client) == before)


def test_demo(run: Run, tmp_path: Path):
    """Summary without the token, an answer, a streamed answer, and the proof."""
    shown = run("demo", "--message", "one two", home=tmp_path / "none")
    assert shown.returncode == 0, shown.stderr
    assert "<redacted>" in shown.stdout
    assert shown.stdout.count("one two") == 2
    assert "no survivors" in shown.stdout
    assert shown.stderr == ""


def test_progress_is_shown_on_a_terminal_and_erased(state_home: Path, supervisor_client: SupervisorClient):
    """Only there; a pipe sees none of it."""
    leader, follower = pty.openpty()
    with subprocess.Popen(
        (*PROGRAM, "run", *LEASE, "--", "true"),
        env={**os.environ, "ASM_ENDPOINT_HOME": str(state_home), "TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=follower,
    ) as process:
        os.close(follower)
        shown, deadline = b"", time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline and select.select([leader], [], [], 1)[0]:
            try:
                shown += os.read(leader, 4096)
            except OSError:
                break
        assert process.wait(TIMEOUT_S) == 0
    os.close(leader)
    assert b"leasing echo any" in shown
    assert shown.endswith(b"\r\x1b[K")


@pytest.mark.parametrize("argv", [("--help",), ("run", "--help"), ("--version",)])
def test_help(run: Run, argv: tuple[str, ...]):
    """Exit codes are part of it."""
    shown = run(*argv)
    assert shown.returncode == 0
    assert argv != ("--help",) or "exit codes:" in shown.stdout
