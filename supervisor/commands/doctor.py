"""``doctor``: what is here of each command line, what may reach it, and whether it really answers."""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared import provider
from shared.errors import EndpointError, ProviderError, WorkerError
from supervisor import console
from supervisor.commands.options import Parsers, add_harden, add_json, add_parser, usage_of

if TYPE_CHECKING:
    from shared.hardening import Hardening
    from supervisor.embedded import InferenceEndpoint

LIVE_MESSAGE = "Answer with the one word: ready"


def add_parsers(parsers: Parsers) -> None:
    """Add ``doctor``."""
    parser = add_parser(
        parsers, "doctor", doctor, "check command lines: found, version, credentials, what passes to them"
    )
    parser.add_argument("--provider", help="only this one")
    parser.add_argument("--live", action="store_true", help="run one real turn on each that is usable")
    parser.add_argument("--model", help="for --live of one --provider (default: a cheap one)")
    add_harden(parser, "see whether these locks can be had here, and command lines reached under them")
    add_json(parser)
    parser.set_defaults(parser=parser)


def doctor(options: argparse.Namespace) -> int:
    """Report.

    Raises WorkerError ``hardening_unavailable`` when a lock cannot be had, and ProviderError when the command line that
    was asked for is not usable, or a real turn failed.
    """
    from supervisor.hardening import read_hardening

    if options.model and not (options.live and options.provider):
        options.parser.error("cannot use --model: it belongs to --live with one --provider")
    with usage_of(options.parser):
        hardening = read_hardening(options.locks)
    names = (options.provider,) if options.provider else provider.names()
    with console.progress("asking command lines ..."):
        reports = asyncio.run(_reports(names, hardening))
    unavailable = _unavailable(hardening)
    if options.live and unavailable is None:
        _run_live(reports, options.model, options.locks)
    if options.json:
        console.print_json(reports)
    else:
        for report in reports:
            _print(report)
    if unavailable is not None:
        raise unavailable
    _raise_problem(reports, is_one=bool(options.provider))
    return 0


def _raise_problem(reports: list[dict[str, Any]], *, is_one: bool) -> None:
    """What is not installed or not logged in matters only when it was asked for; a turn that failed always does."""
    for report in reports:
        problem = report["problem"] if is_one else None
        problem = problem or (report.get("live") or {}).get("problem")
        if problem:
            raise ProviderError(problem["code"], problem["message"])


def _unavailable(hardening: Hardening) -> WorkerError | None:
    """Why a supervisor of this user could not have these locks."""
    from supervisor.hardening import require_available
    from supervisor.settings import state_home

    try:
        require_available(hardening, state_home(os.environ))
    except WorkerError as error:
        return error
    return None


async def _reports(names: tuple[str, ...], hardening: Hardening) -> list[dict[str, Any]]:
    from supervisor.commandlines import CommandLines
    from supervisor.settings import state_home
    from supervisor.statefolder import PREPARED_NAME

    found = CommandLines(os.environ, Path.home(), state_home(os.environ) / PREPARED_NAME, hardening)
    return [await found.diagnose(name) | {"locks": hardening.locks} for name in names]


def _run_live(reports: list[dict[str, Any]], model: str | None, locks: list[str]) -> None:
    """Add one real turn to the report of each command line that is usable."""
    from supervisor.embedded import InferenceEndpoint

    usable = [report for report in reports if not report["problem"]]
    if not usable:
        return
    with InferenceEndpoint(serve_arguments=tuple(f"--harden={lock}" for lock in locks)) as endpoint:
        for report in usable:
            name = report["provider"]
            with console.progress(f"running one real turn of {name} ..."):
                report["live"] = _live(endpoint, name, model or provider.load(name).example_model)


def _live(endpoint: InferenceEndpoint, name: str, model: str) -> dict[str, Any]:
    """One leased turn, timed in milliseconds: the lease, the first piece from then on, all of it from then on."""
    from supervisor.commands.chat import Chat

    request = {"model_preference": {"provider": name, "id": model}, "stream?": True}
    started = time.perf_counter()
    try:
        descriptor, _ = endpoint.ensure_endpoint(request)
        leased = time.perf_counter()
        try:
            with Chat(descriptor) as chat:
                pieces = [(piece, time.perf_counter()) for piece in chat.stream(LIVE_MESSAGE)]
            ended = time.perf_counter()
        finally:
            endpoint.release_endpoint(descriptor)
    except EndpointError as error:
        return {"model": model, "problem": {"code": error.code, "message": error.message}}
    first = pieces[0][1] if pieces else ended
    return {
        "model": model,
        "text": "".join(piece for piece, _ in pieces),
        "lease_ms": round((leased - started) * 1e3),
        "first_piece_ms": round((first - leased) * 1e3),
        "total_ms": round((ended - leased) * 1e3),
    }


def _print(report: dict[str, Any]) -> None:
    cli, passes = report["cli"], report["passes"]
    fields = {
        "provider": f"{report['provider']} ({report['title']})",
        "found": cli["path"] if cli else "no",
        "version": _version(report),
        "credentials": "; ".join(
            f"{login}: {', '.join(seen)}" for login, seen in report["credentials"].items()
        )
        or "none seen",
        "login used": report["login"] or "none",
        "streams": report["publication"]["streaming_granularity"],
        "variables that pass": ", ".join(passes["variables_set"]) or "none",
        "files that pass": ", ".join(passes["files"]) or "none",
        "home": f"the user's own, {passes['home']}" if passes["home"] else "one of its own",
        "login files": ", ".join(passes["login_files"]) or "none",
        "settings read": ", ".join(passes["settings_read"]) or "none",
        "might pass if set": ", ".join(sorted(set(passes["variables"]) - set(passes["variables_set"])))
        or "nothing more",
        "locks": ", ".join(report["locks"]) or "only those that always hold",
        "state": report["problem"]["message"] if report["problem"] else "ready",
    }
    if live := report.get("live"):
        fields["live"] = f"{live['model']}: {_outcome(live)}"
    console.print_fields(fields)
    print()


def _version(report: dict[str, Any]) -> str:
    cli = report["cli"]
    if cli is None:
        return "-"
    if cli["supported_versions"] is None:
        return "part of this project"
    where = "inside" if cli["is_supported"] else "OUTSIDE"
    return f"{cli['version'] or 'unknown'} ({where} the supported versions, {cli['supported_versions']})"


def _outcome(live: dict[str, Any]) -> str:
    if "problem" in live:
        return str(live["problem"]["message"])
    return (
        f"leased in {live['lease_ms']} ms, first piece after {live['first_piece_ms']} ms, all after "
        f"{live['total_ms']} ms: {live['text']}"
    )
