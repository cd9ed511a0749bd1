"""What one request costs the endpoint itself, against the same answer from a bare Falcon route under plain gunicorn."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from supervisor import InferenceEndpoint
from tests.bench.measure import report
from tests.e2e.wire import Target, lease_target, read_answer

pytestmark = pytest.mark.bench
REQUESTS = 400
RUNS = 10
START_S = 30.0
MOST = 4.0
"""Ids, log line, token, Host, limits and OpenAI's headers may cost so many times what answering costs at all."""
BARE = """
import json, sys
import falcon.asgi
from gunicorn.app.base import BaseApplication

class Models:
    async def on_get(self, req, resp):
        resp.media = {"object": "list", "data": [{"id": "any", "object": "model", "created": 1, "owned_by": "x"}]}

class Server(BaseApplication):
    def load_config(self):
        for name, value in {"bind": f"fd://{sys.argv[1]}", "worker_class": "asgi", "asgi_loop": "asyncio",
                            "control_socket_disable": True, "loglevel": "warning", "keepalive": 75}.items():
            self.cfg.set(name, value)
    def load(self):
        app = falcon.asgi.App()
        app.add_route("/v1/models", Models())
        return app

Server().run()
"""


@contextlib.contextmanager
def bare_server() -> Iterator[tuple[Target, psutil.Process]]:
    """The same web server and framework, with nothing of ours."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd, port = listener.fileno(), listener.getsockname()[1]
        process = subprocess.Popen((sys.executable, "-c", BARE, str(fd)), pass_fds=(fd,))
        try:
            target = Target(name="bare", port=port, token="none", get="/v1/models", post="")
            target.ask(target.head("GET", target.get))
            (worker,) = psutil.Process(process.pid).children()
            yield target, worker
        finally:
            process.terminate()
            process.wait(START_S)


def processor_s(target: Target, worker: psutil.Process) -> float:
    """Processor time of the serving process for many requests on one connection, in turn."""
    before = worker.cpu_times()
    head = target.head("GET", target.get)
    with target.connection() as made:
        for _ in range(REQUESTS):
            made.sendall(head)
            answer = read_answer(made)
    after = worker.cpu_times()
    assert json.loads(answer.body)["data"][0]["id"] == "any"
    return after.user + after.system - before.user - before.system


def test_a_request_costs_little_more_than_answering_it(endpoint: InferenceEndpoint):
    """The list of models, on a kept connection: all that every request goes through, and no command line."""
    descriptor, _ = endpoint.ensure_endpoint(
        {"model_preference": {"provider": "echo", "id": "any"}}, lease={"standby": 0}
    )
    lease = lease_target(descriptor)
    pids = {row.pid for row in endpoint.endpoint(descriptor).processes}
    (ours,) = (process for process in map(psutil.Process, pids) if process.ppid() in pids)
    with bare_server() as (bare, plain):
        runs = [(processor_s(lease, ours), processor_s(bare, plain)) for _ in range(RUNS)]
    endpoint.release_endpoint(descriptor)
    ours_s, bare_s = (sum(column) / (RUNS * REQUESTS) for column in zip(*runs, strict=True))
    detail = (
        f"{ours_s * 1e6:.0f} us of processor time a request, {bare_s * 1e6:.0f} us without anything of ours"
    )
    report("one request, against a bare route", detail, ours_s / bare_s, f"<= {MOST:g}")
    assert ours_s <= MOST * bare_s
