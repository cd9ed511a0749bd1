"""``doctor``: what is here of each command line, what may reach it, and whether it really answers."""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from pathlib import Path
from typing import Any

from shared import provider
from shared.errors import EndpointError, ProviderError, RequestError
from supervisor import console
from supervisor.commands.options import Parsers, add_json, add_parser, request

LIVE_MESSAGE = "Answer with the one word: ready"


def add_parsers(parsers: Parsers) -> None:
    """Add ``doctor``."""
    parser = add_parser(
        parsers, "doctor", doctor, "check command lines: found, version, credentials, what passes to them"
    )
    parser.add_argument("--provider", help="only this one")
    parser.add_argument("--live", action="store_true", help="run one real turn; needs --provider")
    parser.add_argument("--model", default="any", help="for --live")
    parser.set_defaults(stream=True)
    add_json(parser)


def doctor(options: argparse.Namespace) -> int:
    """Report. Raises ProviderError when the one that was asked for is not usable."""
    if options.live and not options.provider:
        raise RequestError("invalid_request", "cannot run a live turn: name one with --provider")
    names = (options.provider,) if options.provider else provider.names()
    with console.progress("asking command lines ..."):
        reports = asyncio.run(_reports(names))
    if options.live:
        reports[0]["live"] = _live(options)
    if options.json:
        console.print_json(reports)
    else:
        for report in reports:
            _print(report)
    problem = reports[0]["problem"] if options.provider else None
    if problem:
        raise ProviderError(problem["code"], problem["message"])
    return 0


async def _reports(names: tuple[str, ...]) -> list[dict[str, Any]]:
    from supervisor.commandlines import CommandLines
    from supervisor.settings import state_home
    from supervisor.statefolder import PREPARED_NAME

    found = CommandLines(os.environ, Path.home(), state_home(os.environ) / PREPARED_NAME)
    return [await found.describe(name) | {"passes": _passes(name, found)} for name in names]


def _passes(name: str, found: Any) -> dict[str, list[str]]:
    """Exactly what of this environment and home may reach the command line; names, never values."""
    chosen = provider.load(name)
    return {
        "variables_set": sorted(set(found.variables(chosen)) - {"PATH"}),
        "variables": sorted(chosen.environment),
        "login_files": [file for login in chosen.logins for file in login.files],
        "settings_read": [chosen.settings.file] if chosen.settings else [],
    }


def _live(options: argparse.Namespace) -> dict[str, Any]:
    """One leased turn, timed in milliseconds. Raises what it raises."""
    from supervisor.commands.chat import Chat
    from supervisor.embedded import InferenceEndpoint

    with console.progress("running one real turn ..."), InferenceEndpoint() as endpoint:
        started = time.perf_counter()
        descriptor, _ = endpoint.ensure_endpoint(request(options))
        leased = time.perf_counter()
        try:
            with Chat(descriptor) as chat:
                pieces = []
                first = None
                for piece in chat.stream(LIVE_MESSAGE):
                    first = first or time.perf_counter()
                    pieces.append(piece)
                ended = time.perf_counter()
        except EndpointError as error:
            return {"problem": {"code": error.code, "message": error.message}}
        finally:
            endpoint.release_endpoint(descriptor)
    return {
        "text": "".join(pieces),
        "lease_ms": round((leased - started) * 1e3),
        "first_piece_ms": round(((first or ended) - leased) * 1e3),
        "total_ms": round((ended - leased) * 1e3),
    }


def _print(report: dict[str, Any]) -> None:
    cli, passes = report["cli"], report["passes"]
    version = "-"
    if cli:
        version = cli["version"] or ("part of this project" if not report["published"] else "unknown")
        measured = report["measured_version"]
        version += f" (measured with {measured})" if measured and measured != cli["version"] else ""
    fields = {
        "provider": f"{report['provider']} ({report['title']})",
        "found": cli["path"] if cli else "no",
        "version": version,
        "login": report["login"] or "none found",
        "streams": report["publication"]["streaming_granularity"],
        "passes": ", ".join(passes["variables_set"]) or "no variable",
        "may pass": ", ".join(passes["variables"]) or "nothing",
        "login files": ", ".join(passes["login_files"]) or "none",
        "settings read": ", ".join(passes["settings_read"]) or "none",
        "state": report["problem"]["message"] if report["problem"] else "ready",
    }
    if live := report.get("live"):
        fields["live"] = (
            live["problem"]["message"]
            if "problem" in live
            else f"leased in {live['lease_ms']} ms, first piece after {live['first_piece_ms']} ms, all after "
            f"{live['total_ms']} ms: {live['text']}"
        )
    console.print_fields(fields)
    print()
