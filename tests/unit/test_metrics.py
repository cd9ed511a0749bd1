"""The metrics as a scraper reads them: what is, what was, nothing that goes backwards, nothing that grows for ever."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import prometheus_client
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from shared import provider
from shared.contracts import LeaseOptions
from shared.processes import ProcessId, ProcessRow
from shared.scoreboard import TTFD_BUCKETS_MS, Totals
from supervisor.lease import Cause, Step
from supervisor.leasemetrics import NOW, TTFD_FIELDS, USED
from supervisor.metrics import UNROUTED, Metrics
from supervisor.table import LeaseRecord, LeaseTable

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
CYCLES = 300
numbers = itertools.count()


def record(chosen: str = "echo", **used: int) -> LeaseRecord:
    """A lease that has used so much."""
    made = LeaseRecord(
        lease_ref=f"lease_{next(numbers)}",
        endpoint_id="endpoint_1",
        owner="admin",
        provider=chosen,
        model=f"model_{next(numbers)}",
        consumer=None,
        options=LeaseOptions(),
        lease_dir="/nowhere",
        base_url="http://127.0.0.1:1/leases/lease_1/v1",
        token_sha256="ab" * 32,
        created_at_s=0.0,
        expires_at=0.0,
    )
    for name, value in used.items():
        made.scoreboard[name] = value
    return made


class Leases:
    """A table with its metrics."""

    def __init__(self) -> None:
        self.table = LeaseTable(1.0)
        self.metrics = Metrics(self.table.unfinished)

    def open(self, chosen: str = "echo", **used: int) -> LeaseRecord:
        """One more lease that is ready."""
        made = record(chosen, **used)
        self.table.add(made)
        self.table.apply(made, Step.BOOTED)
        self.metrics.started(0.02)
        return made

    def close(self, leased: LeaseRecord, cause: Cause = Cause.RELEASED) -> None:
        """As it ends."""
        self.table.apply(leased, cause)
        self.metrics.stopped(0.01, was_killed=False, survivors=0)
        self.table.apply(leased, Step.EMPTIED)
        self.table.drop(leased)
        self.metrics.ended(leased)

    def samples(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Every sample of a scrape, by name and labels; a series that came twice is an error."""
        text, content_type = self.metrics.render(None)
        assert content_type.startswith("text/plain; version=0.0.4")
        found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for family in parse_text(text.decode()):
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in found
                found[key] = sample.value
        return found

    def value(self, name: str, **labels: str) -> float:
        """One sample."""
        return self.samples()[f"asm_endpoint_{name}", frozenset(labels.items())]


@pytest.fixture
def leases() -> Leases:
    """Empty."""
    return Leases()


def test_every_field_of_the_totals_is_published(leases: Leases):
    """A new one cannot be forgotten."""
    assert set(USED) | TTFD_FIELDS == set(Totals.__struct_fields__)
    leases.open("echo", **dict.fromkeys(USED, 3_000_000))
    for used in USED.values():
        assert leases.value(f"{used.name}_total", provider="echo") == 3_000_000 / used.divisor


def test_leases_are_counted_by_state(leases: Leases):
    """Also where there is none; closed ones are counted by their cause."""
    opened = leases.open()
    leases.table.add(record())
    leases.close(leases.open(), Cause.IDLE)
    assert [leases.value("leases", state=state) for state in ("starting", "ready", "stopping")] == [1, 1, 0]
    assert leases.value("lease_ends_total", cause="idle") == 1
    assert leases.value("lease_ends_total", cause="crashed") == 0
    leases.table.apply(opened, Cause.RELEASED)
    assert leases.value("leases", state="stopping") == 1


def test_an_open_lease_shows_what_it_does_now(leases: Leases):
    """Under its slot; a closed one shows nothing any more."""
    opened = leases.open("claude", in_flight=4, queued=2, standbys=1)
    opened.processes = tuple(
        ProcessRow(
            id=ProcessId(pid, 1),
            ppid=1,
            name="x",
            rss_bytes=1000,
            cpu_s=0.5,
            children_cpu_s=1.0,
            is_zombie=False,
        )
        for pid in (1, 2)
    )
    expected = {
        "in_flight": 4,
        "queued": 2,
        "standbys": 1,
        "processes": 2,
        "memory_bytes": 2000,
        "cpu_seconds": 3,
    }
    assert set(expected) == set(NOW)
    for name, value in expected.items():
        assert leases.value(f"lease_{name}", slot="0", provider="claude") == value
    leases.close(opened)
    assert not [name for name, labels in leases.samples() if "slot" in dict(labels)]


def test_slots_are_taken_over(leases: Leases):
    """The smallest free one, so that there are never more than leases at once."""
    first, second, third = (leases.open() for _ in range(3))
    assert [first.slot, second.slot, third.slot] == [0, 1, 2]
    leases.close(second)
    leases.close(first)
    assert [leases.open().slot for _ in range(3)] == [0, 1, 3]


def test_nothing_goes_backwards_when_leases_close(leases: Leases):
    """Sums and histograms are the same just before and just after."""
    opened = [leases.open(chosen, prompt_tokens=7, cost_microusd=5) for chosen in ("echo", "claude", "echo")]
    for milliseconds in (10, 200, 10**6):
        opened[0].scoreboard.add_ttfd(milliseconds)
    before = counters(leases)
    for each in opened:
        leases.close(each)
        after = counters(leases)
        assert all(after[key] >= value for key, value in before.items())
        assert unchanged(after) == unchanged(before)
        before = after
    assert leases.value("prompt_tokens_total", provider="echo") == 14


def counters(leases: Leases) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Everything that may never go down."""
    endings = ("_total", "_bucket", "_count", "_sum")
    return {key: value for key, value in leases.samples().items() if key[0].endswith(endings)}


def unchanged(samples: dict[tuple[str, frozenset[tuple[str, str]]], float]) -> dict:
    """What an end as such does not change."""
    moving = ("asm_endpoint_lease_", "asm_endpoint_supervisor_")
    return {key: value for key, value in samples.items() if not key[0].startswith(moving)}


def test_first_deltas_are_a_histogram(leases: Leases):
    """Cumulated, with sum and count, in seconds."""
    opened = leases.open()
    for milliseconds in (TTFD_BUCKETS_MS[0], TTFD_BUCKETS_MS[0] + 1, 10**6):
        opened.scoreboard.add_ttfd(milliseconds)
    counts = [
        leases.value("first_delta_seconds_bucket", provider="echo", le=bound)
        for bound in (str(TTFD_BUCKETS_MS[0] / 1e3), str(TTFD_BUCKETS_MS[1] / 1e3), "+Inf")
    ]
    assert counts == [1, 2, 3]
    assert leases.value("first_delta_seconds_count", provider="echo") == 3
    assert (
        leases.value("first_delta_seconds_sum", provider="echo") == (2 * TTFD_BUCKETS_MS[0] + 1 + 10**6) / 1e3
    )


def test_starts_stops_looks_and_survivors(leases: Leases):
    """Each in its own unit."""
    leases.metrics.started(0.2)
    leases.metrics.stopped(3.0, was_killed=True, survivors=2)
    leases.metrics.looked(0.004)
    leases.metrics.zygote_restarted()
    assert leases.value("lease_start_seconds_sum") == 0.2
    assert leases.value("lease_stop_seconds_count") == 1
    assert leases.value("release_kills_total") == 1
    assert leases.value("release_survivors_total") == 2
    assert leases.value("monitor_look_seconds_bucket", le="0.005") == 1
    assert leases.value("zygote_restarts_total") == 1


def test_answers_are_counted_by_template_and_class(leases: Leases):
    """Never by a path that a client has made up."""
    leases.metrics.answered("/v1/endpoints/{lease_ref}", 200)
    leases.metrics.answered("/v1/endpoints/{lease_ref}", 204)
    leases.metrics.answered(None, 404)
    assert leases.value("http_requests_total", route="/v1/endpoints/{lease_ref}", status="2xx") == 2
    assert leases.value("http_requests_total", route=UNROUTED, status="4xx") == 1


def test_what_an_earlier_supervisor_has_counted_is_not_counted_again(leases: Leases):
    """Its counters ended with it; ours begin with what it had not written down yet."""
    taken = record(prompt_tokens=100, requests=4)
    taken.totals = Totals(prompt_tokens=90, requests=4)
    taken.scoreboard.add_ttfd(10)
    leases.table.add(taken)
    leases.metrics.took_over([taken], adopted=1)
    assert leases.value("adoptions_total") == 1
    assert leases.value("prompt_tokens_total", provider="echo") == 10
    assert leases.value("requests_total", provider="echo") == 0
    assert leases.value("first_delta_seconds_count", provider="echo") == 0
    taken.scoreboard.add("prompt_tokens", 5)
    leases.close(taken)
    assert leases.value("prompt_tokens_total", provider="echo") == 15


def test_the_number_of_series_does_not_grow(leases: Leases):
    """Over many leases, each with a ref and a model of its own, of several providers, ending for any cause."""
    causes = itertools.cycle(Cause)
    providers = itertools.cycle(provider.names())
    held: list[LeaseRecord] = []

    def cycle() -> None:
        held.append(leases.open(next(providers), requests=1))
        if len(held) > 3:
            leases.close(held.pop(0), next(causes))

    for _ in range(2 * len(provider.names()) * len(Cause)):
        cycle()
    series, size = set(leases.samples()), len(leases.metrics.render(None)[0])
    slots = {dict(labels)["slot"] for _, labels in series if "slot" in dict(labels)}
    assert len(slots) == len(held)
    for _ in range(CYCLES):
        cycle()
    assert {name for name, _ in leases.samples()} == {name for name, _ in series}
    assert len(leases.samples()) == len(series)
    assert len(leases.metrics.render(None)[0]) < size * 1.1
    assert sum(leases.value("requests_total", provider=name) for name in provider.names()) >= CYCLES


@pytest.mark.parametrize(
    ("accept", "parse", "kind"),
    [
        (None, parse_text, "text/plain"),
        ("*/*", parse_text, "text/plain"),
        (OPENMETRICS, parse_openmetrics, "application/openmetrics-text"),
    ],
)
def test_both_formats_can_be_read(leases: Leases, accept: str | None, parse, kind: str):
    """By prometheus_client's own strict parsers; no ref, model or token is in them."""
    opened = leases.open(requests=1)
    text, content_type = leases.metrics.render(accept)
    families = list(parse(text.decode()))
    assert content_type.startswith(kind)
    assert len(families) > 20
    assert all(family.documentation for family in families)
    for secret in (opened.lease_ref, opened.model, opened.token_sha256):
        assert secret not in text.decode()


def test_two_supervisors_in_one_process_do_not_meet(leases: Leases):
    """Nothing is registered globally, and nothing that was can be seen here."""
    other = Leases()
    other.open(requests=5)
    assert leases.value("requests_total", provider="echo") == 0
    assert not list(ours(prometheus_client.REGISTRY.collect()))


def ours(families) -> Iterator[str]:
    """Names that begin as ours do."""
    return (family.name for family in families if family.name.startswith("asm_endpoint"))
