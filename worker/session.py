"""Completions as ordinary library calls: ``query`` for the whole answer, ``stream`` for its pieces.

A :class:`Session` is one provider pinned to one model, with its pool of command-line processes. The HTTP routes
are thin over the same two calls, so a library caller and an HTTP client see one projection of one event stream::

    async with open_session("echo", model="any") as session:
        print((await query(session, "hello")).text)
        async for piece in stream(session, "hello"):
            print(piece.content, end="")

How long a turn may take is known elsewhere: its wait for a place in :mod:`worker.capacity`, from then on in
:mod:`worker.deadlines`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Self

from shared import provider
from shared.contracts import Budget
from shared.errors import RequestError
from shared.launch import TurnLimits
from shared.result import Completion, Projection, Shown
from shared.sansio import Prompt
from worker import turnlog
from worker.answer import Answer
from worker.budget import CHARS_PER_IMAGE, Account
from worker.cancellation import Cancellation, Requests
from worker.capacity import Capacity
from worker.confinement import Confinement
from worker.deadlines import Deadlines
from worker.inputs import private_inputs
from worker.pool import Pool
from worker.runner import CliProcess
from worker.starter import Starter
from worker.trouble import Trouble
from worker.turn import Turn

DEFAULT_CONCURRENCY = 4
DEFAULT_QUEUE_LIMIT = 16


class Session:
    """One provider, one model, its processes and its limits. Close it with :meth:`close`."""

    def __init__(
        self, pool: Pool, limits: TurnLimits, capacity: Capacity, *, logs_content: bool = False
    ) -> None:
        self.pool = pool
        self.logs_content = logs_content
        self.limits = limits
        self.capacity = capacity
        self.trouble = Trouble(capacity.board)
        self.requests = Requests()
        pool.on_standby_failed = self.trouble.standby_failed

    def refill(self) -> None:
        """Prepare for the next turn, if there may be one."""
        if not self.capacity.ledger.is_used_up:
            self.pool.refill()

    @contextlib.contextmanager
    def process(self) -> Iterator[CliProcess]:
        """One with room for a turn, given back whatever becomes of that. Raises as :meth:`Pool.checkout`.

        When there can be no other turn after it, nothing that is idle goes on.
        """
        process = self.pool.checkout()
        try:
            yield process
        finally:
            self.pool.give_back(process)
            if self.capacity.ledger.is_used_up:
                self.pool.rest()

    async def close(self) -> None:
        """Stop every process of the session."""
        await self.pool.close()


class TurnStream:
    """One turn, as an async iterable of text and reasoning pieces; :attr:`completion` holds the outcome after it.

    Leaving it early, by ``break`` in an ``async with`` block or by :meth:`close`, cancels the turn.
    Iteration raises ProviderError or WorkerError when the turn fails.
    """

    def __init__(
        self, session: Session, prompt: Prompt, stop: Sequence[str] = (), request_id: str | None = None
    ) -> None:
        self._session = session
        self._prompt = prompt
        self._request_id = request_id
        self._projection = Projection()
        self._answer = Answer(self._projection, stop, prompt_chars=_chars(prompt))
        self._batches: AsyncIterator[list[Shown]] | None = None
        self._cancellation = Cancellation()
        self.has_begun = False
        """Whether a command line has been given the prompt."""

    @property
    def completion(self) -> Completion:
        """The outcome; final when the iteration has ended without an error."""
        return self._answer.completion

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def __aiter__(self) -> AsyncIterator[Shown]:
        async for batch in self.batches():
            for piece in batch:
                yield piece

    def batches(self, heartbeat_s: float | None = None) -> AsyncIterator[list[Shown]]:
        """All pieces that arrived together, together. An empty list says ``heartbeat_s`` passed in silence."""
        if self._batches is None:
            self._batches = self._run(heartbeat_s)
        return self._batches

    async def close(self) -> None:
        """Cancel the turn if it is still running; safe to call at any time, also twice."""
        if self._batches is not None:
            await self._batches.aclose()  # type: ignore[attr-defined]

    def cancel(self) -> None:
        """End the turn with ProviderError ``turn_cancelled``, waiting or running, for whoever iterates over it."""
        self._cancellation.ask()

    async def _run(self, heartbeat_s: float | None) -> AsyncIterator[list[Shown]]:
        session, chars = self._session, _chars(self._prompt)
        with session.requests.known_as(self._request_id, self.cancel):
            async with (
                self._logged(),
                session.capacity.place(session.limits.queue_s, chars, self._cancellation) as account,
                session.trouble.of_turn(),
            ):
                self._cancellation.ends(account.stop)
                with session.process() as process:
                    turn = process.start_turn(self._prompt, self._request_id)
                    self.has_begun = True
                    account.begin(turn.stop, time.monotonic())
                    asyncio.get_running_loop().call_later(session.limits.standby_delay_s, session.refill)
                    try:
                        async for batch in self._pieces(turn, account, heartbeat_s):
                            yield batch
                    finally:
                        turn.end()

    def _logged(self) -> contextlib.AbstractAsyncContextManager[None]:
        with_content = self._session.logs_content
        return turnlog.of_request(self._request_id, self._prompt, self._projection, with_content=with_content)

    async def _pieces(
        self, turn: Turn, account: Account, heartbeat_s: float | None
    ) -> AsyncIterator[list[Shown]]:
        deadlines = Deadlines(self._session.limits, account)
        while not self._answer.is_over:
            events = await deadlines.wait(turn.next_batch, heartbeat_s)
            shown = self._answer.show(events)
            account.observe(self._projection, time.monotonic())
            if self._answer.is_cut:
                turn.end()  # at once: a slow reader of the last piece does not let the command line go on
            if shown or not events:
                yield shown
        if self._projection.error is not None and not self._answer.is_cut:
            raise self._projection.error


@contextlib.asynccontextmanager
async def open_session(
    provider_name: str,
    *,
    model: str,
    concurrency: int = DEFAULT_CONCURRENCY,
    standby: int = 1,
    limits: TurnLimits | None = None,
    budget: Budget | None = None,
) -> AsyncIterator[Session]:
    """A session on this machine's own command line, in a private workspace that is removed at the end.

    Takes executable, login and variables from this process's environment, as a supervisor would. Raises
    RequestError ``unsupported_provider`` or ``invalid_lease_options``, ProviderError ``cli_not_found``,
    ``not_logged_in`` or ``provider_crashed``.
    """
    provider.require_cost_reports(provider.load(provider_name), budget)
    async with private_inputs(provider_name, model=model) as inputs:
        limits = limits or TurnLimits()
        starter = Starter(provider.load(provider_name), inputs, limits, confinement=Confinement())
        pool = Pool(starter.start, standby, limits.standby_idle_s)
        capacity = Capacity(concurrency=concurrency, queue_limit=DEFAULT_QUEUE_LIMIT, budget=budget)
        session = Session(pool, limits, capacity)
        pool.refill()
        try:
            yield session
        finally:
            await session.close()


async def query(
    session: Session, prompt: Prompt | str, *, stop: Sequence[str] = (), request_id: str | None = None
) -> Completion:
    """One turn, answered whole, up to the first of the ``stop`` strings. Its log lines carry ``request_id``.

    Cancelling the call cancels the turn.

    Raises ProviderError (the turn failed), WorkerError (``at_capacity``, ``insufficient_quota``, ``lease_closed``) or
    RequestError ``invalid_request`` (half of a surrogate pair).
    """
    async with stream(session, prompt, stop=stop, request_id=request_id) as turn:
        async for _ in turn.batches():
            pass
        return turn.completion


def stream(
    session: Session, prompt: Prompt | str, *, stop: Sequence[str] = (), request_id: str | None = None
) -> TurnStream:
    """One turn, piece by piece; nothing starts before the first piece is asked for. Errors as :func:`query`."""
    prompt = Prompt(text=prompt) if isinstance(prompt, str) else prompt
    _require_text(prompt)
    return TurnStream(session, prompt, stop, request_id)


def _require_text(prompt: Prompt) -> None:
    try:
        (prompt.system + prompt.text).encode()
    except UnicodeEncodeError as error:
        raise RequestError("invalid_request", f"cannot complete: the prompt is no text: {error}") from error


def _chars(prompt: Prompt) -> int:
    """How much of the prompt is charged until its tokens are counted."""
    return len(prompt.text) + len(prompt.system) + CHARS_PER_IMAGE * len(prompt.images)
