"""The requests that a scripted model server has seen."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class RecordedRequest:
    """One request as it arrived, and how it has gone so far. Header names are in lower case.

    ``body`` is the parsed JSON, None when there was none. ``finished``: the answer was sent to its scripted end,
    be that a cut. ``closed_early``: the client hung up before. Neither: it is still being answered.
    """

    serial: int
    method: str
    path: str
    headers: Mapping[str, str]
    body: Any
    finished: bool = False
    closed_early: bool = False


def any_request(_request: RecordedRequest) -> bool:
    """The predicate that every request satisfies."""
    return True


class RequestLog:
    """The requests of a server, in order of arrival, shared by its threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._requests: dict[int, RecordedRequest] = {}
        self._last_serial = 0

    def snapshot(self) -> list[RecordedRequest]:
        """The requests so far."""
        with self._changed:
            return list(self._requests.values())

    def clear(self) -> None:
        """Forget all requests, those still being answered too."""
        with self._changed:
            self._requests.clear()

    def record(self, method: str, path: str, headers: Mapping[str, str], body: Any) -> int:
        """Add a request; returns its serial number."""
        with self._changed:
            self._last_serial += 1
            self._requests[self._last_serial] = RecordedRequest(
                serial=self._last_serial, method=method, path=path, headers=headers, body=body
            )
            self._changed.notify_all()
            return self._last_serial

    def finish(self, serial: int) -> None:
        """The answer is out."""
        self._amend(serial, finished=True)

    def hang_up(self, serial: int) -> None:
        """The client left before the answer was out."""
        self._amend(serial, closed_early=True)

    def wait_for(self, predicate: Callable[[RecordedRequest], bool], timeout_s: float) -> RecordedRequest:
        """The first request that satisfies the predicate. Raises TimeoutError, which lists what came instead."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                for request in self._requests.values():
                    if predicate(request):
                        return request
                if not self._changed.wait(deadline - time.monotonic()):
                    raise TimeoutError(self._disappointment(timeout_s))

    def _amend(self, serial: int, *, finished: bool = False, closed_early: bool = False) -> None:
        with self._changed:
            if serial in self._requests:
                request = self._requests[serial]
                self._requests[serial] = replace(request, finished=finished, closed_early=closed_early)
                self._changed.notify_all()

    def _disappointment(self, timeout_s: float) -> str:
        seen = [
            f"{request.method} {request.path} finished={request.finished} closed_early={request.closed_early}"
            for request in self._requests.values()
        ]
        return f"no such request within {timeout_s} s; there were {seen}"
