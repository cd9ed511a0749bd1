"""A supervisor of one's own: started for one program, on a private state folder, and gone with it."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from shared.errors import WorkerError
from shared.logs import message_of
from supervisor.client import SupervisorClient
from supervisor.settings import DEFAULT_HOST
from supervisor.statefolder import StateFolder

END_WAIT_S = 60.0
"""For the embedded supervisor to end all its leases."""
LOG_NAME = "supervisor.log"
LOG_BYTES = 1024 * 1024


class InferenceEndpoint(SupervisorClient):
    """An embedded supervisor and its client in one; a context manager.

    ::

        with InferenceEndpoint() as endpoint:
            descriptor, compatibility = endpoint.ensure_endpoint(
                {"model_preference": {"provider": "echo", "id": "any"}}
            )

    The supervisor holds our end of a pipe: when this process ends, however it ends, so does the supervisor with all
    its leases. ``home`` names a state folder to keep; by default it is temporary.
    """

    def __init__(self, home: Path | None = None, *, serve_arguments: tuple[str, ...] = ()) -> None:
        self._stack = contextlib.ExitStack()
        self.home = home or Path(
            self._stack.enter_context(
                tempfile.TemporaryDirectory(prefix="asm-endpoint-", ignore_cleanup_errors=True)
            )
        )
        folder = StateFolder(self.home)
        token = folder.admin_token()
        with socket.create_server((DEFAULT_HOST, 0)) as listener, open(self.home / LOG_NAME, "a+b") as log:
            url = "http://{}:{}".format(*listener.getsockname()[:2])
            self._process = subprocess.Popen(
                (
                    sys.executable, "-P", "-m", "supervisor", "serve", "--home", str(self.home),
                    "--fd", str(listener.fileno()), "--until-stdin-closes", "--log-bytes", str(LOG_BYTES),
                    *serve_arguments,
                ),
                pass_fds=(listener.fileno(),),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )  # fmt: skip
        super().__init__(url, token)
        try:
            self.consumer_manifest()
        except WorkerError as error:
            cause = self._log_tail()
            self.close()
            raise WorkerError("boot_failed", f"cannot start a supervisor: {cause}") from error

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        return self._process.pid

    def close(self) -> None:
        """End every lease and the supervisor, and wait for it; SIGKILL after 60 s. Safe to call twice."""
        super().close()
        if self._process.stdin and not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            self._process.wait(END_WAIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stack.close()

    def _log_tail(self) -> str:
        with contextlib.suppress(OSError):
            lines = (self.home / LOG_NAME).read_text(errors="replace").strip().splitlines()
            return message_of(lines[-1]) if lines else "it printed nothing"
        return "it left no log"
