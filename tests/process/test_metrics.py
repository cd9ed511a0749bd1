"""What a scraper reads of a real supervisor: it is right, never goes backwards, and does not grow with the leases made."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from supervisor import EndpointDescriptor, InferenceEndpoint
from supervisor.statefolder import TOKEN_NAME
from tests.process.serving import HTTP_TIMEOUT_S, ask, until

pytestmark = pytest.mark.process
CYCLES = 300
BURN_S = 0.05
"""Several of the ticks that the kernel counts processor time in: without, a lease's may all be less than one."""
NEVER_DOWN = ("_total", "_bucket", "_count", "_sum")
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@contextmanager
def looking_often(*arguments: str) -> Iterator[InferenceEndpoint]:
    """An embedded supervisor that does."""
    with InferenceEndpoint(serve_arguments=(*arguments, "--set", "monitor_period_s=0.1")) as running:
        yield running


@pytest.fixture
def endpoint(isolation: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> Iterator[InferenceEndpoint]:
    """One in every kind of isolation, since a family's processes are found and ended by it."""
    monkeypatch.setenv("ASM_ENDPOINT_ECHO_MISBEHAVE", "1")
    with looking_often(*isolation) as running:
        yield running


def lease(endpoint: InferenceEndpoint, model: str = "any") -> EndpointDescriptor:
    """One without standby."""
    descriptor, _ = endpoint.ensure_endpoint(
        {"model_preference": {"provider": "echo", "id": model}, "stream?": True}, lease={"standby": 0}
    )
    return descriptor


def scrape(endpoint: InferenceEndpoint) -> Samples:
    """Every sample, by name and labels."""
    token = (endpoint.home / TOKEN_NAME).read_text().strip()
    answer = httpx.get(
        f"{endpoint.url}/metrics",
        headers={"authorization": f"Bearer {token}"},
        timeout=HTTP_TIMEOUT_S,
        trust_env=False,
    )
    assert answer.status_code == 200
    return {
        (sample.name.removeprefix("asm_endpoint_"), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    """One of them."""
    return samples[name, frozenset(labels.items())]


def test_a_lease_s_life_in_numbers(endpoint: InferenceEndpoint):
    """Start, turns, tokens, time to the first delta, memory and processor time, stop."""
    descriptor = lease(endpoint)
    assert ask(descriptor, f"[[burn:{BURN_S}]] three little words").status_code == 200
    samples = until(
        lambda: value(found := scrape(endpoint), "lease_cpu_seconds", slot="0", provider="echo") and found
    )
    for name in ("requests_total", "turns_total", "first_delta_seconds_count"):
        assert value(samples, name, provider="echo") == 1
    assert value(samples, "failures_total", provider="echo") == 0
    assert value(samples, "completion_tokens_total", provider="echo") == 3
    assert value(samples, "cli_seconds_total", provider="echo") > 0
    assert value(samples, "leases", state="ready") == 1
    assert value(samples, "lease_start_seconds_count") == 1
    assert value(samples, "lease_processes", slot="0", provider="echo") >= 2
    assert value(samples, "lease_memory_bytes", slot="0", provider="echo") > 0
    assert value(samples, "monitor_look_seconds_count") > 0
    assert value(samples, "http_requests_total", route="/v1/endpoints", status="2xx") == 1
    assert value(samples, "supervisor_process_open_fds") > 0
    endpoint.release_endpoint(descriptor)
    after = scrape(endpoint)
    assert all(after[key] >= before for key, before in samples.items() if key[0].endswith(NEVER_DOWN))
    assert value(after, "completion_tokens_total", provider="echo") == 3
    assert value(after, "lease_ends_total", cause="released") == 1
    assert value(after, "lease_stop_seconds_count") == 1
    assert not [name for name, labels in after if dict(labels).get("slot")]
    assert [value(after, name) for name in ("release_survivors_total", "zygote_restarts_total")] == [0, 0]


def test_three_hundred_leases_add_no_series():
    """Each of a model of its own; one stays open, so that slots are seen too. No series is of a kind of isolation."""
    with looking_often() as endpoint:
        lease(endpoint)
        endpoint.release_endpoint(lease(endpoint, "first"))
        scrape(endpoint)  # has a series of its own, after the answer
        before = scrape(endpoint)
        for number in range(CYCLES):
            endpoint.release_endpoint(lease(endpoint, f"model-{number}"))
        after = scrape(endpoint)
    assert set(after) == set(before)
    assert value(after, "lease_ends_total", cause="released") == CYCLES + 1
    assert all(after[key] >= number for key, number in before.items() if key[0].endswith(NEVER_DOWN))


def test_a_lost_zygote_is_counted(endpoint: InferenceEndpoint):
    """And so are the ends of its leases."""
    descriptor = lease(endpoint)
    zygote = psutil.Process(endpoint.endpoint(descriptor).processes[0].pid).parent()
    os.kill(zygote.pid, signal.SIGKILL)
    until(lambda: value(scrape(endpoint), "zygote_restarts_total") == 1)
    until(lambda: value(scrape(endpoint), "lease_ends_total", cause="crashed") == 1)


def test_an_adopted_lease_is_counted_and_its_past_is_not(isolation: tuple[str, ...], tmp_path: Path):
    """A supervisor's counters begin with it."""
    with InferenceEndpoint(tmp_path, serve_arguments=isolation) as first:
        descriptor = lease(first)
        assert ask(descriptor, "three little words").status_code == 200
        os.kill(first.pid, signal.SIGKILL)
        with InferenceEndpoint(tmp_path, serve_arguments=isolation) as second:
            assert ask(descriptor, "two words").status_code == 200
            samples = scrape(second)
            assert value(samples, "adoptions_total") == 1
            assert value(samples, "leases", state="ready") == 1
            assert 2 <= value(samples, "completion_tokens_total", provider="echo") <= 5
