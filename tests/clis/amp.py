"""Stand-ins for amp's service, which is proprietary: a stub of amp itself, and a service that refuses the real one."""

from __future__ import annotations

import http.server
import stat
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from supervisor import EndpointDescriptor, InferenceEndpoint
from tests.clis.netns import is_loopback_only
from tests.clis.table import MODULES

EXECUTABLE = "@ampcode/cli-linux-*/amp"
STUB = Path(__file__).with_name("amp_stub.py")


def write_stub(folder: Path) -> Path:
    """An executable that prints amp's documented lines."""
    path = folder / "amp"
    path.write_text(f"#!{sys.executable} -IS\n{STUB.read_text()}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def find_amp() -> Path:
    """The pinned native binary; a skip without it, which CI does not allow."""
    if not is_loopback_only():
        pytest.skip("real command lines run only in a loopback-only network, and none is permitted here")
    found = sorted(MODULES.glob(EXECUTABLE))
    if not found:
        pytest.skip("amp is not installed; `make clis` installs it where npm is there")
    return found[0]


def serve(
    executable: Path, home: Path, arguments: tuple[str, ...] = (), **variables: str
) -> InferenceEndpoint:
    """A supervisor with that amp."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("AMP_API_KEY", raising=False)
        patch.setenv("HOME", str(home))
        patch.setenv("AMP_CLI_PATH", str(executable))
        for name, value in variables.items():
            patch.setenv(name, value)
        return InferenceEndpoint(serve_arguments=("--set", "status_hold_s=60", *arguments))


def lease_of(endpoint: InferenceEndpoint, mode: str = "default") -> EndpointDescriptor:
    """A lease of a mode."""
    descriptor, _ = endpoint.ensure_endpoint({"model_preference": {"provider": "amp", "id": mode}})
    return descriptor


class RefusingService:
    """Answers everything with one status; ``first_contact_s`` is when it was first asked, by ``perf_counter``."""

    def __init__(self, status: int) -> None:
        self.first_contact_s: float | None = None
        service = self

        class Refuse(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.first_contact_s = service.first_contact_s or time.perf_counter()
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
