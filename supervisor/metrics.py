"""The supervisor's numbers for Prometheus, on a registry of their own: nothing of them is global to the process.

What happens is told to :class:`Metrics` in the past tense; what is, :mod:`supervisor.leasemetrics` takes from the open
leases when somebody asks. Every label has few values: causes, routes, classes of status.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

from supervisor.lease import Cause
from supervisor.leasemetrics import PREFIX, LeaseCollector
from supervisor.table import LeaseRecord

START_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
STOP_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LOOK_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
UNROUTED = "none"
"""The route of requests that were refused before they had one."""


class Metrics:
    """All numbers of one supervisor. ``open_leases`` gives those that are not closed."""

    def __init__(self, open_leases: Callable[[], Iterable[LeaseRecord]]) -> None:
        self._registry = CollectorRegistry()
        self._leases = LeaseCollector(open_leases)
        self._registry.register(self._leases)
        ProcessCollector(namespace=f"{PREFIX}_supervisor", registry=self._registry)
        self._ends = self._counter("lease_ends", "Leases that ended, by cause.", "cause")
        for cause in Cause:
            self._ends.labels(cause)
        self._starts = self._histogram("lease_start_seconds", "From admission to ready.", START_BUCKETS_S)
        self._stops = self._histogram("lease_stop_seconds", "From the cause to the proof.", STOP_BUCKETS_S)
        self._kills = self._counter("release_kills", "Families that did not end by themselves in time.")
        self._survivors = self._counter("release_survivors", "Processes that outlived SIGKILL.")
        self._zygote_restarts = self._counter("zygote_restarts", "Zygotes started after one was lost.")
        self._adoptions = self._counter("adoptions", "Leases taken over from an earlier supervisor.")
        self._looks = self._histogram("monitor_look_seconds", "One look at all processes.", LOOK_BUCKETS_S)
        self._answers = self._counter("http_requests", "Answers of the supervisor's API.", "route", "status")

    def render(self, accept: str | None) -> tuple[bytes, str]:
        """All numbers, in the best format that the ``Accept`` header allows, and its content type."""
        encode, content_type = choose_encoder(accept or "")
        return encode(self._registry), content_type

    def started(self, seconds: float) -> None:
        """A lease has become ready."""
        self._starts.observe(seconds)

    def stopped(self, seconds: float, *, was_killed: bool, survivors: int) -> None:
        """A family was stopped, or could not be."""
        self._stops.observe(seconds)
        self._kills.inc(was_killed)
        self._survivors.inc(survivors)

    def ended(self, record: LeaseRecord) -> None:
        """A lease is closed, and no longer one of the open ones. Once for each lease."""
        self._ends.labels(record.cause).inc()
        self._leases.fold(record)

    def took_over(self, records: Iterable[LeaseRecord], *, adopted: int) -> None:
        """An earlier supervisor has left these leases, of which so many go on; what they had used was its to count."""
        self._adoptions.inc(adopted)
        for record in records:
            self._leases.discount(record)

    def zygote_restarted(self) -> None:
        """There is a new zygote in the place of one that was lost."""
        self._zygote_restarts.inc()

    def looked(self, seconds: float) -> None:
        """The monitor has looked at all processes."""
        self._looks.observe(seconds)

    def answered(self, route: str | None, status: int) -> None:
        """The API has answered; ``route`` is the template of the path."""
        self._answers.labels(route or UNROUTED, f"{status // 100}xx").inc()

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}_{name}", meaning, labels, registry=self._registry)

    def _histogram(self, name: str, meaning: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"{PREFIX}_{name}", meaning, buckets=buckets, registry=self._registry)
