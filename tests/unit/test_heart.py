"""A heart that stands still is late; one on a loaded machine is not, and none goes to and fro."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest

from supervisor.heart import CERTAIN_BEATS, STOPPED_S, Heart, is_punctual

MAX_STILL_LOOKS = 5
PERIOD_S = 1.0


def watch(looks_at_s: Iterable[float], beats_at_s: Iterable[float], period_s: float = PERIOD_S) -> list[bool]:
    """Whether the heart is late after each look, when both look and beat at these times."""
    max_still_looks = round(MAX_STILL_LOOKS * PERIOD_S / period_s)
    heart, beats = Heart(), sorted(beats_at_s)
    late, last_look = [], None
    for now in looks_at_s:
        beat = max((each for each in beats if each <= now), default=0.0)
        punctual = last_look is not None and is_punctual(now - last_look, period_s)
        heart.look(int(beat * 1e9), int(now * 1e9), is_punctual=punctual, max_still_looks=max_still_looks)
        late.append(heart.is_late)
        last_look = now
    return late


def every(period_s: float, until_s: float, start_s: float = 0.0) -> list[float]:
    """Points in time."""
    return [start_s + period_s * index for index in range(int((until_s - start_s) / period_s) + 1)]


def test_a_beating_heart_is_never_late():
    """Whatever the phase between beats and looks; and not when a beat falls between two looks now and then."""
    assert not any(watch(every(1.0, 100), every(1.0, 100, 0.3)))
    assert not any(watch(every(1.0, 100), every(1.7, 100, 0.3)))


def test_a_heart_that_stops_is_late_after_so_many_looks():
    """Not before."""
    late = watch(every(1.0, 30), every(1.0, 10, 0.5))
    assert late.index(True) == 11 + MAX_STILL_LOOKS - 1
    assert all(late[late.index(True) :])


def test_a_suspended_machine_makes_no_heart_late():
    """Everything stops for a minute, and we may be the first to go on."""
    looks = [*every(1.0, 10), *every(1.0, 90, 70.0)]
    beats = [*every(1.0, 10, 0.5), *every(1.0, 90, 70.2)]
    assert STOPPED_S < 70.0 - 9.5
    assert not any(watch(looks, beats))


def test_on_a_loaded_machine_late_looks_prove_nothing():
    """We look only every other second, and it beats only every twelve."""
    assert not any(watch(every(2.0, 300), every(12.0, 300, 5.0)))


def test_the_same_delays_of_the_heart_alone_are_its_own():
    """Positive control: we were punctual, it was not."""
    assert any(watch(every(1.0, 300), every(12.0, 300, 5.0)))


def test_a_heart_at_the_edge_does_not_go_to_and_fro():
    """Beating just too seldom it is late, and stays so."""
    late = watch(every(1.0, 600), every(5.5, 600, 0.5))
    changes = sum(one != other for one, other in itertools.pairwise(late))
    assert any(late)
    assert changes == 1


@pytest.mark.parametrize("period_s", [1.0, 0.1, 3.0])
def test_a_heart_that_beats_again_recovers(period_s: float):
    """After a few beats, however often we look."""
    beats = [*every(1.0, 10, 0.5), *every(1.0, 90, 50.5)]
    looks = every(period_s, 90)
    late = dict(zip(looks, watch(looks, beats, period_s), strict=True))
    assert all(is_late for look, is_late in late.items() if 30 < look < 50)
    assert not any(
        is_late for look, is_late in late.items() if look > 51 + (CERTAIN_BEATS + 1) * max(1, period_s)
    )


def test_a_heart_that_stands_still_is_found_on_a_loaded_machine_too():
    """In the end, no look needs to be punctual."""
    late = watch(every(6.0, 120), every(1.0, 10, 0.5))
    assert late[-1]
    assert not late[2]
