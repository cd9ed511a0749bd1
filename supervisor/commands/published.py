"""``providers`` and ``manifest``: what the running supervisor publishes."""

from __future__ import annotations

import argparse
from typing import Any

from supervisor import console
from supervisor.commands.options import Parsers, add_home, add_json, add_parser

PROVIDERS_HEAD = ("PROVIDER", "PUBLISHED", "STREAMING", "AGENT", "COMMAND LINE", "LOGIN", "STATE")


def add_parsers(parsers: Parsers) -> None:
    """Add ``providers`` and ``manifest``."""
    parser = add_parser(parsers, "providers", providers, "show what is published, installed and logged in")
    add_home(parser)
    add_json(parser)
    parser = add_parser(parsers, "manifest", manifest, "print the manifest of a consumer that fits, as JSON")
    add_home(parser)


def providers(options: argparse.Namespace) -> int:
    """Print every provider."""
    from supervisor.client import SupervisorClient

    with SupervisorClient.from_home(options.home) as client, console.progress("asking command lines ..."):
        described = client.providers()
    if options.json:
        console.print_json(described)
    else:
        console.print_table(PROVIDERS_HEAD, map(_row, described))
    return 0


def _row(described: dict[str, Any]) -> tuple[str, ...]:
    publication, cli, problem = described["publication"], described["cli"], described["problem"]
    return (
        described["provider"],
        _yes(described["published"]),
        _yes(publication["cli_streaming_v1"]),
        _yes(publication["cli_agent_v2"]),
        f"{cli['path']} {cli['version'] or ''}" if cli else "-",
        described["login"] or "-",
        problem["message"] if problem else "ready" if described["ready"] else "decided about, not yet run",
    )


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def manifest(options: argparse.Namespace) -> int:
    """Print the consumer manifest."""
    from supervisor.client import SupervisorClient

    with SupervisorClient.from_home(options.home) as client:
        console.print_json(client.consumer_manifest())
    return 0
