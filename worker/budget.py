"""What a lease may spend and what it has spent: one ledger on the lease's scoreboard. The clock comes in as arguments.

Every turn is charged here while it runs, on the lease's scoreboard. So turns that run at once see each other's
spending, and a worker process that dies takes none of it along. What nobody has counted yet is estimated and kept
apart: tokens by the length of their text, a cost by what the lease's other tokens have cost.

A limit that is reached refuses new turns, and one that is exceeded stops the running ones. The number of requests is
never exceeded: what runs is among them. A turn that has ended before it could be stopped keeps its answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec

from shared.contracts import Budget
from shared.errors import WorkerError
from shared.events import Usage
from shared.result import Projection
from shared.scoreboard import Scoreboard

CHARS_PER_TOKEN = 4
MICRO = 1_000_000
MIN_LEFT_S = 0.001
"""Time is charged in whole milliseconds."""
MAX_PER_TURN = 10**12
"""Of tokens or micro-USD: more is a misprint, and would not fit into a slot for long."""
NO_BUDGET = Budget()


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """What a lease has spent, running turns included; the same names as in its budget, and the estimated parts."""

    requests: int = 0
    total_tokens: int = 0
    estimated_tokens: int = 0
    cost_usd: float = 0.0
    estimated_cost_usd: float = 0.0
    cli_s: float = 0.0


def reached(budget: Budget, spent: Spent) -> tuple[str, ...]:
    """The limits that leave nothing for another turn."""
    return tuple(name for name, limit in _limits(budget) if getattr(spent, name) >= limit)


def exceeded(budget: Budget, spent: Spent) -> tuple[str, ...]:
    """The limits that running turns have gone over; time, which goes on by itself, is over when it is reached."""
    return tuple(
        name
        for name in reached(budget, spent)
        if name == "cli_s" or (name != "requests" and getattr(spent, name) > getattr(budget, name))
    )


def refusal(budget: Budget, spent: Spent, names: tuple[str, ...]) -> WorkerError:
    """The error that says which of the budget's limits are used up, and carries both sides as fields."""
    sums = ", ".join(_sum(name, getattr(budget, name), spent) for name in names)
    return _insufficient(f"the lease's budget is used up: {sums} spent; lease a new endpoint", budget, spent)


def misfit(budget: Budget, spent: Spent, prompt_tokens: int) -> WorkerError:
    """The error for a prompt that is larger than what is left."""
    left = _sum("total_tokens", budget.total_tokens, spent)
    cause = f"the prompt's estimated {prompt_tokens} tokens go over the lease's budget: {left} spent"
    return _insufficient(cause, budget, spent)


def limits(budget: Budget) -> dict[str, Any]:
    """The limits that are set, by name."""
    return dict(_limits(budget))


def estimated_tokens(chars: int) -> int:
    """About how many tokens so much text is."""
    return math.ceil(chars / CHARS_PER_TOKEN)


def _limits(budget: Budget) -> list[tuple[str, float]]:
    return [
        (name, limit) for name in Budget.__struct_fields__ if (limit := getattr(budget, name)) is not None
    ]


def _sum(name: str, limit: float | None, spent: Spent) -> str:
    estimated = {"total_tokens": spent.estimated_tokens, "cost_usd": spent.estimated_cost_usd}.get(name)
    apart = f" ({estimated:g} of it estimated)" if estimated else ""
    return f"{getattr(spent, name):g} of {limit:g} {name}{apart}"


def _insufficient(cause: str, budget: Budget, spent: Spent) -> WorkerError:
    details = {"budget": limits(budget), "spent": msgspec.to_builtins(spent)}
    return WorkerError("insufficient_quota", f"cannot complete: {cause}", should_retry=False, details=details)


class Account:
    """What one turn spends. Opened by :meth:`Ledger.open`; to be closed however the turn ends."""

    def __init__(self, ledger: Ledger, prompt_chars: int, arrived_at: float) -> None:
        self.estimated_tokens = 0
        self.cost_usd: float | None = None
        self.is_held = False
        self._ledger = ledger
        self._prompt_chars = prompt_chars
        self._arrived_at = arrived_at
        self._usage = Usage()
        self._pending_tokens = 0
        self._held_since = 0.0
        self._charged_ms = 0
        self._has_shown = False
        self._stop: Callable[[], None] = _nothing_to_stop
        self._stopped_by: WorkerError | None = None
        self._note(None, prompt_chars)

    @property
    def tokens(self) -> int:
        """Counted and estimated, so far."""
        return self._pending_tokens

    @property
    def cli_left_s(self) -> float:
        """For how long the budget lasts with the turns that run now, in seconds; infinite without a limit."""
        return self._ledger.cli_left_s()

    def begin(self, stop: Callable[[], None], now: float) -> None:
        """The turn holds a command line from now on; ``stop`` is called when it may not go on."""
        self._stop, self._held_since, self.is_held = stop, now, True
        self._ledger.board.add("turns")

    def observe(self, projection: Projection, now: float) -> None:
        """Charge what has come so far. Raises WorkerError ``insufficient_quota`` when the turn may not go on."""
        if projection.has_shown and not self._has_shown:
            self._has_shown = True
            self._ledger.board.add_ttfd(round((now - self._arrived_at) * 1000))
        uncounted = projection.uncounted_chars + (self._prompt_chars if projection.usage is None else 0)
        self.cost_usd = projection.cost_usd
        self._note(projection.usage, uncounted)
        self.tick(now)
        self._ledger.enforce(now)
        if self._stopped_by is not None and not projection.is_over:
            raise self._stopped_by

    def tick(self, now: float) -> None:
        """Charge the time since the last look."""
        if self.is_held:
            held_ms = int((now - self._held_since) * 1000)
            self._ledger.board.add("cli_ms", held_ms - self._charged_ms)
            self._charged_ms = held_ms

    def stop(self, error: WorkerError) -> None:
        """Have the turn end with ``error``."""
        if self._stopped_by is None:
            self._stopped_by = error
            self._stop()

    def close(self, now: float) -> None:
        """The turn is over, well or badly: what it has spent is final."""
        self.tick(now)
        self.is_held = False
        ledger, board, usage = self._ledger, self._ledger.board, self._usage
        ledger.forget(self)
        if self.cost_usd is None:
            board.add("estimated_cost_microusd", round(ledger.price * self.tokens))
        else:
            board.add("cost_microusd", _micro(self.cost_usd))
            board.add("priced_tokens", self.tokens)
        for name in ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens"):
            board.add(name, _bounded(getattr(usage, name)))
        board.add("estimated_tokens", self.estimated_tokens)
        board.add("pending_tokens", -self._pending_tokens)

    def _note(self, usage: Usage | None, uncounted_chars: int) -> None:
        self._usage = usage or Usage()
        self.estimated_tokens = estimated_tokens(uncounted_chars)
        counted = _bounded(self._usage.prompt_tokens) + _bounded(self._usage.completion_tokens)
        pending = counted + self.estimated_tokens
        self._ledger.board.add("pending_tokens", pending - self._pending_tokens)
        self._pending_tokens = pending


class Ledger:
    """All accounts of a lease, and its budget."""

    def __init__(self, budget: Budget, board: Scoreboard) -> None:
        self.budget = budget
        self.board = board
        self._open: set[Account] = set()

    @property
    def spent(self) -> Spent:
        """What is spent now."""
        board, price = self.board, self.price
        cost = board["cost_microusd"] + sum(_micro(each.cost_usd or 0) for each in self._open)
        unpriced = sum(price * each.tokens for each in self._open if each.cost_usd is None)
        estimated_cost = board["estimated_cost_microusd"] + unpriced
        counted = board["prompt_tokens"] + board["completion_tokens"]
        estimated = board["estimated_tokens"]
        return Spent(
            requests=board["requests"],
            total_tokens=counted + estimated + board["pending_tokens"],
            estimated_tokens=estimated + sum(each.estimated_tokens for each in self._open),
            cost_usd=round((cost + estimated_cost) / MICRO, 6),
            estimated_cost_usd=round(estimated_cost / MICRO, 6),
            cli_s=board["cli_ms"] / 1000,
        )

    @property
    def price(self) -> float:
        """Micro-USD for a token, of those whose cost was reported; 0 while none was."""
        priced_tokens = self.board["priced_tokens"]
        return self.board["cost_microusd"] / priced_tokens if priced_tokens else 0.0

    @property
    def is_used_up(self) -> bool:
        """Whether no further turn may begin."""
        return bool(reached(self.budget, self.spent))

    def require(self, prompt_chars: int = 0) -> None:
        """Do nothing while there is something left. Raises WorkerError ``insufficient_quota``."""
        spent, limit = self.spent, self.budget.total_tokens
        if names := reached(self.budget, spent):
            raise refusal(self.budget, spent, names)
        prompt_tokens = estimated_tokens(prompt_chars)
        if limit is not None and spent.total_tokens + prompt_tokens > limit:
            raise misfit(self.budget, spent, prompt_tokens)

    def open(self, prompt_chars: int, arrived_at: float) -> Account:
        """Charge one request and its prompt. Raises WorkerError ``insufficient_quota`` instead."""
        self.require(prompt_chars)
        self.board.add("requests")
        account = Account(self, prompt_chars, arrived_at)
        self._open.add(account)
        return account

    def forget(self, account: Account) -> None:
        """It is about to be closed."""
        self._open.discard(account)

    def tick(self, now: float) -> None:
        """Charge the time of all turns."""
        for account in self._open:
            account.tick(now)

    def enforce(self, now: float) -> None:
        """Stop all turns when a limit is exceeded."""
        if self.budget == NO_BUDGET:
            return
        self.tick(now)
        spent = self.spent
        if names := exceeded(self.budget, spent):
            error = refusal(self.budget, spent, names)
            for account in self._open:
                account.stop(error)

    def cli_left_s(self) -> float:
        """Until the budget of CLI time is used up at the present rate."""
        if self.budget.cli_s is None:
            return math.inf
        running = sum(account.is_held for account in self._open)
        left_s = self.budget.cli_s - self.board["cli_ms"] / 1000
        return max(left_s / max(1, running), MIN_LEFT_S)

    def recover(self) -> None:
        """Settle what the turns of a dead worker process had spent; nobody will count it any more."""
        lost_tokens = self.board["pending_tokens"]
        self.board.add("estimated_tokens", lost_tokens)
        self.board.add("estimated_cost_microusd", round(self.price * lost_tokens))
        self.board["pending_tokens"] = 0
        self.board.add("failures", self.board["in_flight"])


def _bounded(amount: float) -> int:
    return round(min(max(amount, 0), MAX_PER_TURN))


def _micro(cost_usd: float) -> int:
    return _bounded(cost_usd * MICRO)


def _nothing_to_stop() -> None:
    """An account whose turn has not begun."""
