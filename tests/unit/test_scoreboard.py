"""The page of counters: shared, zeroed, and readable as one struct."""

from __future__ import annotations

import os

from shared import scoreboard
from shared.scoreboard import SLOTS, TTFD_BUCKETS_MS, TTFD_SLOTS, Scoreboard, Totals


def test_two_views_of_one_descriptor_see_the_same():
    """That is how the supervisor reads what a worker writes, also after that has died."""
    fd = scoreboard.create()
    writer, reader = Scoreboard(fd), Scoreboard(fd)
    os.close(fd)
    assert set(reader.counts().values()) == {0}
    writer.add("requests", 2)
    writer["in_flight"] = 1
    del writer
    assert (reader["requests"], reader["in_flight"]) == (2, 1)


def test_the_totals_are_slots_of_their_names():
    """Every one, and none of what goes up and down."""
    board = scoreboard.local()
    for number, name in enumerate(SLOTS, 1):
        board[name] = number
    totals = board.totals()
    assert Totals.__struct_fields__ == SLOTS[-len(Totals.__struct_fields__) :]
    assert all(getattr(totals, name) == board[name] for name in Totals.__struct_fields__)
    assert not {"in_flight", "queued", "pending_tokens"} & set(Totals.__struct_fields__)


def test_clocks_are_not_counts():
    """Lists and health show counts only."""
    counts = scoreboard.local().counts()
    hidden = {name for name in SLOTS if name.endswith("_ns")} | set(TTFD_SLOTS)
    assert set(SLOTS) - set(counts) == hidden


def test_times_to_the_first_delta_are_counted_by_bucket():
    """A time that is a bound belongs below it; what is longer than all of them comes last."""
    board = scoreboard.local()
    for milliseconds in (0, TTFD_BUCKETS_MS[0], TTFD_BUCKETS_MS[0] + 1, TTFD_BUCKETS_MS[-1], 10**9):
        board.add_ttfd(milliseconds)
    counts = board.ttfd_counts()
    assert (counts[0], counts[1], counts[-2], counts[-1]) == (2, 1, 1, 1)
    assert sum(counts) == board["ttfd_count"] == 5
    assert board["ttfd_ms_sum"] == 2 * TTFD_BUCKETS_MS[0] + 1 + TTFD_BUCKETS_MS[-1] + 10**9


def test_a_detached_board_keeps_its_numbers_and_no_descriptor():
    """Whoever still has the record of a lease that ended reads what it was; others write no more."""
    before = descriptors()
    fd = scoreboard.create()
    board, writer = Scoreboard(fd), Scoreboard(fd)
    os.close(fd)
    board["requests"] = 3
    board.detach()
    writer["requests"] = 4
    writer.detach()
    assert (board["requests"], writer["requests"]) == (3, 4)
    board.add("requests")
    assert board.totals().requests == 4
    board.detach()
    assert descriptors() == before


def descriptors() -> set[str]:
    """Of this process, by number."""
    return set(os.listdir("/proc/self/fd"))
