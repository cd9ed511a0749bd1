"""``asm-endpoint``: the parser, the dispatch to a command, and the one place where errors become exit codes.

Commands are in :mod:`supervisor.commands`. An error is one line on stderr that begins ``asm-endpoint: cannot``; with
ASM_ENDPOINT_DEBUG=1 its traceback comes before it.
"""

from __future__ import annotations

import argparse
import enum
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Never

from shared.errors import EndpointError, ProviderError, RequestError, WorkerError
from supervisor import console
from supervisor.commands import demo, doctor, extensions, leases, published, run, serve, tokens

DEBUG_VARIABLE = "ASM_ENDPOINT_DEBUG"
GROUPS = (serve, demo, leases, run, tokens, published, extensions, doctor)


class Exit(enum.IntEnum):
    """The exit codes that scripts may branch on; a signal N that ended us is 128 + N, as everywhere."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    PROVIDER_UNAVAILABLE = 4
    SUPERVISOR_UNAVAILABLE = 5
    SURVIVORS = 6


MEANINGS = {
    Exit.DONE: "done",
    Exit.FAILED: "our fault: supervisor or worker failed",
    Exit.USAGE: "the command line is wrong",
    Exit.REFUSED: "request refused, or incompatible",
    Exit.PROVIDER_UNAVAILABLE: "provider unavailable: not installed, not logged in, not ready, or failing",
    Exit.SUPERVISOR_UNAVAILABLE: "no supervisor is running, or for `serve`: one already is",
    Exit.SURVIVORS: "something survived a release",
}
EXIT_OF_CODE = {
    "supervisor_unavailable": Exit.SUPERVISOR_UNAVAILABLE,
    "already_running": Exit.SUPERVISOR_UNAVAILABLE,
    "survivors": Exit.SURVIVORS,
    "at_capacity": Exit.REFUSED,
    "memory_pressure": Exit.REFUSED,
}
EXIT_OF_FAMILY: dict[type[EndpointError], Exit] = {
    RequestError: Exit.REFUSED,
    ProviderError: Exit.PROVIDER_UNAVAILABLE,
    WorkerError: Exit.FAILED,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. A wrong command line and ``--help`` raise SystemExit."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _leave)
    options = _new_parser().parse_args(argv)
    code = _outcome(options)
    _drop_unwritable_output()
    return code


def exit_of(error: EndpointError) -> Exit:
    """The exit code of a typed error: by its code where that has one of its own, else by its family."""
    by_family = next(code for family, code in EXIT_OF_FAMILY.items() if isinstance(error, family))
    return EXIT_OF_CODE.get(error.code, by_family)


def _outcome(options: argparse.Namespace) -> int:
    try:
        code: int = options.command(options)
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        return 128 + signal.SIGPIPE
    except EndpointError as error:
        _tell(options.command_name, error.message)
        return exit_of(error)
    except Exception as error:
        _tell(options.command_name, f"{type(error).__name__}: {error}")
        return Exit.FAILED
    return code


def _tell(command_name: str, message: str) -> None:
    if os.environ.get(DEBUG_VARIABLE) == "1":
        traceback.print_exc()
    console.print_error(message if message.startswith("cannot ") else f"cannot {command_name}: {message}")


def _drop_unwritable_output() -> None:
    """What could not be written has been told; the interpreter need not try again at its end."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _leave(number: int, _: FrameType | None) -> Never:
    """End as the signal wants, by way of every ``with`` and ``finally``."""
    sys.exit(128 + number)


def _new_parser() -> argparse.ArgumentParser:
    codes = "\n".join(f"  {code:d}  {meaning}" for code, meaning in MEANINGS.items())
    parser = Parser(
        prog=console.PROGRAM,
        description="Leased, process-isolated OpenAI chat-completions endpoints over coding-agent command lines.",
        epilog=f"exit codes:\n{codes}\n  `run` exits as its command does.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=Version)
    parsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for group in GROUPS:
        group.add_parsers(parsers)
    return parser


class Parser(argparse.ArgumentParser):
    """Tells of a wrong command line in one line."""

    def error(self, message: str) -> Never:
        """Exit with code 2."""
        problem = message if message.startswith("cannot ") else f"cannot read the command line: {message}"
        console.print_error(f"{problem}; see `{self.prog} --help`")
        sys.exit(Exit.USAGE)


class Version(argparse.Action):
    """``--version``, looked up only when asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version")

    def __call__(self, *_: object) -> Never:
        """Print and exit."""
        import importlib.metadata

        print(console.PROGRAM, importlib.metadata.version("asm-endpoint"))
        sys.exit(Exit.DONE)
