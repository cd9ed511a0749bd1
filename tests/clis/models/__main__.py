"""The scripted model server by hand: ``python -m tests.clis.models --port 0``."""

from __future__ import annotations

import argparse
import signal

from tests.clis.models.server import ModelServer


def main() -> None:
    """Serve by hand until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="A scripted model server; see the markers in this file.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    port = parser.parse_args().port
    stop_signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals)
    with ModelServer(port) as server:
        print(f"LISTENING {server.base_url}", flush=True)
        signal.sigwait(stop_signals)


if __name__ == "__main__":
    main()
