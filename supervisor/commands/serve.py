"""``serve``: a supervisor in the foreground, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
import time
import typing

import msgspec

from shared import logs
from shared.errors import WorkerError
from shared.hardening import Hardening
from shared.loopback import is_loopback_address
from supervisor import console
from supervisor.commands.options import Parsers, add_harden, add_home, add_parser, usage_of

if typing.TYPE_CHECKING:
    from supervisor.settings import Settings

MAX_PORT = 65_535
LEAVE_POLL_S = 0.02


def add_parsers(parsers: Parsers) -> None:
    """Add ``serve``."""
    parser = add_parser(parsers, "serve", serve, "run a supervisor until SIGTERM or Ctrl-C")
    add_home(parser)
    parser.add_argument(
        "--host", type=_host, default="127.0.0.1", help="loopback address (default: %(default)s)"
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=0,
        help="0 to 65535 (default: 0, that of a supervisor before this one, or any free one)",
    )
    parser.add_argument(
        "--no-namespaces",
        action="store_true",
        help="use process groups even where PID namespaces are allowed",
    )
    parser.add_argument(
        "--management-mode",
        action="append",
        dest="management_modes",
        metavar="MODE",
        help="publish this management mode, first one first (repeatable; default: jido_managed)",
    )
    parser.add_argument(
        "--cors-origin",
        action="append",
        default=[],
        dest="cors_origins",
        metavar="URL",
        help="let web pages of this origin use supervisor and leases, with a token (repeatable; default: none)",
    )
    add_harden(parser, "lock command lines in")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="assignments",
        metavar="NAME=NUMBER",
        help="change a limit, e.g. first_output_s=60 (repeatable; an unknown name lists all of them)",
    )
    parser.add_argument(
        "--log-format",
        choices=typing.get_args(logs.Format),
        help="form of log lines (default: console on a terminal, otherwise json)",
    )
    parser.add_argument(
        "--log-level",
        choices=typing.get_args(logs.Level),
        default="info",
        help="log nothing below this level (default: %(default)s)",
    )
    parser.add_argument(
        "--log-content",
        action="store_true",
        help="log prompts and answers too; never secrets (default: neither)",
    )
    parser.add_argument(
        "--log-bytes",
        type=_bytes,
        metavar="N",
        help="where stderr appends to a file, let its older half go when it is longer (default: it may grow)",
    )
    parser.add_argument(
        "--fd", type=int, metavar="N", help="serve on this inherited listening socket instead"
    )
    parser.add_argument("--until-stdin-closes", action="store_true", help="end when stdin does")
    parser.add_argument(
        "--take-over",
        action="store_true",
        help="have a supervisor that runs on this state folder leave its leases to this one",
    )
    parser.set_defaults(parser=parser)


def serve(options: argparse.Namespace) -> int:
    """Serve. Raises WorkerError ``already_running`` or ``hardening_unavailable``."""
    from supervisor.statefolder import StateFolder

    os.umask(0o077)
    with usage_of(options.parser):
        settings = _settings(options)
    folder = StateFolder(settings.home)
    last_port = folder.last_port()
    if options.take_over:
        _ask_to_leave(settings)
    lock = folder.lock()
    try:
        return _serve_locked(options, settings, last_port)
    finally:
        os.close(lock)


def _serve_locked(options: argparse.Namespace, settings: Settings, last_port: int) -> int:
    # Imported only now: whoever looks for us from here on sees the lock, and waits.
    from supervisor.serve import serve as serve_on

    listener = _listener(options, last_port)
    us = os.getpid()
    try:
        serve_on(settings, listener, until_stdin_closes=options.until_stdin_closes)
    except SystemExit as end:
        if end.code and os.getpid() == us:  # not in the server's own child, whose code gunicorn reads
            raise WorkerError(
                "boot_failed", "cannot serve: the server failed, as its log above says"
            ) from end
        raise
    return 0


def _settings(options: argparse.Namespace) -> Settings:
    """What the options set. Raises RequestError: no such setting, lock or origin."""
    from supervisor.publication import DEFAULT_MANAGEMENT_MODES
    from supervisor.settings import EMBEDDED_ADOPT_GRACE_S, Settings, changed, state_home

    modes = tuple(options.management_modes or DEFAULT_MANAGEMENT_MODES)
    log = logs.LogSettings(
        format=options.log_format or ("console" if console.is_terminal(sys.stderr) else "json"),
        level=options.log_level,
        content=options.log_content,
        max_bytes=options.log_bytes,
    )
    settings = Settings(
        home=options.home or state_home(os.environ),
        namespaces=not options.no_namespaces,
        management_modes=modes,
        hardening=_hardening(options.locks),
        cors_origins=_origins(options.cors_origins),
        log=log,
    )
    if options.until_stdin_closes:
        settings = msgspec.structs.replace(settings, adopt_grace_s=EMBEDDED_ADOPT_GRACE_S)
    return changed(settings, options.assignments)


def _hardening(words: list[str]) -> Hardening:
    if not words:
        return Hardening()
    from supervisor.hardening import read_hardening

    return read_hardening(words)


def _origins(texts: list[str]) -> tuple[str, ...]:
    if not texts:
        return ()
    from shared.cors import read_origin

    return tuple(map(read_origin, texts))


def _listener(options: argparse.Namespace, last_port: int) -> socket.socket:
    """On the port that is asked for; else on that of a supervisor before us, where its callers look, if it is free."""
    from supervisor.serve import bind

    if options.fd is not None:
        return socket.socket(fileno=options.fd)
    if not options.port and last_port:
        with contextlib.suppress(WorkerError):
            return bind(options.host, last_port)
    return bind(options.host, options.port)


def _ask_to_leave(settings: Settings) -> None:
    """Have the one that serves end without its leases, and wait for it. Raises WorkerError: it does not.

    When none serves, there is nothing to ask; and nobody is asked to make room for one that could not serve.
    """
    from supervisor.client import SupervisorClient
    from supervisor.hardening import require_available
    from supervisor.statefolder import StateFolder

    wait_s = settings.take_over_s
    folder = StateFolder(settings.home)
    if address := folder.read_address():
        require_available(settings.hardening, settings.home)
        with SupervisorClient(address.url, folder.read_token(), timeout_s=wait_s) as running:
            running.leave()
        deadline = time.monotonic() + wait_s
        while address.is_served:
            if time.monotonic() > deadline:
                raise WorkerError(
                    "already_running",
                    f"cannot take over: supervisor {address.pid} has not left in {wait_s:g} s",
                )
            time.sleep(LEAVE_POLL_S)


def _host(text: str) -> str:
    if not is_loopback_address(text):
        raise argparse.ArgumentTypeError(f"cannot listen on {text}: only loopback addresses are allowed")
    return text


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) <= MAX_PORT):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: 0 to {MAX_PORT}")
    return int(text)


def _bytes(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes")
    return int(text)
