"""``make compat``: every suite against echo and against a real command line, through the whole stack, and one table.

One embedded supervisor with the pinned command lines in front of the scripted model server; for each run two fresh
leases, whose bytes go through a tap; all on loopback, in a network without a way out. Exit status 0 only when every
suite ran, everything in it passed or is excluded with a reason, every answer, chunk and error that any client
received fits our schemas of OpenAI's API, every lease was released without survivors, and the README says so.

By hand: ``python -m tests.compat.run [--lane echo|real] [SUITE...]``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import h11
import pytest

from supervisor import EndpointDescriptor, InferenceEndpoint
from supervisor.statefolder import StateFolder
from tests.clis.models.server import ModelServer
from tests.clis.netns import NetworkNamespaceError, enter_loopback_only_network
from tests.clis.table import CLIS, KEY
from tests.compat.exchange import exchanges
from tests.compat.judgement import faults
from tests.compat.results import Outcome, Report, missing, read_junit, table
from tests.compat.table import ECHO, ROOT, SUITES, SUITES_FOLDER, Suite, readme_row
from tests.compat.tap import Recording, Tap

COMPAT = ROOT / ".compat"
LOGS = COMPAT / "logs"
SUITE_TIMEOUT_S = 420.0
END_WAIT_S = 10.0
SHOWN_FAULTS = 20
STATUS_HOLD_S = 60.0
SAYS = {
    ECHO: {
        "says": "{}",
        "says_json": "{}",
        "endless": "[[pause:120]] never",
        "long": "[[pause:0.05]] " + "word " * 200,
        "fails": "[[error:429]] x",
        "breaks": "[[error:500]] [[pause:0.1]] one two three",
    },
    "claude": {"says_json": "[[tool:StructuredOutput]] [[tool-input:{}]]"},
}
SAYS_SCRIPTED = {
    "says": "[[text:{}]]",
    "says_json": "[[text:{}]]",
    "endless": "[[hang]] x",
    "long": "[[deltas:200]] [[delay:0.05]] x",
    "fails": "[[status:429]] x",
    "breaks": "[[deltas:5]] [[delay:0.1]] [[error-event]] x",
}
QUIET = {
    "ANONYMIZED_TELEMETRY": "false",
    "DO_NOT_TRACK": "1",
    "LANGCHAIN_TRACING_V2": "false",
    "LANGSMITH_TRACING": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_TELEMETRY": "False",
    "NO_UPDATE_NOTIFIER": "1",
    "OTEL_SDK_DISABLED": "true",
    "PYDANTIC_AI_NO_BANNER": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "SCHEMATHESIS_HOOKS": "",
}
"""Nothing calls home: switched off, and there is no way out besides."""


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for; everything, if nothing was."""
    parser = argparse.ArgumentParser(
        prog="compat", description="Independent client suites against this product."
    )
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=", ".join(suite.name for suite in SUITES))
    parser.add_argument("--lane", choices=("echo", "real"))
    asked = parser.parse_args(arguments)
    lanes = [asked.lane] if asked.lane else ["echo", "real"]
    chosen = [
        (suite, provider)
        for lane in lanes
        for suite in SUITES
        if (not asked.suites or suite.name in asked.suites)
        and (provider := ECHO if lane == "echo" else suite.real) is not None
    ]
    try:
        enter_loopback_only_network()
    except NetworkNamespaceError as error:
        print(f"not isolated: {error}", file=sys.stderr)
    LOGS.mkdir(parents=True, exist_ok=True)
    outcomes = list(_run_all(chosen))
    stale = [] if asked.suites or asked.lane else _stale_rows(outcomes)
    print("\n".join((_summary(outcomes), *stale)))
    return 0 if outcomes and all(each.is_good for each in outcomes) and not stale else 1


def _run_all(chosen: Iterable[tuple[Suite, str]]) -> Iterator[Outcome]:
    with ModelServer() as models, _supervisor(models) as endpoint:
        for suite, provider in chosen:
            outcome = _run_one(endpoint, suite, provider)
            print(f"{suite.name} / {provider}: {outcome.passed} passed", file=sys.stderr)
            for failure in outcome.failed:
                print(f"  {failure}", file=sys.stderr)
            yield outcome


@contextlib.contextmanager
def _supervisor(models: ModelServer) -> Iterator[InferenceEndpoint]:
    """Embedded, for a user whose command lines are the pinned ones, with keys for the scripted model."""
    with tempfile.TemporaryDirectory(prefix="compat-home-") as home, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", home)
        patch.setenv("ASM_ENDPOINT_ECHO_MISBEHAVE", "1")
        for cli in CLIS.values():
            for name in cli.login_variables:
                patch.delenv(name, raising=False)
            with contextlib.suppress(pytest.skip.Exception):
                for name, value in {**cli.variables(models), cli.key_variable: KEY}.items():
                    patch.setenv(name, value)
        with InferenceEndpoint(serve_arguments=("--set", f"status_hold_s={STATUS_HOLD_S}")) as endpoint:
            yield endpoint


def _run_one(endpoint: InferenceEndpoint, suite: Suite, provider: str) -> Outcome:
    started = time.monotonic()
    excluded = suite.excluded_tests(provider)
    report = Report(passed=(), skipped=(), failed=())
    wrong: list[str] = []
    try:
        with lease(endpoint, provider) as wide, lease(endpoint, provider, **NARROW) as narrow:
            with Tap(port_of(wide)) as wide_tap, Tap(port_of(narrow)) as narrow_tap:
                environ = _environ(suite, (wide, wide_tap), (narrow, narrow_tap))
                environ["COMPAT_EXCLUDED"] = json.dumps(sorted(excluded))
                with _supervisor_of_its_own(suite) as more:
                    report = _report(suite, provider, {**environ, **more})
            wrong += missing(report, excluded)
            wrong += wire_faults([*wide_tap.recordings, *narrow_tap.recordings])
    except Exception as error:
        wrong.append(f"did not run: {type(error).__name__}: {error}")
    return Outcome(
        suite=suite.name,
        versions=suite.versions(),
        provider=provider,
        passed=len(report.passed),
        excluded=len(report.skipped),
        failed=(*report.failed, *wrong),
        elapsed_s=time.monotonic() - started,
    )


NARROW = {"concurrency": 1, "queue_limit": 0}


@contextlib.contextmanager
def lease(endpoint: InferenceEndpoint, provider: str, **options: Any) -> Iterator[EndpointDescriptor]:
    """A lease of a provider's usual model. Raises RuntimeError when its release leaves something behind."""
    model = "any" if provider == ECHO else CLIS[provider].model
    request = {"model_preference": {"provider": provider, "id": model}}
    descriptor, _ = endpoint.ensure_endpoint(request, lease=options or None)
    try:
        yield descriptor
    finally:
        proof = endpoint.release_endpoint(descriptor).proof
        if proof is None or proof.survivors:
            raise RuntimeError(f"cannot release the lease of {provider}: {proof}")


@contextlib.contextmanager
def _supervisor_of_its_own(suite: Suite) -> Iterator[dict[str, str]]:
    if not suite.has_supervisor:
        yield {}
        return
    with InferenceEndpoint() as endpoint:
        yield {
            "COMPAT_SUPERVISOR_URL": endpoint.url,
            "COMPAT_SUPERVISOR_TOKEN": StateFolder(endpoint.home).admin_token(),
        }


def port_of(descriptor: EndpointDescriptor) -> int:
    """Where its endpoint listens."""
    return urlsplit(descriptor.base_url).port or 0


def through(descriptor: EndpointDescriptor, tap: Tap) -> str:
    """Its base URL, by way of the tap."""
    return descriptor.base_url.replace(f":{port_of(descriptor)}/", f":{tap.port}/")


def _token(descriptor: EndpointDescriptor) -> str:
    return descriptor.headers["authorization"].removeprefix("Bearer ")


def _environ(
    suite: Suite,
    wide: tuple[EndpointDescriptor, Tap],
    narrow: tuple[EndpointDescriptor, Tap],
) -> dict[str, str]:
    """What the suite's process knows: what a user of the endpoint knows, and how to steer the model."""
    options = wide[0].metadata["publication"]["turn_options"]
    lane = {
        "narrow_url": through(*narrow),
        "provider": wide[0].provider_identity,
        "model": wide[0].model_identity,
        "response_formats": options["response_formats"],
        "image_types": options["image_types"],
        **SAYS_SCRIPTED,
        **SAYS.get(wide[0].provider_identity, {}),
    }
    return {
        **QUIET,
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(SUITES_FOLDER),
        "LANG": "C.UTF-8",
        "OPENAI_BASE_URL": through(*wide),
        "OPENAI_API_KEY": _token(wide[0]),
        "COMPAT_NARROW_KEY": _token(narrow[0]),
        "COMPAT_LANE": json.dumps(lane),
        "COMPAT_ENVIRONMENT": str(COMPAT / (suite.environment or "")),
    }


def _report(suite: Suite, provider: str, environ: Mapping[str, str]) -> Report:
    """Run the suite's own process to its end, bounded. Raises RuntimeError when it leaves no report."""
    log = LOGS / f"{suite.name}-{provider}.log"
    result = log.with_suffix(".xml")
    result.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="compat-user-") as home, log.open("wb") as output:
        process = subprocess.Popen(
            _command(suite, result),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=home,
            env={**environ, "HOME": home},
            start_new_session=True,
        )
        try:
            process.wait(SUITE_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"it did not end within {SUITE_TIMEOUT_S:.0f} s; see {log}") from error
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(END_WAIT_S)
    if not result.exists():
        raise RuntimeError(f"it left no report; see {log}")
    return read_junit(result.read_text(encoding="utf-8"))


def _command(suite: Suite, result: Path) -> tuple[str, ...]:
    file = str(SUITES_FOLDER / suite.file)
    if file.endswith(".mjs"):
        return ("node", "--test", "--test-reporter=junit", f"--test-reporter-destination={result}", file)
    python = str(COMPAT / suite.environment / "bin" / "python") if suite.environment else sys.executable
    return (
        python, "-m", "pytest", "-c", str(SUITES_FOLDER / "pytest.ini"), "-p", "lane", "--confcutdir", str(SUITES_FOLDER),
        "--junit-xml", str(result), *suite.options, file,
    )  # fmt: skip


def wire_faults(recordings: Iterable[Recording]) -> list[str]:
    """What was wrong with anything that any client received."""
    found: list[str] = []
    for recording in recordings:
        try:
            told = exchanges(bytes(recording.sent), bytes(recording.received))
        except h11.ProtocolError as error:
            found.append(f"wire: {error}")
            continue
        for exchange in told:
            if exchange.status:
                found += [f"wire: {exchange.method} {exchange.status}: {fault}" for fault in faults(exchange)]
            if not exchange.is_whole and not recording.client_left:
                found.append(f"wire: {exchange.method} {exchange.path}: not answered to its end")
    return list(dict.fromkeys(found))[:SHOWN_FAULTS]


def _stale_rows(outcomes: list[Outcome]) -> list[str]:
    """What the README has to say after a whole run, and does not."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    rows = [
        readme_row(suite, {each.provider: each.passed for each in outcomes if each.suite == suite.name})
        for suite in SUITES
    ]
    return [f"FAILED README.md lacks: {row}" for row in rows if row not in readme]


def _summary(outcomes: list[Outcome]) -> str:
    shown = {suite.name: suite for suite in SUITES}
    reasons = sorted(
        {
            f"Excluded: {each.name}: {each.reason}."
            for row in outcomes
            for each in shown[row.suite].excluded_with(row.provider)
        }
    )
    failures = [
        f"FAILED {row.suite} / {row.provider}: {failure}" for row in outcomes for failure in row.failed
    ]
    return "\n".join(("", table(outcomes), "", *reasons, *failures))


if __name__ == "__main__":
    sys.exit(main())
