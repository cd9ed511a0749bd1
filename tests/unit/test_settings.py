"""Settings by name, as ``serve --set`` takes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.errors import RequestError
from supervisor.settings import Settings, changed

SETTINGS = Settings(home=Path("/nowhere"))


def test_a_limit_of_turns_of_connections_and_of_the_supervisor():
    """All are known by their own names; the rest stays."""
    settings = changed(SETTINGS, ["first_output_s=2.5", "max_leases=7", "head_s=3", "connections=8"])
    assert (settings.wire.head_s, settings.wire.connections) == (3.0, 8)
    assert (settings.limits.first_output_s, settings.max_leases) == (2.5, 7)
    assert settings.limits.total_s == SETTINGS.limits.total_s
    assert settings.drain_s == SETTINGS.drain_s


def test_bytes_may_be_many():
    """More than any number of seconds or leases."""
    assert changed(SETTINGS, ["min_available_bytes=64000000000"]).min_available_bytes == 64_000_000_000


@pytest.mark.parametrize(
    ("assignment", "cause"),
    [
        ("nonsense=1", "cannot set 'nonsense': known are .*first_output_s.*max_leases"),
        ("home=1", "cannot set 'home'"),
        ("namespaces=1", "cannot set 'namespaces'"),
        ("limits=1", "cannot set 'limits'"),
        ("drain_s", "a number above 0"),
        ("drain_s=soon", "a number above 0"),
        ("drain_s=0", "a number above 0"),
        ("drain_s=-1", "a number above 0"),
        ("drain_s=nan", "a number above 0"),
        ("drain_s=inf", "a number above 0"),
        ("max_leases=1.5", "a whole number above 0"),
        ("max_starts=1000000000", "below 1e\\+09"),
        ("min_available_bytes=1000000000000000", "below 1e\\+15"),
        ("", "cannot set ''"),
    ],
)
def test_anything_else_is_refused_by_name(assignment: str, cause: str):
    """A typing error must not become a default."""
    with pytest.raises(RequestError, match=cause) as caught:
        changed(SETTINGS, [assignment])
    assert caught.value.code == "invalid_request"
