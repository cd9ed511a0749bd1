"""``run``: a lease for exactly as long as one command runs.

Signals that ask the command to end are held here and waited for together with its end, so none of them can come
between: they are passed on, and the lease is released whatever happens. What the keyboard sends reaches the command
by itself, because both are in the terminal's foreground group; it is not sent twice.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from shared.contracts import MAX_TTL_S, EndpointDescriptor, LeaseOptions
from shared.errors import EndpointError, RequestError, WorkerError
from supervisor import console
from supervisor.commands import wording
from supervisor.commands.options import (
    Parsers,
    add_home,
    add_lease_options,
    add_parser,
    add_request,
    lease_options,
    request,
)

if TYPE_CHECKING:
    from supervisor.client import SupervisorClient

FORWARDED = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
HELD = FORWARDED | {signal.SIGCHLD}
IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
"""Which the command must get with their defaults."""
AS_LONG_AS_WE_RUN = LeaseOptions(ttl_s=MAX_TTL_S, idle_timeout_s=MAX_TTL_S)
NOT_EXECUTABLE = 126
NOT_FOUND = 127


def add_parsers(parsers: Parsers) -> None:
    """Add ``run``."""
    parser = add_parser(
        parsers,
        "run",
        run,
        "run a command with OPENAI_BASE_URL and OPENAI_API_KEY of a lease of its own",
        usage="%(prog)s [options] --provider PROVIDER --model MODEL -- COMMAND ...",
        epilog="Exits as the command does: its code, 128+N when signal N ended it, 127 not found, 126 not executable. "
        "The lease ends with the command (or after 7 days, or what a token's limit allows; --ttl-s and "
        "--idle-timeout-s set other bounds), and with this process. It is the running supervisor's, or that of one "
        "started for it.",
    )
    add_home(parser)
    add_request(parser)
    add_lease_options(parser, AS_LONG_AS_WE_RUN)
    parser.add_argument("argv", nargs=argparse.REMAINDER, metavar="COMMAND", help="after --")
    parser.set_defaults(parser=parser)


def run(options: argparse.Namespace) -> int:
    """Lease, run, release. Raises what leasing raises, and SurvivorsError for a command that went well."""
    options.owner_pid = options.owner_pid or os.getpid()
    argv = options.argv[1:] if options.argv[:1] == ["--"] else options.argv
    if not argv:
        options.parser.error("a command is required after --")
    with console.progress("looking for a supervisor ..."):
        client = _running_or_embedded(options.home)
    with client:
        with console.progress(f"leasing {options.provider} {options.model} ..."):
            descriptor = _lease(client, options)
        with _signals_held() as mask:
            environ = {name: value for name, value in os.environ.items() if name != "ASM_ENDPOINT_TOKEN"}
            code = _run_command(argv, {**environ, **wording.variables(descriptor)}, mask)
            try:
                client.release_endpoint(descriptor)
            except EndpointError as error:
                if not code:
                    raise
                console.print_error(error.message)
    return code


def _running_or_embedded(home: Path | None) -> SupervisorClient:
    from supervisor.client import URL_VARIABLE, SupervisorClient
    from supervisor.embedded import InferenceEndpoint

    with contextlib.ExitStack() as stack:
        try:
            client = stack.enter_context(SupervisorClient.from_home(home))
            client.consumer_manifest()
        except WorkerError as error:
            is_named = home is None and URL_VARIABLE in os.environ
            if error.code != "supervisor_unavailable" or is_named:
                raise
            return InferenceEndpoint()
        stack.pop_all()
        return client


def _lease(client: SupervisorClient, options: argparse.Namespace) -> EndpointDescriptor:
    """As the options say; where nobody named a time to live, for as long as this caller may."""
    wanted = lease_options(options)
    try:
        return client.ensure_endpoint(request(options), lease=wanted)[0]
    except RequestError as error:
        longest = error.details.get("max_ttl_s")
        if longest is None or wanted["ttl_s"] != AS_LONG_AS_WE_RUN.ttl_s:
            raise
    return client.ensure_endpoint(request(options), lease={**wanted, "ttl_s": longest})[0]


@contextlib.contextmanager
def _signals_held() -> Iterator[set[int]]:
    """Block the signals we wait for; gives the mask there was.

    A request to end that comes after the command's end asks for what is being done anyway, and is dropped.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    before: set[int] = set(signal.pthread_sigmask(signal.SIG_BLOCK, HELD))
    try:
        yield before
    finally:
        while signal.sigtimedwait(HELD, 0):
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run_command(argv: list[str], environ: Mapping[str, str], mask: set[int]) -> int:
    try:
        pid = os.posix_spawnp(argv[0], argv, environ, setsigmask=mask, setsigdef=IGNORED_BY_PYTHON)
    except OSError as error:
        console.print_error(f"cannot run {argv[0]}: {error.strerror}")
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
    code = _wait(pid)
    return 128 - code if code < 0 else code


def _wait(pid: int) -> int:
    """The command's exit code, minus N for signal N; until then, pass on what other processes send us."""
    while True:
        received = signal.sigwaitinfo(HELD)
        if received.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
        elif (
            received.si_code <= 0
        ):  # SI_USER and its like; the terminal's are the kernel's, which are positive
            os.kill(pid, received.si_signo)
