"""Idempotency keys: a repeated ensure gives the same lease, and its token, without the token having been kept.

The token of such a lease is derived from the key, the request and a counter, under a secret that lives only in this
process. Keys are forgotten in the order of their last use.
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


class Entry(msgspec.Struct, kw_only=True, eq=False):
    """What one key stands for."""

    owner: str
    key: str
    fingerprint: str
    lock: asyncio.Lock
    lease_ref: str | None = None
    generation: int = 0

    def token(self, keys: IdempotencyKeys) -> str:
        """The token of the current lease."""
        return tokens.derive(keys.secret, self.owner, self.key, self.fingerprint, str(self.generation))

    def next_token(self, keys: IdempotencyKeys) -> str:
        """The token of a new lease under this key; the one before is not valid for it."""
        self.generation += 1
        return self.token(keys)


class IdempotencyKeys:
    """The keys of one supervisor; each identity has keys of its own."""

    def __init__(self) -> None:
        self.secret = tokens.new_secret()
        self._entries: OrderedDict[tuple[str, str], Entry] = OrderedDict()

    @contextlib.asynccontextmanager
    async def exclusive(self, owner: str, key: str, decision: Decision) -> AsyncIterator[Entry]:
        """The entry of that identity's key, one caller at a time. Raises RequestError ``idempotency_key_reused``."""
        fingerprint = decision.fingerprint()
        entry = self._entries.get((owner, key)) or Entry(
            owner=owner, key=key, fingerprint=fingerprint, lock=asyncio.Lock()
        )
        if entry.fingerprint != fingerprint:
            raise RequestError(
                "idempotency_key_reused", "cannot lease: this Idempotency-Key was used with another request"
            )
        self._entries[owner, key] = entry
        self._entries.move_to_end((owner, key))
        while len(self._entries) > KEYS_KEPT:
            self._entries.popitem(last=False)
        async with entry.lock:
            yield entry
