"""The supervisor's numbers in Prometheus' text format (version 0.0.4). Pure: lease views in, text out. No tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from supervisor.lease import State
from supervisor.views import LeaseView

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "asm_endpoint"
PER_LEASE = (
    ("requests", "counter", "requests_total", "Turns that were given a place."),
    ("failures", "counter", "failures_total", "Turns that failed or were cancelled."),
    ("prompt_tokens", "counter", "prompt_tokens_total", "Prompt tokens, as the providers counted them."),
    (
        "completion_tokens",
        "counter",
        "completion_tokens_total",
        "Completion tokens, as the providers counted them.",
    ),
    ("in_flight", "gauge", "turns_in_flight", "Turns that run now."),
    ("queued", "gauge", "turns_queued", "Turns that wait for a place."),
    ("standbys", "gauge", "standbys", "Command lines that are ready."),
)


def render(views: Sequence[LeaseView]) -> str:
    """All metrics."""
    states = Counter(view.state for view in views)
    lines = _metric(
        "leases", "gauge", "Leases by state.", [({"state": state}, states[state]) for state in State]
    )
    live = [view for view in views if view.state != State.CLOSED]
    for slot, kind, name, meaning in PER_LEASE:
        lines += _metric(name, kind, meaning, [(_labels(view), view.load[slot]) for view in live])
    sizes = [(_labels(view), view.rss_bytes) for view in live]
    lines += _metric("resident_memory_bytes", "gauge", "Resident memory of a lease's processes.", sizes)
    counts = [(_labels(view), len(view.processes)) for view in live]
    lines += _metric("processes", "gauge", "Processes of a lease.", counts)
    return "\n".join(lines) + "\n"


def _labels(view: LeaseView) -> dict[str, str]:
    return {"lease_ref": view.lease_ref, "provider": view.provider, "model": view.model}


def _metric(name: str, kind: str, meaning: str, samples: Iterable[tuple[dict[str, str], float]]) -> list[str]:
    full = f"{PREFIX}_{name}"
    rows = [f"{full}{{{_label_text(labels)}}} {value}" for labels, value in samples]
    return [f"# HELP {full} {meaning}", f"# TYPE {full} {kind}", *rows]


def _label_text(labels: dict[str, str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
