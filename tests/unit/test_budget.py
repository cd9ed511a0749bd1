"""The ledger: every limit at, below and above; what is counted, estimated and priced; and nobody racing past it."""

from __future__ import annotations

import random

import pytest

from shared import scoreboard
from shared.budget import Spent, exceeded, reached, sums
from shared.contracts import Budget
from shared.errors import WorkerError
from shared.events import AssistantDelta, CostUpdate, Failure, Result, Thinking, Usage
from shared.result import Projection
from worker.budget import CHARS_PER_TOKEN, MAX_PER_TURN, Account, Ledger, estimated_tokens

LIMITS = {
    "requests": Budget(requests=10),
    "total_tokens": Budget(total_tokens=10),
    "cost_usd": Budget(cost_usd=10.0),
    "cli_s": Budget(cli_s=10.0),
}
ALL = Budget(requests=10, total_tokens=10, cost_usd=10.0, cli_s=10.0)


def spent(**amounts: float) -> Spent:
    """Only that."""
    return Spent(**amounts)  # type: ignore[arg-type]


def ledger(**limits: float) -> Ledger:
    """A ledger of its own."""
    return Ledger(Budget(**limits), scoreboard.local())  # type: ignore[arg-type]


class Running:
    """A turn that has begun at 0 s, its account, and whether it was told to stop."""

    def __init__(self, book: Ledger, prompt: str = "") -> None:
        self.stops = 0
        self.projection = Projection()
        self.account: Account = book.open(len(prompt), 0.0)
        self.account.begin(self.stop, 0.0)

    def stop(self) -> None:
        """What wakes a reader."""
        self.stops += 1

    def say(self, *events, now: float = 0.0) -> None:
        """Events arrive."""
        self.projection.show(events)
        self.account.observe(self.projection, now)


def test_every_limit_has_a_case_here():
    """A new limit is not forgotten."""
    assert LIMITS.keys() == set(Budget.__struct_fields__)


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("budget", [LIMITS, ALL], ids=["alone", "among others"])
@pytest.mark.parametrize(
    ("amount", "is_reached", "is_over"), [(9, False, False), (10, True, False), (11, True, True)]
)
def test_a_limit_below_at_and_above(
    name: str, budget: dict[str, Budget] | Budget, amount: int, is_reached: bool, is_over: bool
):
    """Reached refuses the next turn, exceeded stops those that run; time is over at once, requests never."""
    limits = budget if isinstance(budget, Budget) else budget[name]
    is_over = {"requests": False, "cli_s": is_reached}.get(name, is_over)
    assert reached(limits, spent(**{name: amount})) == ((name,) if is_reached else ())
    assert exceeded(limits, spent(**{name: amount})) == ((name,) if is_over else ())


@pytest.mark.parametrize("name", LIMITS)
def test_no_limit_is_no_limit(name: str):
    """However much is spent of what."""
    others = Budget(**{other: 10 for other in LIMITS if other != name})
    for budget in (Budget(), others):
        assert reached(budget, spent(**{name: 1e15})) == ()
        assert exceeded(budget, spent(**{name: 1e15})) == ()


def test_sums_are_written_as_people_would():
    """Whole numbers whole, however large; amounts of money and time short; estimates apart."""
    budget = Budget(requests=2, total_tokens=12_345_678, cost_usd=1.0, cli_s=2.5)
    amounts = spent(
        requests=2,
        total_tokens=12_345_679,
        estimated_tokens=9,
        cost_usd=1.25,
        estimated_cost_usd=0.5,
        cli_s=2.501,
    )
    assert sums(budget, amounts, ("requests",)) == "2 of 2 requests"
    assert sums(budget, amounts, ("total_tokens", "cost_usd", "cli_s")) == (
        "12345679 of 12345678 total_tokens (9 of it estimated), 1.25 of 1 cost_usd (0.5 of it estimated), "
        "2.501 of 2.5 cli_s"
    )


@pytest.mark.parametrize(("chars", "tokens"), [(0, 0), (1, 1), (4, 1), (5, 2), (4000, 1000)])
def test_text_is_estimated_by_its_length(chars: int, tokens: int):
    """Rounded up: something is never nothing."""
    assert estimated_tokens(chars) == tokens


def test_a_turn_is_estimated_until_it_is_counted():
    """The prompt from the start, the answer as it comes; a count replaces what came before it, not what comes after."""
    book = ledger()
    turn = Running(book, "p" * 40)
    assert (book.spent.total_tokens, book.spent.estimated_tokens) == (10, 10)
    turn.say(Thinking("t" * 8), AssistantDelta("a" * 8))
    assert (book.spent.total_tokens, book.spent.estimated_tokens) == (14, 14)
    turn.say(CostUpdate(Usage(prompt_tokens=20, completion_tokens=5)), AssistantDelta("b" * 4))
    assert (book.spent.total_tokens, book.spent.estimated_tokens) == (26, 1)
    turn.say(Result(usage=Usage(prompt_tokens=20, completion_tokens=7, cached_tokens=3, reasoning_tokens=2)))
    assert (book.spent.total_tokens, book.spent.estimated_tokens) == (27, 0)
    turn.account.close(0.0)
    totals = book.board.totals()
    assert (totals.prompt_tokens, totals.completion_tokens, totals.estimated_tokens) == (20, 7, 0)
    assert (totals.cached_tokens, totals.reasoning_tokens) == (3, 2)
    assert book.board["pending_tokens"] == 0


def test_a_turn_that_is_left_keeps_its_estimates_apart():
    """What it was counted for stays counted, the rest is estimated; nothing is forgotten."""
    book = ledger()
    turn = Running(book, "p" * 40)
    turn.say(CostUpdate(Usage(prompt_tokens=20)), AssistantDelta("a" * 40))
    turn.account.close(0.0)
    totals = book.board.totals()
    assert (totals.prompt_tokens, totals.completion_tokens, totals.estimated_tokens) == (20, 0, 10)
    assert (book.spent.total_tokens, book.spent.estimated_tokens) == (30, 10)


def test_a_failed_turn_costs_what_its_provider_says():
    """A refusal before any token costs none, and its prompt is no longer estimated."""
    book = ledger()
    turn = Running(book, "p" * 40)
    turn.say(CostUpdate(Usage(), 0.0), Failure(code="provider_auth_failed", message="no"))
    turn.account.close(0.0)
    assert (book.spent.total_tokens, book.spent.cost_usd) == (0, 0)


def test_an_unreported_cost_is_estimated_at_the_price_of_the_others():
    """While it runs and after it was left; before anything was priced it is nothing."""
    book = ledger()
    unpriced = Running(book, "p" * 400)
    assert book.spent.cost_usd == 0
    priced = Running(book, "p" * 400)
    priced.say(Result(usage=Usage(prompt_tokens=100, completion_tokens=100), cost_usd=0.2))
    assert (book.spent.cost_usd, book.spent.estimated_cost_usd) == (0.2, 0)
    priced.account.close(0.0)
    assert (book.spent.cost_usd, book.spent.estimated_cost_usd) == (0.3, 0.1)
    unpriced.account.close(0.0)
    assert (book.spent.cost_usd, book.spent.estimated_cost_usd) == (0.3, 0.1)
    another = Running(book, "p" * 400)
    another.say(CostUpdate(None, 0.05))
    assert (book.spent.cost_usd, book.spent.estimated_cost_usd) == (0.35, 0.1)
    totals = book.board.totals()
    assert (totals.cost_microusd, totals.priced_tokens, totals.estimated_cost_microusd) == (
        200_000,
        200,
        100_000,
    )


def test_time_is_what_turns_hold_command_lines_for():
    """Summed over turns, in whole milliseconds, and not before a turn begins or after it ends."""
    book = ledger()
    first, second = Running(book), Running(book)
    book.open(0, 0.0)  # never begins
    book.tick(1.0)
    book.tick(1.0)
    assert book.spent.cli_s == 2.0
    first.account.close(1.5006)
    book.tick(2.0)
    second.account.close(3.0)
    book.tick(9.0)
    assert book.board["cli_ms"] == 1500 + 3000
    assert book.board["turns"] == 2


def test_what_is_left_of_the_time_is_shared():
    """Two turns use it up twice as fast; nothing left is a moment, so that nobody waits for less than can be charged."""
    book = ledger(cli_s=10.0)
    assert ledger().cli_left_s() == float("inf")
    first, _ = Running(book), Running(book)
    assert first.account.cli_left_s == 5.0
    first.account.close(2.0)
    assert book.cli_left_s() == 8.0
    book.tick(30.0)
    assert 0 < book.cli_left_s() < 0.01


EXCEED = {
    "total_tokens": (10, [AssistantDelta("a" * 44)]),
    "cost_usd": (0.5, [CostUpdate(Usage(), 0.6)]),
    "cli_s": (5.0, []),
}


@pytest.mark.parametrize("name", EXCEED)
def test_an_exceeded_limit_stops_every_turn_that_runs(name: str):
    """Each with the same error, once; and refuses the next."""
    limit, events = EXCEED[name]
    book = ledger(**{name: limit})
    going_over, other = Running(book), Running(book)
    other.say()
    with pytest.raises(WorkerError, match=f"budget is used up: .* of .* {name}") as caught:
        going_over.say(*events, now=3.0)
    assert (going_over.stops, other.stops) == (1, 1)
    with pytest.raises(WorkerError, match=name):
        other.say(now=3.0)
    cli_ms = book.board["cli_ms"]
    for turn in (going_over, other):
        turn.account.close(9.0)
    assert book.board["cli_ms"] == cli_ms  # they held no command line any more
    assert (going_over.stops, other.stops) == (1, 1)
    assert (caught.value.status, caught.value.type, caught.value.code) == (
        429,
        "insufficient_quota",
        "insufficient_quota",
    )
    envelope = caught.value.envelope()
    assert envelope["budget"] == {name: limit}
    assert envelope["spent"][name] >= limit
    assert set(envelope["error"]) == {"message", "type", "param", "code"}
    assert caught.value.headers() == {"x-should-retry": "false"}
    assert book.is_used_up
    with pytest.raises(WorkerError, match=name):
        book.open(0, 3.0)


def test_the_last_request_of_a_budget_is_served():
    """The number of requests stops nobody who has a place."""
    book = ledger(requests=1)
    turn = Running(book)
    turn.say(AssistantDelta("a"))
    assert turn.stops == 0
    with pytest.raises(WorkerError, match="1 of 1 requests"):
        book.open(0, 0.0)
    assert book.board["requests"] == 1


def test_an_answer_that_is_complete_is_kept():
    """There is nothing to stop any more; the next turn is refused."""
    book = ledger(total_tokens=10)
    turn = Running(book)
    turn.say(AssistantDelta("a"), Result(usage=Usage(completion_tokens=500)))
    turn.account.close(0.0)
    with pytest.raises(WorkerError, match="500 of 10 total_tokens"):
        book.require()


def test_a_prompt_that_does_not_fit_is_refused_before_it_begins():
    """It is charged nothing, and a shorter one may still come."""
    book = ledger(total_tokens=10)
    with pytest.raises(
        WorkerError, match="estimated 11 tokens go over the lease's budget: 0 of 10"
    ) as caught:
        book.open(44, 0.0)
    assert caught.value.envelope()["budget"] == {"total_tokens": 10}
    assert not book.is_used_up
    assert book.board["requests"] == 0
    book.open(40, 0.0)
    assert book.is_used_up


def test_estimates_are_told_apart_in_the_message():
    """Whoever reads it knows how sure it is."""
    book = ledger(total_tokens=10)
    turn = Running(book, "p" * 4)
    with pytest.raises(WorkerError, match=r"12 of 10 total_tokens \(5 of it estimated\) spent"):
        turn.say(CostUpdate(Usage(prompt_tokens=7)), AssistantDelta("a" * 20))


def test_turns_that_run_at_once_do_not_race_past_the_budget():
    """Whatever the order: at most one delta more than the budget, and the sums agree at every step."""
    for seed in range(50):
        chance = random.Random(seed)
        book, limit = ledger(total_tokens=200), 200
        running: list[Running] = []
        piece = AssistantDelta("a" * CHARS_PER_TOKEN * 3)
        for _ in range(400):
            try:
                if len(running) < 8:
                    running.append(Running(book, "p" * chance.randrange(60)))
            except WorkerError:
                assert book.spent.total_tokens > limit - 15
            for turn in [turn for turn in running if chance.random() < 0.4]:
                try:
                    turn.say(piece)
                except WorkerError:
                    turn.account.close(0.0)
                    running.remove(turn)
            assert book.board["pending_tokens"] == sum(turn.account.tokens for turn in running)
        assert not running
        assert limit < book.spent.total_tokens <= limit + 8 * 3
        assert book.spent.total_tokens == book.board["estimated_tokens"]


def test_what_a_dead_worker_process_was_charged_stays():
    """Its running turns become estimates and failures; whoever comes after it goes on from there."""
    board = scoreboard.local()
    dead = Ledger(Budget(total_tokens=100), board)
    turn = Running(dead, "p" * 40)
    turn.say(CostUpdate(Usage(prompt_tokens=30)), AssistantDelta("a" * 40), now=2.0)
    board["in_flight"] = 1
    alive = Ledger(Budget(total_tokens=100), board)
    board.settle()
    assert (board["pending_tokens"], board["estimated_tokens"], board["failures"]) == (0, 40, 1)
    assert board["in_flight"] == 0
    assert (alive.spent.total_tokens, alive.spent.estimated_tokens, alive.spent.cli_s) == (40, 40, 2.0)


@pytest.mark.parametrize("amount", [-5, 10**30])
def test_misprinted_counts_break_nothing(amount: int):
    """A slot is 64 bits, and no turn gives tokens back."""
    book = ledger()
    for _ in range(3):
        turn = Running(book)
        turn.say(Result(usage=Usage(prompt_tokens=amount, cached_tokens=amount), cost_usd=float(amount)))
        turn.account.close(0.0)
    expected = 0 if amount < 0 else 3 * MAX_PER_TURN
    assert (book.board["prompt_tokens"], book.board["cached_tokens"], book.board["cost_microusd"]) == (
        expected,
        expected,
        expected,
    )
    assert book.board["pending_tokens"] == 0


def test_the_time_to_the_first_piece_counts_from_the_arrival():
    """Once a turn, whether it is text or reasoning that comes first; a turn without an answer has none."""
    book = ledger()
    turn, silent = Running(book), Running(book)
    turn.say(CostUpdate(Usage(prompt_tokens=1)), now=0.1)
    turn.say(Thinking("hm"), now=0.25)
    turn.say(AssistantDelta("a"), now=0.9)
    silent.say(Failure(code="provider_error", message="x"), now=1.0)
    assert (book.board["ttfd_ms_sum"], book.board["ttfd_count"]) == (250, 1)
