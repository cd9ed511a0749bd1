"""A request that ends early takes its command line with it, whoever ends it, and whatever it waits for just then."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import psutil
import pytest

from supervisor import EndpointDescriptor, SupervisorClient
from tests.departures import TIMEOUT_S, WAYS, cancel, end_early
from tests.e2e.test_endpoint import ask, code_of, say, url
from tests.process.serving import until

pytestmark = pytest.mark.process
Make = Callable[..., EndpointDescriptor]
MOMENTS = {
    "before the first token": "[[silence]] x",
    "between tokens": "[[pause:0.01]] " + "w " * 10_000,
    "while silent": "[[stall:4]] " + "w " * 10,
}
"""Of short words: counted, a prompt is more than it is estimated at, and is so only when the answer has begun."""
CODES = {"release": (503, "lease_closed"), "cancel route": (499, "turn_cancelled")}


class Watch:
    """What can be seen of one lease without a standby: its only command line, and what its turn has used."""

    def __init__(self, client: SupervisorClient, descriptor: EndpointDescriptor, http: httpx.Client) -> None:
        self.client = client
        self.descriptor = descriptor
        self.http = http
        self.pids: set[int] = set()
        self.before = self.spent()

    def spent(self) -> int:
        """Tokens so far, estimated ones too."""
        health = self.http.get(url(self.descriptor, "/health"), headers=self.descriptor.headers).json()
        tokens: int = health["spent"]["total_tokens"]
        return tokens

    def wait_for(self, moment: str, prompt_tokens: int) -> None:
        """Until the command line is there, and, but at the first moment, has been heard of."""
        until(lambda: len(self.client.endpoint(self.descriptor).processes) == 3)
        self.pids = {process.pid for process in self.client.endpoint(self.descriptor).processes[2:]}
        if moment != "before the first token":
            until(lambda: self.spent() > self.before + prompt_tokens)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("way", WAYS)
def test_the_command_line_goes_and_the_place_is_free(
    supervisor_client: SupervisorClient, http: httpx.Client, lease: Make, way: str, moment: str, stream: bool
):
    """The next request is served at once; who still waits is told why there is no answer."""
    descriptor = lease(concurrency=1, queue_limit=0, standby=0)
    watch = Watch(supervisor_client, descriptor, http)
    prompt = MOMENTS[moment]
    answer = end_early(
        way,
        descriptor,
        say(prompt, stream=stream),
        lambda: watch.wait_for(moment, len(prompt.split())),
        lambda: supervisor_client.release_endpoint(descriptor),
    )
    assert watch.pids
    until(lambda: not any(psutil.pid_exists(pid) for pid in watch.pids))
    if way != "release":
        until(lambda: supervisor_client.endpoint(descriptor).load["in_flight"] == 0)
        assert ask(http, descriptor, "the place is free").status_code == 200
    if answer is None:
        return
    status, code = CODES[way]
    if answer.status_code == 200:
        *_, last = answer.text.strip().split("\n\n")
        assert stream
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == code
    else:
        assert (answer.status_code, code_of(answer)) == (status, code)
        if way == "cancel route":
            assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_request_that_waits_in_the_queue_is_cancelled(
    supervisor_client: SupervisorClient, http: httpx.Client, lease: Make, stream: bool
):
    """It never gets a command line, and its place in the queue is free."""
    descriptor = lease(concurrency=1, queue_limit=1)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(ask, http, descriptor, "[[pause:1]] a b c")
        until(lambda: supervisor_client.endpoint(descriptor).load["in_flight"] == 1)
        headers = {**descriptor.headers, "x-request-id": "waits"}
        body = say("x", stream=stream)
        second = threads.submit(http.post, url(descriptor), headers=headers, json=body)
        until(lambda: supervisor_client.endpoint(descriptor).load["queued"] == 1)
        assert cancel(descriptor, "waits").json() == {"id": "waits", "object": "request", "cancelled": True}
        assert (second.result(TIMEOUT_S).status_code, code_of(second.result())) == (499, "turn_cancelled")
        until(lambda: supervisor_client.endpoint(descriptor).load["queued"] == 0)
        assert first.result(TIMEOUT_S).status_code == 200


def test_what_does_not_run_cannot_be_cancelled(http: httpx.Client, lease: Make):
    """An id that nobody has, and one whose request has ended."""
    descriptor = lease()
    http.post(url(descriptor), headers={**descriptor.headers, "x-request-id": "done"}, json=say("x"))
    for request_id in ("unknown", "done"):
        refused = cancel(descriptor, request_id)
        assert (refused.status_code, code_of(refused)) == (404, "not_found")
    stranger = http.post(f"{descriptor.base_url}/requests/done/cancel", headers={"authorization": "Bearer x"})
    assert stranger.status_code == 401


def test_the_official_client_cancels_by_the_id_it_is_given(supervisor_client: SupervisorClient, lease: Make):
    """That of the stream's own headers; the rest of its stream is an error."""
    descriptor = lease()
    token = descriptor.headers["authorization"].removeprefix("Bearer ")
    with openai.OpenAI(base_url=descriptor.base_url, api_key=token, max_retries=0) as client:
        messages: Any = [{"role": "user", "content": "[[stall:1]] a b"}]
        stream = client.chat.completions.create(model="any", messages=messages, stream=True)
        next(stream), next(stream)
        request_id = stream.response.headers["x-request-id"]
        client.post(f"/requests/{request_id}/cancel", cast_to=object)
        with pytest.raises(openai.APIError) as ended:
            list(stream)
    assert ended.value.code == "turn_cancelled"
    assert request_id.startswith("req_")
