"""What has failed lately and not worked since, on the lease's scoreboard: logins, turns, starts of command lines.

Only what will probably fail again counts: not a request that was refused for what it holds, nor a caller that left.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator

from shared.errors import ProviderError
from shared.scoreboard import Scoreboard

LOGIN_CODES = frozenset({"not_logged_in", "provider_auth_failed"})
OF_THIS_REQUEST = frozenset(
    {"provider_rejected_request", "schema_mismatch", "tool_use_refused", "turn_cancelled"}
)
"""Failures of one request, which say nothing of the next."""


class Trouble:
    """Writes the scoreboard's slots ``provider_failures``, ``login_refused_ns`` and ``standby_failures``."""

    def __init__(self, board: Scoreboard) -> None:
        self._board = board

    @contextlib.asynccontextmanager
    async def of_turn(self) -> AsyncIterator[None]:
        """Around one whole turn: note how it ends."""
        try:
            yield
        except ProviderError as error:
            if error.code not in OF_THIS_REQUEST:
                self._turn_failed(error.code)
            raise
        else:
            self._turn_worked()

    def standby_failed(self) -> None:
        """A command line did not start, or ended before it was used."""
        self._board.add("standby_failures")

    def _turn_failed(self, code: str) -> None:
        self._board.add("provider_failures")
        if code in LOGIN_CODES:
            self._board["login_refused_ns"] = time.monotonic_ns()

    def _turn_worked(self) -> None:
        for name in ("provider_failures", "login_refused_ns", "standby_failures"):
            self._board[name] = 0
