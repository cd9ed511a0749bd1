"""A lease's budget against what it has spent: which limits are reached, which exceeded, and the words for it. Pure.

A limit that is reached refuses new turns, and one that is exceeded stops the running ones. The number of requests is
never exceeded: what runs is among them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from shared.contracts import Budget
from shared.errors import WorkerError
from shared.scoreboard import Totals

MICRO = 1_000_000


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """What a lease has spent, under the same names as in its budget, and the parts of it that are estimated."""

    requests: int = 0
    total_tokens: int = 0
    estimated_tokens: int = 0
    cost_usd: float = 0.0
    estimated_cost_usd: float = 0.0
    cli_s: float = 0.0


def spent_of(totals: Totals) -> Spent:
    """What these totals come to."""
    return Spent(
        requests=totals.requests,
        total_tokens=totals.prompt_tokens + totals.completion_tokens + totals.estimated_tokens,
        estimated_tokens=totals.estimated_tokens,
        cost_usd=(totals.cost_microusd + totals.estimated_cost_microusd) / MICRO,
        estimated_cost_usd=totals.estimated_cost_microusd / MICRO,
        cli_s=totals.cli_ms / 1000,
    )


def reached(budget: Budget, spent: Spent) -> tuple[str, ...]:
    """The limits that leave nothing for another turn."""
    return tuple(name for name, limit in limits(budget).items() if getattr(spent, name) >= limit)


def exceeded(budget: Budget, spent: Spent) -> tuple[str, ...]:
    """The limits that running turns have gone over; time, which goes on by itself, is over when it is reached."""
    return tuple(
        name
        for name in reached(budget, spent)
        if name == "cli_s" or (name != "requests" and getattr(spent, name) > getattr(budget, name))
    )


def limits(budget: Budget) -> dict[str, Any]:
    """The limits that are set, by name."""
    given = msgspec.structs.asdict(budget)
    return {name: limit for name, limit in given.items() if limit is not None}


def sums(budget: Budget, spent: Spent, names: Iterable[str]) -> str:
    """How much of these limits is spent, in words."""
    return ", ".join(_sum(name, getattr(budget, name), spent) for name in names)


def refusal(budget: Budget, spent: Spent, names: Iterable[str]) -> WorkerError:
    """The error that says which limits are used up."""
    words = sums(budget, spent, names)
    return _insufficient(f"the lease's budget is used up: {words} spent; lease a new endpoint", budget, spent)


def misfit(budget: Budget, spent: Spent, prompt_tokens: int) -> WorkerError:
    """The error for a prompt that is larger than what is left."""
    words = sums(budget, spent, ("total_tokens",))
    cause = f"the prompt's estimated {prompt_tokens} tokens go over the lease's budget: {words} spent"
    return _insufficient(cause, budget, spent)


def _sum(name: str, limit: float, spent: Spent) -> str:
    estimated = {"total_tokens": spent.estimated_tokens, "cost_usd": spent.estimated_cost_usd}.get(name)
    apart = f" ({_number(estimated)} of it estimated)" if estimated else ""
    return f"{_number(getattr(spent, name))} of {_number(limit)} {name}{apart}"


def _number(amount: float) -> str:
    return str(amount) if isinstance(amount, int) else f"{amount:g}"


def _insufficient(cause: str, budget: Budget, spent: Spent) -> WorkerError:
    """Both sides travel with it as fields."""
    details = {"budget": limits(budget), "spent": msgspec.to_builtins(spent)}
    return WorkerError("insufficient_quota", f"cannot complete: {cause}", should_retry=False, details=details)
