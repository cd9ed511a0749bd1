"""The scripted model server, to be used with ``with``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tests.clis.models.connections import CLOSE_TIMEOUT_S, ConnectionServer
from tests.clis.models.log import RecordedRequest, RequestLog, any_request

ACCEPT_POLL_S = 0.02
WAIT_TIMEOUT_S = 10.0


class ModelServer:
    """A model server on loopback, serving from ``with`` to its end in background threads.

    Enter a network namespace (``tests.clis.netns``) before: a thread stays in the one it was started in.
    """

    def __init__(self, port: int = 0) -> None:
        self._log = RequestLog()
        self._server = ConnectionServer(port, self._log)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(ACCEPT_POLL_S,), name="model-server", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving and end every connection; idempotent. Raises TimeoutError when one survives."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(CLOSE_TIMEOUT_S)
            self._server.server_close()
            self._server.end_connections()

    @property
    def base_url(self) -> str:
        """Where it listens, without a trailing slash."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def requests(self) -> list[RecordedRequest]:
        """Every request since the start or the last ``clear``, in order of arrival."""
        return self._log.snapshot()

    def clear(self) -> None:
        """Forget the requests so far."""
        self._log.clear()

    def wait_for_request(
        self, predicate: Callable[[RecordedRequest], bool] = any_request, timeout_s: float = WAIT_TIMEOUT_S
    ) -> RecordedRequest:
        """The first request that satisfies the predicate, now or later. Raises TimeoutError."""
        return self._log.wait_for(predicate, timeout_s)

    def wait_for_hangup(
        self, predicate: Callable[[RecordedRequest], bool] = any_request, timeout_s: float = WAIT_TIMEOUT_S
    ) -> RecordedRequest:
        """The first such request whose client left before the answer was out. Raises TimeoutError."""
        return self._log.wait_for(lambda request: request.closed_early and predicate(request), timeout_s)
