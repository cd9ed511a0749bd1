"""``extensions``: which provider-native SDKs are importable here, and what they add."""

from __future__ import annotations

import argparse

from shared import extensions as catalogue
from supervisor import console
from supervisor.commands.options import Parsers, add_json, add_parser

HEAD = ("PROVIDER", "MODE", "SDK", "INSTALLED", "NATIVE CAPABILITIES")


def add_parsers(parsers: Parsers) -> None:
    """Add ``extensions``."""
    parser = add_parser(
        parsers, "extensions", extensions, "show which provider-native SDKs are importable here"
    )
    add_json(parser)


def extensions(options: argparse.Namespace) -> int:
    """Print the report of every published provider."""
    reports = catalogue.capability_report()
    console.print_list(reports, HEAD, _row, as_json=options.json)
    return 0


def _row(report: catalogue.ExtensionReport) -> tuple[str, ...]:
    hints = [f"no (pip install 'asm-endpoint[{each.extra}]')" for each in report.registered]
    return (
        report.provider,
        report.composition_mode.replace("_", " "),
        ", ".join(each.distribution for each in report.registered) or "-",
        (report.sdk_version or "yes") if report.sdk_available else "".join(hints) or "-",
        ", ".join(report.native_capabilities) or "-",
    )
