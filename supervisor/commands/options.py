"""The options that several commands share, and what they mean in the contract's terms."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from shared.contracts import Budget, LeaseLimits, LeaseOptions
from shared.errors import RequestError

Parsers = Any
"""What ``add_subparsers`` returns; argparse has no public name for it."""
Command = Callable[[argparse.Namespace], int]


def add_parser(
    parsers: Parsers, name: str, command: Command, summary: str, **details: Any
) -> argparse.ArgumentParser:
    """A command's parser; its help begins with ``summary``."""
    parser: argparse.ArgumentParser = parsers.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", allow_abbrev=False, **details
    )
    parser.set_defaults(command=command, command_name=name)
    return parser


@contextlib.contextmanager
def usage_of(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Where only the command line can be what is wrong: a RequestError is told as the parser's own errors are."""
    try:
        yield
    except RequestError as error:
        parser.error(error.message)


def add_home(parser: argparse.ArgumentParser) -> None:
    """``--home``, the state folder."""
    parser.add_argument(
        "--home",
        type=_folder,
        metavar="FOLDER",
        help="state folder of the supervisor (default: $ASM_ENDPOINT_HOME, else asm-endpoint in the XDG state folder)",
    )


def add_json(parser: argparse._ActionsContainer) -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_harden(parser: argparse.ArgumentParser, what: str) -> None:
    """``--harden``; ``what`` is done with the locks."""
    parser.add_argument(
        "--harden",
        action="append",
        default=[],
        dest="locks",
        metavar="LOCK",
        help=f"{what}: landlock (files), uid[:USER] (as root: be USER, default nobody) (repeatable)",
    )


def add_request(parser: argparse.ArgumentParser) -> None:
    """What is asked for: ``--provider``, ``--model``, ``--stream``."""
    parser.add_argument("--provider", required=True, help="claude, codex, gemini, amp, or echo")
    parser.add_argument("--model", required=True, help="the provider's name of the model, e.g. sonnet")
    parser.add_argument("--stream", action="store_true", help="refuse a provider that cannot stream")


def add_lease_options(parser: argparse.ArgumentParser, defaults: LeaseOptions) -> None:
    """How long the lease lives, for whom, and how much of it; ``defaults`` hold for what is not given."""
    helps = {
        "ttl_s": (float, "S", "the lease ends after this time (default: %(default)g)"),
        "idle_timeout_s": (float, "S", "it ends after this time unused (default: %(default)g)"),
        "owner_pid": (int, "PID", "it ends with this process"),
        "concurrency": (int, "N", "turns at once; more wait (default: %(default)s)"),
        "queue_limit": (int, "N", "requests that may wait (default: the supervisor's setting)"),
        "standby": (int, "N", "command lines kept ready for the next turn (default: %(default)s)"),
        "group": (str, "NAME", "your name for leases that belong together"),
    }
    for name, (kind, metavar, text) in helps.items():
        flag, default = f"--{name.replace('_', '-')}", getattr(defaults, name)
        parser.add_argument(flag, type=kind, default=default, metavar=metavar, help=text)
    numbers: dict[str, Any] = {"action": "append", "default": [], "type": _number, "metavar": "NAME=NUMBER"}
    known = ", ".join(Budget.__struct_fields__)
    parser.add_argument(
        "--budget", help=f"what it may spend, once for each of {known}; used up, it ends", **numbers
    )
    known = ", ".join(LeaseLimits.__struct_fields__)
    parser.add_argument(
        "--limit",
        dest="limits",
        help=f"what its processes may use, once for each of {known}; over it, it ends",
        **numbers,
    )


def request(options: argparse.Namespace) -> dict[str, Any]:
    """The inference request that the options make."""
    preference = {"provider": options.provider, "id": options.model}
    return {"model_preference": preference, "stream?": options.stream}


def lease_options(options: argparse.Namespace) -> dict[str, Any]:
    """The lease options; the supervisor checks their values."""
    names = ("ttl_s", "idle_timeout_s", "owner_pid", "concurrency", "queue_limit", "standby", "group")
    numbers = {name: dict(getattr(options, name)) or None for name in ("budget", "limits")}
    return {name: getattr(options, name) for name in names} | numbers


def _number(text: str) -> tuple[str, int | float]:
    name, _, number = text.partition("=")
    try:
        return name, int(number) if number.isdecimal() else float(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=NUMBER") from None


def _folder(text: str) -> Path:
    return Path(text).expanduser().absolute()
