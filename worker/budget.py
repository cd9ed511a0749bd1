"""What a lease spends: one ledger on the lease's scoreboard, held against its budget. The clock comes in as arguments.

Every turn is charged here while it runs, on the lease's scoreboard. So turns that run at once see each other's
spending, and a worker process that dies takes none of it along. What nobody has counted yet is estimated and kept
apart: tokens by the length of their text, a cost by what the lease's other tokens have cost.
A turn that has ended before it could be stopped keeps its answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from shared.budget import MICRO, Spent, exceeded, misfit, reached, refusal, spent_of
from shared.contracts import Budget
from shared.errors import EndpointError
from shared.events import Usage
from shared.result import Projection
from shared.scoreboard import Scoreboard

CHARS_PER_TOKEN = 4
CHARS_PER_IMAGE = 1600 * CHARS_PER_TOKEN
"""As much as a model service counts for a large one, in characters."""
MIN_LEFT_S = 0.001
"""Time is charged in whole milliseconds."""
MAX_PER_TURN = 10**12
"""Of tokens or micro-USD: more is a misprint, and would not fit into a slot for long."""
NO_BUDGET = Budget()


def estimated_tokens(chars: int) -> int:
    """About how many tokens so much text is."""
    return math.ceil(chars / CHARS_PER_TOKEN)


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
        self._stopped_by: EndpointError | None = None
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
        """The turn holds a command line from now on; ``stop`` takes it away when it may not go on."""
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
        self._ledger.enforce(now)
        if self._stopped_by is not None and not projection.is_over:
            raise self._stopped_by

    def tick(self, now: float) -> None:
        """Charge the time since the last look."""
        if self.is_held:
            held_ms = int((now - self._held_since) * 1000)
            self._ledger.board.add("cli_ms", held_ms - self._charged_ms)
            self._charged_ms = held_ms

    def stop(self, error: EndpointError) -> None:
        """Have the turn end with ``error``."""
        if self._stopped_by is None:
            self._stopped_by = error
            self.is_held = False
            self._stop()

    def close(self, now: float) -> None:
        """The turn is over, well or badly: what it has spent is final."""
        self.tick(now)
        self.is_held = False
        board, usage = self._ledger.board, self._usage
        self._ledger.forget(self)
        if self.cost_usd is None:
            board.add("estimated_cost_microusd", board.cost_of(self.tokens))
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
        """What is spent when all turns end now."""
        totals, running = self.board.totals(), self._open
        estimated = sum(each.estimated_tokens for each in running)
        counted = self.board["pending_tokens"] - estimated
        unpriced = sum(each.tokens for each in running if each.cost_usd is None)
        return spent_of(
            msgspec.structs.replace(
                totals,
                completion_tokens=totals.completion_tokens + counted,
                estimated_tokens=totals.estimated_tokens + estimated,
                cost_microusd=totals.cost_microusd + sum(_micro(each.cost_usd or 0) for each in running),
                estimated_cost_microusd=totals.estimated_cost_microusd + self.board.cost_of(unpriced),
            )
        )

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
        """Charge the time of all turns, and stop them when a limit is exceeded, whether anybody reads them or not."""
        self.tick(now)
        if self.budget == NO_BUDGET:
            return
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


def _bounded(amount: float) -> int:
    return round(min(max(amount, 0), MAX_PER_TURN))


def _micro(cost_usd: float) -> int:
    return _bounded(cost_usd * MICRO)


def _nothing_to_stop() -> None:
    """An account whose turn has not begun."""
