"""The metrics text: every lease and state, labels escaped, nothing secret."""

from __future__ import annotations

from supervisor.metrics import render
from supervisor.views import LeaseView

COUNTS = dict.fromkeys(
    (
        "in_flight",
        "queued",
        "standbys",
        "requests",
        "failures",
        "prompt_tokens",
        "completion_tokens",
        "boots",
    ),
    3,
)


def lease(state: str = "ready", model: str = "m") -> LeaseView:
    """A view with a count of three everywhere."""
    return LeaseView(
        lease_ref="lease_1",
        endpoint_id="endpoint_1",
        owner="admin",
        group=None,
        provider="echo",
        model=model,
        consumer=None,
        state=state,
        cause=None,
        detail="",
        health="healthy",
        base_url="http://127.0.0.1:1/leases/lease_1/v1",
        created_at=0.0,
        ended_at=None,
        expires_in_s=1.0,
        idle_for_s=None,
        isolation="pid_namespace",
        processes=(),
        rss_bytes=42,
        cpu_s=0.0,
        load=COUNTS,
        metadata={},
        proof=None,
    )


def test_every_state_is_counted_even_at_zero():
    """A scrape always finds the same four series of leases."""
    lines = render([lease(), lease(state="closed")]).splitlines()
    counted = [line for line in lines if line.startswith("asm_endpoint_leases{")]
    assert counted == [
        'asm_endpoint_leases{state="starting"} 0',
        'asm_endpoint_leases{state="ready"} 1',
        'asm_endpoint_leases{state="stopping"} 0',
        'asm_endpoint_leases{state="closed"} 1',
    ]


def test_closed_leases_have_no_series_of_their_own():
    """Series end with their lease, so that their number is bounded."""
    assert "lease_ref" not in render([lease(state="closed")])


def test_label_values_are_escaped():
    """A model's name may hold quotes and backslashes."""
    text = render([lease(model='a"b\\c')])
    assert r'model="a\"b\\c"' in text


def test_each_series_is_declared_once():
    """HELP and TYPE come once per metric, before its samples."""
    lines = render([lease(), lease(model="other")]).splitlines()
    types = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    samples = {line.split("{")[0] for line in lines if not line.startswith("#")}
    assert len(types) == len(set(types))
    assert samples <= set(types)
