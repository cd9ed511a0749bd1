"""What open leases are, and what all leases have used, as Prometheus' metrics.

Nothing is kept of a closed lease but its part of the sums, so a counter never goes backwards, and no label grows
without bound: a provider is one of those installed, and an open lease is named by its slot, a small number that later
leases take over, never by its ref or model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from shared import provider
from shared.scoreboard import TTFD_BUCKETS_MS, Totals
from supervisor.lease import State
from supervisor.table import LeaseRecord

PREFIX = "asm_endpoint"


class Used(msgspec.Struct, frozen=True):
    """How a field of ``Totals`` is published: name, meaning, and by what it is divided to get the name's unit."""

    name: str
    meaning: str
    divisor: float = 1.0


USED = {
    "requests": Used("requests", "Requests that were given a place."),
    "turns": Used("turns", "Turns begun on a command line."),
    "failures": Used("failures", "Requests that failed or were cancelled after they had a place."),
    "prompt_tokens": Used("prompt_tokens", "Prompt tokens, as the providers counted them."),
    "completion_tokens": Used("completion_tokens", "Completion tokens, as the providers counted them."),
    "cached_tokens": Used("cached_tokens", "Cached part of the prompt tokens."),
    "reasoning_tokens": Used("reasoning_tokens", "Reasoning part of the completion tokens."),
    "estimated_tokens": Used("estimated_tokens", "Tokens of turns that nobody counted, estimated."),
    "cost_microusd": Used("cost_usd", "Cost in US dollars, as the command lines reported it.", 1e6),
    "priced_tokens": Used("priced_tokens", "Tokens of turns whose cost was reported."),
    "estimated_cost_microusd": Used(
        "estimated_cost_usd", "Cost in US dollars of turns whose cost nobody reported, estimated.", 1e6
    ),
    "cli_ms": Used("cli_seconds", "Seconds for which turns held a command line, summed.", 1e3),
}
TTFD_FIELDS = frozenset({"ttfd_ms_sum", "ttfd_count"})
"""The fields of ``Totals`` that are published as one histogram."""
NOW: dict[str, tuple[str, Callable[[LeaseRecord], float]]] = {
    "in_flight": ("Turns that run now.", lambda record: record.scoreboard["in_flight"]),
    "queued": ("Requests that wait for a place.", lambda record: record.scoreboard["queued"]),
    "standbys": ("Command lines that are ready.", lambda record: record.scoreboard["standbys"]),
    "processes": ("Processes of the lease.", lambda record: len(record.processes)),
    "memory_bytes": ("Resident memory of the lease's processes.", lambda record: record.rss_bytes),
    "cpu_seconds": ("Processor time of the lease's processes, ended ones too.", lambda record: record.cpu_s),
}
"""What is published of each open lease."""


class Sum(msgspec.Struct, frozen=True):
    """What leases of one provider have used, with the first deltas counted by bucket."""

    totals: Totals = Totals()
    ttfd: tuple[int, ...] = (0,) * (len(TTFD_BUCKETS_MS) + 1)

    def plus(self, more: Sum, sign: int = 1) -> Sum:
        """Both together; or, with the other sign, without the other one."""
        added = msgspec.structs.asdict(more.totals)
        own = msgspec.structs.asdict(self.totals)
        totals = {name: value + sign * added[name] for name, value in own.items()}
        pairs = zip(self.ttfd, more.ttfd, strict=True)
        return Sum(Totals(**totals), tuple(have + sign * count for have, count in pairs))


class LeaseCollector(Collector):
    """Asks for the open leases whenever somebody asks for metrics."""

    def __init__(self, open_leases: Callable[[], Iterable[LeaseRecord]]) -> None:
        self._open_leases = open_leases
        self._closed = {name: Sum() for name in provider.names()}

    def fold(self, record: LeaseRecord) -> None:
        """Keep what a lease has used that is no longer open. Once for each lease."""
        _add(self._closed, record.provider, _used_by(record))

    def discount(self, record: LeaseRecord) -> None:
        """Do not count what an open lease has used, as far as it was written down, and its first deltas until now."""
        board = record.scoreboard
        until_now = {name: board[name] for name in TTFD_FIELDS}
        written = Sum(msgspec.structs.replace(record.totals, **until_now), board.ttfd_counts())
        _add(self._closed, record.provider, written, -1)

    def collect(self) -> Iterator[Metric]:
        """All of it."""
        records = list(self._open_leases())
        yield _states(records)
        sums = dict(self._closed)
        for record in records:
            _add(sums, record.provider, _used_by(record))
        yield from _used(sums)
        yield _first_deltas(sums)
        yield from _now(records)


def _used_by(record: LeaseRecord) -> Sum:
    return Sum(record.scoreboard.totals(), record.scoreboard.ttfd_counts())


def _add(sums: dict[str, Sum], name: str, used: Sum, sign: int = 1) -> None:
    sums[name] = sums.get(name, Sum()).plus(used, sign)


def _states(records: list[LeaseRecord]) -> Metric:
    states = [record.state for record in records]
    family = GaugeMetricFamily(f"{PREFIX}_leases", "Open leases by state.", labels=["state"])
    for state in State:
        if state is not State.CLOSED:
            family.add_metric([state], states.count(state))
    return family


def _used(sums: dict[str, Sum]) -> Iterator[Metric]:
    for field, used in USED.items():
        family = CounterMetricFamily(f"{PREFIX}_{used.name}", used.meaning, labels=["provider"])
        for name, of_provider in sums.items():
            family.add_metric([name], getattr(of_provider.totals, field) / used.divisor)
        yield family


def _first_deltas(sums: dict[str, Sum]) -> Metric:
    meaning = "From a request's arrival to the first piece of its answer."
    family = HistogramMetricFamily(f"{PREFIX}_first_delta_seconds", meaning, labels=["provider"])
    bounds = [*(str(ms / 1e3) for ms in TTFD_BUCKETS_MS), "+Inf"]
    for name, of_provider in sums.items():
        counts = of_provider.ttfd
        buckets = [(bound, float(sum(counts[: index + 1]))) for index, bound in enumerate(bounds)]
        family.add_metric([name], buckets, of_provider.totals.ttfd_ms_sum / 1e3)
    return family


def _now(records: list[LeaseRecord]) -> Iterator[Metric]:
    for name, (meaning, value) in NOW.items():
        family = GaugeMetricFamily(f"{PREFIX}_lease_{name}", meaning, labels=["slot", "provider"])
        for record in records:
            family.add_metric([str(record.slot), record.provider], value(record))
        yield family
