"""Idempotency keys: a repeated ensure gives the same lease, and its token, without the token having been kept.

The token of such a lease is derived from a counter, under a secret of the key that lives only in this process. Of each
identity so many keys are kept, and forgotten in the order of their last use; nobody's keys push another's out.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator

import msgspec

from shared import tokens
from shared.errors import RequestError
from supervisor.decision import Decision

KEYS_KEPT = 1000
"""Of one identity."""


class Entry(msgspec.Struct, kw_only=True, eq=False):
    """What one key stands for."""

    fingerprint: str
    lock: asyncio.Lock = msgspec.field(default_factory=asyncio.Lock)
    secret: bytes = msgspec.field(default_factory=tokens.new_secret)
    lease_ref: str | None = None
    generation: int = 0

    def token(self) -> str:
        """The token of the current lease."""
        return tokens.derive(self.secret, str(self.generation))

    def next_token(self) -> str:
        """The token of a new lease under this key; the one before is not valid for it."""
        self.generation += 1
        return self.token()


class IdempotencyKeys:
    """The keys of one supervisor; each identity has keys of its own."""

    def __init__(self) -> None:
        self._entries: dict[str, OrderedDict[str, Entry]] = {}

    @contextlib.asynccontextmanager
    async def exclusive(self, owner: str, key: str, decision: Decision) -> AsyncIterator[Entry]:
        """The entry of that identity's key, one caller at a time. Raises RequestError ``idempotency_key_reused``."""
        fingerprint = decision.fingerprint()
        own = self._entries.setdefault(owner, OrderedDict())
        entry = own.get(key) or Entry(fingerprint=fingerprint)
        if entry.fingerprint != fingerprint:
            raise RequestError(
                "idempotency_key_reused", "cannot lease: this Idempotency-Key was used with another request"
            )
        own[key] = entry
        own.move_to_end(key)
        while len(own) > KEYS_KEPT:
            own.popitem(last=False)
        async with entry.lock:
            yield entry
