"""An ``Idempotency-Key`` on completions: one turn, one answer, however often and from wherever it is asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from supervisor import EndpointDescriptor, SupervisorClient
from tests.departures import TIMEOUT_S, cancel
from tests.e2e.test_endpoint import code_of, say, url
from tests.process.serving import until

pytestmark = pytest.mark.process
Make = Callable[..., EndpointDescriptor]


def keyed(
    http: httpx.Client, descriptor: EndpointDescriptor, key: str, body: dict[str, Any], **headers: str
) -> httpx.Response:
    """One request under a key."""
    return http.post(
        url(descriptor), headers={**descriptor.headers, "idempotency-key": key, **headers}, json=body
    )


def turns(client: SupervisorClient, descriptor: EndpointDescriptor) -> int:
    """How many turns have been begun."""
    return client.endpoint(descriptor).load["turns"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_repeat_gets_the_same_bytes_and_no_second_turn(
    supervisor_client: SupervisorClient, http: httpx.Client, lease: Make, stream: bool
):
    """Chunk for chunk, id and time included; marked as a repeat."""
    descriptor, body = lease(), say("[[pause:0.01]] one two three", stream=stream, seed=1)
    first = keyed(http, descriptor, "k", body)
    again = keyed(http, descriptor, "k", body)
    assert (first.status_code, again.status_code) == (200, 200)
    assert "three" in first.text
    assert again.content == first.content
    for name in ("content-type", "x-asm-ignored-params"):
        assert again.headers[name] == first.headers[name]
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert turns(supervisor_client, descriptor) == 1
    other = keyed(http, descriptor, "another", body)
    assert other.content != first.content


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_repeats_while_it_runs_are_one_turn(
    supervisor_client: SupervisorClient, http: httpx.Client, lease: Make, stream: bool
):
    """With one place and no queue: the repeats need none."""
    descriptor, body = lease(concurrency=1, queue_limit=0), say("[[pause:0.1]] one two three", stream=stream)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: keyed(http, descriptor, "k", body), range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert turns(supervisor_client, descriptor) == 1


def test_another_body_under_the_same_key(http: httpx.Client, lease: Make):
    """422; also when only the way of answering differs."""
    descriptor = lease()
    assert keyed(http, descriptor, "k", say("one")).status_code == 200
    for body in (say("two"), say("one", stream=True)):
        refused = keyed(http, descriptor, "k", body)
        assert (refused.status_code, code_of(refused)) == (422, "idempotency_key_reused")


def test_odd_keys(http: httpx.Client, lease: Make):
    """None, and one that is too long."""
    descriptor = lease()
    assert keyed(http, descriptor, "x" * 256, say("x")).status_code == 200
    for key in ("", "x" * 257):
        refused = keyed(http, descriptor, key, say("x"))
        assert (refused.status_code, code_of(refused)) == (400, "invalid_request")


def test_a_failure_of_a_turn_is_the_answer_and_one_before_it_is_none(
    supervisor_client: SupervisorClient, http: httpx.Client, lease: Make
):
    """The failed turn is not run again; a refusal at capacity may be tried again."""
    descriptor = lease(concurrency=1, queue_limit=0)
    failed = [keyed(http, descriptor, "fails", say("[[error:529]]")) for _ in range(2)]
    assert [(answer.status_code, code_of(answer)) for answer in failed] == [(503, "provider_overloaded")] * 2
    assert [answer.headers["x-should-retry"] for answer in failed] == ["false"] * 2
    assert turns(supervisor_client, descriptor) == 1
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(
            http.post, url(descriptor), headers=descriptor.headers, json=say("[[pause:1]] a b")
        )
        until(lambda: supervisor_client.endpoint(descriptor).load["in_flight"] == 1)
        assert code_of(keyed(http, descriptor, "k", say("later"))) == "at_capacity"
        assert running.result(TIMEOUT_S).status_code == 200
    assert keyed(http, descriptor, "k", say("later")).status_code == 200


def test_a_caller_that_lost_its_connection_gets_the_answer_of_the_turn_that_went_on(
    supervisor_client: SupervisorClient, http: httpx.Client, lease: Make
):
    """A stream breaks off; its repeat begins at the beginning, and it is still the first turn."""
    descriptor, body = lease(), say("[[pause:0.1]] one two three four", stream=True)
    headers = {**descriptor.headers, "idempotency-key": "k"}
    with http.stream("POST", url(descriptor), headers=headers, json=body) as broken:
        lines = [line for line in take(broken.iter_lines(), 4) if line]
    whole = keyed(http, descriptor, "k", body)
    assert whole.text.startswith("\n\n".join(lines))
    assert whole.text.endswith("data: [DONE]\n\n")
    assert turns(supervisor_client, descriptor) == 1


def take(lines: Iterator[str], count: int) -> Iterator[str]:
    """The first of them."""
    for _, line in zip(range(count), lines, strict=False):
        yield line


def test_everybody_leaves_and_the_turn_is_cancelled_for_good(
    supervisor_client: SupervisorClient, http: httpx.Client, lease: Make
):
    """After the time to come back; the key stands for a cancelled turn then."""
    descriptor, body = lease(), say("[[stall:1]] one two", stream=True)
    headers = {**descriptor.headers, "idempotency-key": "k"}
    with http.stream("POST", url(descriptor), headers=headers, json=body) as broken:
        list(take(broken.iter_lines(), 2))
    until(lambda: supervisor_client.endpoint(descriptor).load["in_flight"] == 0)
    refused = keyed(http, descriptor, "k", body)
    assert (refused.status_code, code_of(refused)) == (499, "turn_cancelled")
    assert turns(supervisor_client, descriptor) == 1


def test_one_of_two_leaves_and_the_other_gets_its_answer(
    supervisor_client: SupervisorClient, http: httpx.Client, lease: Make
):
    """Longer after than there is time to come back."""
    descriptor, body = lease(), say("[[pause:0.6]] " + "w " * 6, stream=True)
    headers = {**descriptor.headers, "idempotency-key": "k"}
    with ThreadPoolExecutor(1) as threads:
        with http.stream("POST", url(descriptor), headers=headers, json=body) as leaves:
            lines = leaves.iter_lines()
            next(lines)
            stays = threads.submit(keyed, http, descriptor, "k", body)
            list(take(lines, 3))
        assert stays.result(TIMEOUT_S).text.endswith("data: [DONE]\n\n")
    assert turns(supervisor_client, descriptor) == 1


def test_a_repeat_is_cancelled_by_its_own_id(
    supervisor_client: SupervisorClient, http: httpx.Client, lease: Make
):
    """And the request that it repeats with it."""
    descriptor, body = lease(), say("[[silence]] x")
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(keyed, http, descriptor, "k", body)
        until(lambda: supervisor_client.endpoint(descriptor).load["in_flight"] == 1)
        second = threads.submit(keyed, http, descriptor, "k", body, **{"x-request-id": "second"})
        until(lambda: cancel(descriptor, "second").status_code == 200)
        for answer in (first, second):
            assert code_of(answer.result(TIMEOUT_S)) == "turn_cancelled"


def test_a_large_answer_is_not_kept_and_not_made_twice(http: httpx.Client, lease: Make):
    """The first caller gets all of it; a repeat a conflict."""
    descriptor, body = lease(), say("[[burst:30000]] x", stream=True)
    first = keyed(http, descriptor, "k", body)
    assert first.text.count('"content":"w "') == 30_000
    refused = keyed(http, descriptor, "k", body)
    assert (refused.status_code, code_of(refused)) == (409, "idempotency_conflict")
    assert json.loads(refused.text)["error"]["message"]
