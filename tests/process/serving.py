"""A supervisor as an operator runs it, on a state folder that outlives it: started, killed, started again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec

from shared import processes
from shared.processes import ProcessId
from supervisor import EndpointDescriptor, SupervisorClient
from supervisor.statefolder import StateFolder
from supervisor.zygotes import IDENTITY_NAME, Identity

WAIT_S = 60.0
POLL_S = 0.02
HTTP_TIMEOUT_S = 60.0
ECHO = {"model_preference": {"provider": "echo", "id": "any"}}


class Serving:
    """One ``asm-endpoint serve`` at a time on one state folder."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self.home = home
        self.arguments = arguments
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str, wait: bool = True) -> subprocess.Popen[bytes]:
        """Start one, and wait until it is ready."""
        log = (self.home / "serve.log").open("ab")
        with log:
            started = subprocess.Popen(
                (
                    sys.executable, "-P", "-m", "supervisor", "serve", "--home", str(self.home),
                    *self.arguments, *arguments,
                ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "ASM_ENDPOINT_ECHO_MISBEHAVE": "1"},
            )  # fmt: skip
        if wait:
            until(lambda: self.is_ready(started) or started.poll() is not None)
            assert started.poll() is None, self.log()
        self.process = started
        return started

    def is_ready(self, started: subprocess.Popen[bytes]) -> bool:
        """Whether that process has said where it is."""
        address = StateFolder(self.home).read_address()
        return address is not None and address.pid == started.pid

    def log(self) -> str:
        """What all of them have written."""
        return (self.home / "serve.log").read_text()

    def client(self) -> SupervisorClient:
        """A client of the running one."""
        return SupervisorClient.from_home(self.home)

    @property
    def pid(self) -> int:
        """Of the running one: gunicorn's arbiter."""
        assert self.process is not None
        return self.process.pid

    @property
    def inner(self) -> ProcessId:
        """Of gunicorn's worker below it, which does the work."""
        (worker,) = self.workers()
        return worker

    def workers(self) -> list[ProcessId]:
        """All that gunicorn has now: none while it starts one again."""
        rows = processes.table().values()
        below = [row for row in rows if row.ppid == self.pid and not row.is_zombie]
        return [row.id for row in below if is_serving(row.id.pid)]

    @property
    def zygote(self) -> ProcessId:
        """As the state folder says."""
        content = (self.home / IDENTITY_NAME).read_bytes()
        return msgspec.json.decode(content, type=Identity).process

    def find_zygote(self) -> ProcessId | None:
        """The one that lives, if one does now."""
        with contextlib.suppress(OSError):
            return self.zygote if processes.is_alive(self.zygote) else None
        return None

    def kill(self) -> None:
        """As the kernel would, or an operator in a hurry."""
        assert self.process is not None
        self.process.kill()
        self.wait()

    def wait(self) -> int:
        """For the end of the running one; returns the exit code."""
        assert self.process is not None
        return self.process.wait(WAIT_S)

    def kill_wholly(self) -> None:
        """The same, and wait for its worker process, which dies with it."""
        inner = self.inner
        self.kill()
        until(lambda: not processes.is_alive(inner))

    def end(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.wait()

    def close(self) -> None:
        """End whatever is left, the zygote too."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.end()
            if self.process.poll() is None:
                self.kill()
        with contextlib.suppress(OSError):
            zygote = self.zygote
            if processes.is_alive(zygote):
                os.kill(zygote.pid, signal.SIGTERM)
                until(lambda: not processes.is_alive(zygote))


@contextlib.contextmanager
def serving(home: Path, *arguments: str) -> Iterator[Serving]:
    """A running supervisor, ended afterwards."""
    held = Serving(home, *arguments)
    try:
        held.start()
        yield held
    finally:
        held.close()


def is_serving(pid: int) -> bool:
    """Whether a process below the arbiter is the supervisor itself, and not the zygote that it started."""
    with contextlib.suppress(OSError):
        return b"worker.zygote" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


class Reader(threading.Thread):
    """Reads one stream to its end, beside whatever happens meanwhile."""

    def __init__(self, descriptor: EndpointDescriptor, text: str) -> None:
        super().__init__(daemon=True)
        self._descriptor = descriptor
        self._text = text
        self.received = ""
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        """Read."""
        body = {"messages": [{"role": "user", "content": self._text}], "stream": True}
        url = f"{self._descriptor.base_url}/chat/completions"
        try:
            with httpx.stream(
                "POST",
                url,
                headers=self._descriptor.headers,
                json=body,
                timeout=HTTP_TIMEOUT_S,
                trust_env=False,
            ) as answer:
                for text in answer.iter_text():
                    self.received += text
        except httpx.HTTPError as error:
            self.error = error

    def finish(self) -> str:
        """All that came; fails when the stream has not ended."""
        self.join(WAIT_S)
        assert not self.is_alive(), "the stream has not ended"
        return self.received

    @property
    def is_complete(self) -> bool:
        """Whether the answer came to its regular end, after waiting for it."""
        return self.finish().endswith("data: [DONE]\n\n") and self.error is None


def lease(client: SupervisorClient, **options: object) -> EndpointDescriptor:
    """One echo lease without a standby."""
    return client.ensure_endpoint(ECHO, lease={"standby": 0, **options})[0]


def words(count: int, pause_s: float) -> str:
    """A prompt whose answer takes its time."""
    return f"[[pause:{pause_s}]] " + " ".join(f"w{number}" for number in range(count))


def ask(
    descriptor: EndpointDescriptor, text: str, headers: dict[str, str] | None = None, **more: Any
) -> httpx.Response:
    """One completion; ``more`` goes into the body."""
    return httpx.post(
        f"{descriptor.base_url}/chat/completions",
        headers={**descriptor.headers, **(headers or {})},
        json={"messages": [{"role": "user", "content": text}], **more},
        timeout=HTTP_TIMEOUT_S,
        trust_env=False,
    )


def family_of(client: SupervisorClient, descriptor: EndpointDescriptor) -> list[ProcessId]:
    """Leader first."""
    return [ProcessId(row.pid, row.start_ticks) for row in client.endpoint(descriptor).processes]


def until(condition: Callable[[], Any]) -> Any:
    """The first true value of ``condition``, within a bound."""
    deadline = time.monotonic() + WAIT_S
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(POLL_S)
    return value
