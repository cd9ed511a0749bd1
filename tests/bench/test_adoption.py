"""Streams while their supervisor is killed and started again, or hands over to the next one: none may break."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shared import processes
from supervisor import SupervisorClient
from tests.bench.measure import report
from tests.process.serving import ECHO, Reader, serving, until, words

pytestmark = pytest.mark.bench
STREAMS, LEASES = 20, 5
WORDS, PAUSE_S = 100, 0.1


def open_streams(client: SupervisorClient) -> list[Reader]:
    """Twenty clients on five leases, each in the middle of its answer."""
    with ThreadPoolExecutor(LEASES) as threads:
        made = list(threads.map(lambda _: client.ensure_endpoint(ECHO, lease={"standby": 0}), range(LEASES)))
    readers = [Reader(made[number % LEASES][0], words(WORDS, PAUSE_S)) for number in range(STREAMS)]
    until(lambda: all('"content":"w0' in reader.received for reader in readers))
    return readers


@pytest.mark.parametrize("how", ["killed", "taken over"])
def test_no_stream_breaks(tmp_path: Path, how: str):
    """Twenty of them, all whole; and every lease is adopted."""
    with serving(tmp_path) as held:
        with held.client() as client:
            readers = open_streams(client)
        old = held.process
        assert old is not None
        if how == "killed":
            inner = held.inner
            held.kill()
            until(lambda: not processes.is_alive(inner))
            held.start()
        else:
            held.start("--take-over")
            assert old.wait(60) == 0
        is_early = all(reader.is_alive() for reader in readers)
        whole = sum(is_whole(reader) for reader in readers)
        with held.client() as client:
            adopted = sum(view.state == "ready" for view in client.endpoints())
    broken = STREAMS - whole
    report(f"streams broken of {STREAMS}, supervisor {how}", f"{adopted} leases adopted", broken, "<= 0")
    assert is_early, "all streams ended before the supervisor was back"
    assert (broken, adopted) == (0, LEASES)


def is_whole(reader: Reader) -> bool:
    """Whether every word has come, and the end."""
    return reader.is_complete and f'"content":"w{WORDS - 1}"' in reader.received
