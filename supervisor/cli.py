"""The command line (temporary minimal serve)."""

from __future__ import annotations

import argparse
import os
import socket
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="asm-endpoint")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve")
    serve.add_argument("--home", type=Path)
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=int, default=0)
    serve.add_argument("--fd", type=int)
    serve.add_argument("--until-stdin-closes", action="store_true")
    options = parser.parse_args(argv)
    from supervisor.serve import bind
    from supervisor.serve import serve as run
    from supervisor.settings import Settings, state_home

    home = options.home or state_home(os.environ)
    listener = (
        socket.socket(fileno=options.fd) if options.fd is not None else bind(options.host, options.port)
    )
    run(Settings(home=home), listener, until_stdin_closes=options.until_stdin_closes)
    return 0
