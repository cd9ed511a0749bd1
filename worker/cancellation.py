"""Ending a request from outside, by the id that its caller knows it by, whatever it is waiting for just now."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from shared.errors import EndpointError, ProviderError

End = Callable[[EndpointError], None]


class Cancellation:
    """One request's. It may be asked for at any time; the request meets it at once, or at its next step."""

    def __init__(self) -> None:
        self._error: EndpointError | None = None
        self._end: End = _nothing_waits

    def ask(self) -> None:
        """End the request with ProviderError ``turn_cancelled``, for everybody who waits for it."""
        if self._error is None:
            self._error = ProviderError(
                "turn_cancelled", "cannot complete: the request was cancelled", should_retry=False
            )
            self._end(self._error)

    def ends(self, end: End) -> None:
        """From now on the request waits for something that ``end`` ends. Raises the error if it was asked for."""
        if self._error is not None:
            raise self._error
        self._end = end


class Requests:
    """The requests that wait or run, by id. A caller may give several the same one: they are cancelled together."""

    def __init__(self) -> None:
        self._open: dict[str, list[Callable[[], None]]] = {}

    @contextlib.contextmanager
    def known_as(self, request_id: str | None, ask: Callable[[], None]) -> Iterator[None]:
        """While inside, :meth:`cancel` with that id calls ``ask``."""
        if request_id is None:
            yield
            return
        asks = self._open.setdefault(request_id, [])
        asks.append(ask)
        try:
            yield
        finally:
            asks.remove(ask)
            if not asks:
                self._open.pop(request_id, None)

    def cancel(self, request_id: str) -> bool:
        """Whether there was such a request."""
        asks = tuple(self._open.get(request_id, ()))
        for ask in asks:
            ask()
        return bool(asks)


def _nothing_waits(error: EndpointError) -> None:
    """A request that has not come so far."""
