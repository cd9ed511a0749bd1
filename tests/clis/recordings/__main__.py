"""``make record-transcripts``: record every scenario over an installed or a named version, and name what differs."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.clis.netns import NetworkNamespaceError, enter_loopback_only_network
from tests.clis.recordings import conformance, recorder
from tests.clis.recordings.recording import TRANSCRIPTS
from tests.clis.recordings.scenarios import SUBJECTS, Subject
from tests.clis.table import MODULES

VERSIONS = MODULES.parents[1] / ".cli-versions"
NPM = (
    "npm",
    "install",
    "--no-audit",
    "--no-fund",
    "--no-package-lock",
    "--ignore-scripts",
    "--loglevel=error",
)


def main() -> int:
    """0 when everything means what was recorded, 1 when something does not, 2 when nothing could be run."""
    options = _options()
    names = options.cli or list(SUBJECTS)
    try:
        found = {name: _find(SUBJECTS[name], options.version) for name in names}
        enter_loopback_only_network()  # after the installation, which needs the other one
    except (LookupError, NetworkNamespaceError, subprocess.CalledProcessError) as error:
        print(f"cannot record: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="asm-endpoint-prepared-") as folder:
        verdicts = [
            verdict
            for name, executable in found.items()
            for verdict in _run(SUBJECTS[name], executable, Path(folder), options)
        ]
    differing = sum(bool(verdict.differences) for verdict in verdicts)
    print(f"{len(verdicts)} scenarios, {differing or 'none'} of them with a difference")
    return 1 if differing else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.clis.recordings", description=__doc__)
    parser.add_argument("--cli", action="append", choices=SUBJECTS, help="only this one; may be repeated")
    parser.add_argument("--version", help="install and use this version of the one --cli")
    parser.add_argument("--scenario", action="append", help="only this one; may be repeated")
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--transcripts", type=Path, default=TRANSCRIPTS, help="default: %(default)s")
    options = parser.parse_args()
    if options.version and len(options.cli or ()) != 1:
        parser.error("--version needs one --cli")
    return options


def _find(subject: Subject, version: str | None) -> Path:
    """The executable, of a version of its own when one is named. Raises LookupError or CalledProcessError."""
    modules = MODULES
    if version:
        folder = VERSIONS / f"{subject.provider}-{version}"
        modules = folder / "node_modules"
        if not any(modules.glob(subject.executable)):
            folder.mkdir(parents=True, exist_ok=True)
            subprocess.run((*NPM, "--prefix", folder, f"{subject.package}@{version}"), check=True)
    found = sorted(modules.glob(subject.executable))
    if not found:
        raise LookupError(f"{subject.provider} is not installed below {modules}; try `make clis`")
    return found[0]


def _run(
    subject: Subject, executable: Path, folder: Path, options: argparse.Namespace
) -> list[conformance.Verdict]:
    program = recorder.look(subject, executable, folder)
    chosen = [each for each in subject.scenarios if options.scenario is None or each.name in options.scenario]
    verdicts = []
    print(f"{subject.provider} {program.version}")
    for verdict in conformance.run(subject, program, chosen, options.transcripts, keep=not options.check):
        print(f"  {verdict.scenario:<28}{_words(verdict)}", flush=True)
        for line in verdict.differences:
            print(f"      {line}")
        verdicts.append(verdict)
    return verdicts


def _words(verdict: conformance.Verdict) -> str:
    if verdict.against is None:
        return "DIFFERS from the table" if verdict.differences else "is new"
    return f"{'DIFFERS from' if verdict.differences else 'means the same as'} {verdict.against}"


if __name__ == "__main__":
    sys.exit(main())
