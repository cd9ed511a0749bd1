"""Fifty streams at once on one lease: all of them move, and one more is answered by the queue's rules."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from supervisor import EndpointDescriptor, SupervisorClient
from tests.departures import TIMEOUT_S
from tests.e2e.test_endpoint import ask, code_of, say, url
from tests.process.serving import until

pytestmark = pytest.mark.process
Make = Callable[..., EndpointDescriptor]
STREAMS = 50
WORDS = 20
ENDLESS = "[[stall:2]] a b c"


def read(descriptor: EndpointDescriptor, http: httpx.Client, everybody_has_begun: threading.Barrier) -> str:
    """One stream's text; after its first word it waits until every other one has its first word, too."""
    text = ""
    body = say("[[pause:0.05]] " + "w " * WORDS, stream=True)
    with http.stream("POST", url(descriptor), headers=descriptor.headers, json=body) as answer:
        for line in answer.iter_lines():
            if not line.startswith("data: {"):
                continue
            piece = json.loads(line.removeprefix("data: "))["choices"][0]["delta"].get("content", "")
            if piece and not text:
                everybody_has_begun.wait(TIMEOUT_S)
            text += piece
    return text


def test_fifty_streams_at_once_and_none_is_starved(http: httpx.Client, lease: Make):
    """Each has its first word before any has its second, and all come to their end."""
    descriptor = lease(concurrency=STREAMS, queue_limit=0, standby=0)
    everybody_has_begun = threading.Barrier(STREAMS)
    with ThreadPoolExecutor(STREAMS) as threads:
        texts = list(threads.map(lambda _: read(descriptor, http, everybody_has_begun), range(STREAMS)))
    assert texts == ["w " * WORDS] * STREAMS


@pytest.mark.parametrize("queue_limit", [0, 1])
def test_one_more_is_answered_by_the_rules_of_the_queue(
    supervisor_client: SupervisorClient, http: httpx.Client, lease: Make, queue_limit: int
):
    """Without a queue, 429 and when to come back; in a queue, its turn as soon as one of the others has ended."""
    descriptor = lease(concurrency=STREAMS, queue_limit=queue_limit, standby=0)
    streams = [
        http.stream("POST", url(descriptor), headers=descriptor.headers, json=say(ENDLESS, stream=True))
        for _ in range(STREAMS)
    ]
    with ThreadPoolExecutor(STREAMS + 1) as threads:
        list(threads.map(lambda stream: stream.__enter__(), streams))
        until(lambda: supervisor_client.endpoint(descriptor).load["in_flight"] == STREAMS)
        if queue_limit:
            waits = threads.submit(ask, http, descriptor, "x")
            until(lambda: supervisor_client.endpoint(descriptor).load["queued"] == 1)
            assert code_of(ask(http, descriptor, "x")) == "at_capacity"
            streams.pop().__exit__(None, None, None)
            assert waits.result(TIMEOUT_S).status_code == 200
        else:
            refused = ask(http, descriptor, "x")
            assert (refused.status_code, code_of(refused)) == (429, "at_capacity")
            assert int(refused.headers["retry-after"]) >= 1
        for stream in streams:
            stream.__exit__(None, None, None)
    until(lambda: supervisor_client.endpoint(descriptor).load["in_flight"] == 0)
