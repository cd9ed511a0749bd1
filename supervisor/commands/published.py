"""``providers`` and ``manifest``: what is published, as the running supervisor says; without one, we look ourselves."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.errors import WorkerError
from supervisor import console
from supervisor.commands.options import Parsers, add_home, add_json, add_parser

if TYPE_CHECKING:
    from supervisor.client import SupervisorClient

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
    with console.progress("asking command lines ..."):
        described = _ask(options.home, lambda client: client.providers(), _look)
    console.print_list(described, PROVIDERS_HEAD, _row, as_json=options.json)
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
        problem["message"] if problem else _state(cli),
    )


def _state(cli: dict[str, Any]) -> str:
    return "ready" if cli["is_supported"] else f"ready, but measured with {cli['supported_versions']}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def manifest(options: argparse.Namespace) -> int:
    """Print the consumer manifest."""
    from supervisor import publication

    answer = _ask(options.home, lambda client: client.consumer_manifest(), publication.consumer_manifest)
    console.print_json(answer)
    return 0


def _ask(
    home: Path | None, of_client: Callable[[SupervisorClient], Any], otherwise: Callable[[], Any]
) -> Any:
    from supervisor.client import SupervisorClient

    try:
        with SupervisorClient.from_home(home) as client:
            return of_client(client)
    except WorkerError as error:
        if error.code != "supervisor_unavailable":
            raise
        return otherwise()


def _look() -> list[dict[str, Any]]:
    """What a supervisor started here and now would find."""
    from shared import provider
    from supervisor.commandlines import CommandLines
    from supervisor.settings import state_home
    from supervisor.statefolder import PREPARED_NAME

    command_lines = CommandLines(os.environ, Path.home(), state_home(os.environ) / PREPARED_NAME)

    async def describe_all() -> list[dict[str, Any]]:
        return [await command_lines.describe(name) for name in provider.names()]

    return asyncio.run(describe_all())
