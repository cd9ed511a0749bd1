"""The named API tokens of one supervisor, and its admin token: who a bearer token is.

The supervisor is the only writer of its SQLite file, so all tokens are also held in memory: a look-up reads no file,
and a change counts from the next request on. Tokens are shown once and kept as SHA-256; a name is the identity and
outlives its tokens: who gets a new token of the same name finds the leases that the old one left.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import Any

import msgspec

from shared import provider, tokens
from shared.errors import RequestError, WorkerError
from supervisor.caller import ADMIN, ADMIN_NAME, Caller, CallerLimits
from supervisor.database import Database
from supervisor.views import NewToken, TokenView

TOKEN_PREFIX = "asm_"  # noqa: S105  # what scanners for leaked secrets can look for
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SELECT = "SELECT name, token_sha256, created_at_s, expires_at_s, limits FROM tokens"
_REPLACE = "INSERT OR REPLACE INTO tokens VALUES (?, ?, ?, ?, ?)"
_log = logging.getLogger("asm_endpoint.identities")


class _Held(msgspec.Struct, frozen=True, kw_only=True):
    """One named token as it is kept. Times are seconds since the epoch."""

    caller: Caller
    token_sha256: str
    created_at_s: float
    expires_at_s: float | None

    def is_over(self, now_s: float) -> bool:
        return self.expires_at_s is not None and now_s >= self.expires_at_s

    def row(self) -> tuple[Any, ...]:
        limits = msgspec.json.encode(self.caller.limits)
        return (self.caller.name, self.token_sha256, self.created_at_s, self.expires_at_s, limits)

    def view(self, now_s: float) -> TokenView:
        return TokenView(
            name=self.caller.name,
            created_at=self.created_at_s,
            expires_at=self.expires_at_s,
            is_expired=self.is_over(now_s),
            limits=self.caller.limits,
        )


class Identities:
    """Who may ask. Every change raises WorkerError ``journal_unavailable`` when it cannot be written down."""

    def __init__(
        self,
        database: Database,
        admin_token: str,
        write_admin_token: Callable[[str], None],
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._admin_sha256 = tokens.fingerprint(admin_token)
        self._write_admin_token = write_admin_token
        self._now_s = now_s
        with database.transaction() as connection:
            rows = connection.execute(_SELECT).fetchall()
        self._by_name = {row[0]: _held(*row) for row in rows}
        self._index()

    def caller(self, token: str | None) -> Caller | None:
        """Who that token is; None for none, an unknown, an expired and a revoked one alike."""
        if token is None:
            return None
        if tokens.matches(token, self._admin_sha256):
            return ADMIN
        held = self._by_sha256.get(tokens.fingerprint(token))
        return None if held is None or held.is_over(self._now_s()) else held.caller

    def is_current(self, caller: Caller) -> bool:
        """Whether the token that this caller came with has not been revoked or replaced since."""
        held = self._by_name.get(caller.name)
        return caller.is_admin or (held is not None and held.caller is caller)

    def views(self) -> list[TokenView]:
        """Every named token, expired ones too, by name; never a token itself."""
        now_s = self._now_s()
        return [held.view(now_s) for _, held in sorted(self._by_name.items())]

    def add(self, name: str, limits: CallerLimits, expires_in_s: float | None) -> NewToken:
        """A token for a new identity, or for one whose token has expired.

        Raises RequestError ``invalid_request``, ``unsupported_provider`` or ``name_taken``.
        """
        if not NAME.fullmatch(name) or name == ADMIN_NAME:
            raise RequestError(
                "invalid_request",
                f"cannot name a token {name[:64]!r}: a name has 1 to 64 letters, digits, dots, dashes and "
                f"underscores, begins with a letter or digit, and is not {ADMIN_NAME}",
                param="name",
            )
        for each in limits.providers or ():
            provider.load(each)
        now_s = self._now_s()
        if (old := self._by_name.get(name)) and not old.is_over(now_s):
            raise RequestError(
                "name_taken", f"cannot add token {name}: there is one of that name", param="name"
            )
        expires_at_s = None if expires_in_s is None else now_s + expires_in_s
        return self._keep(Caller(name=name, limits=limits), expires_at_s)

    def rotate(self, name: str) -> NewToken:
        """A new token in place of the old one, which is refused from now on; limits and expiry stay.

        The admin's is also written to its file. Raises RequestError ``not_found``, or ``invalid_request`` for
        one that has expired.
        """
        if name == ADMIN_NAME:
            token = tokens.mint()
            self._write_admin_token(token)
            self._admin_sha256 = tokens.fingerprint(token)
            _log.info("token %s replaced", name)
            return NewToken(name=name, token=token, expires_at=None)
        old = self._by_name.get(name)
        if old is None:
            raise _unknown(name)
        if old.is_over(self._now_s()):
            raise RequestError("invalid_request", f"cannot replace token {name}: it has expired; add it anew")
        return self._keep(Caller(name=name, limits=old.caller.limits), old.expires_at_s)

    def revoke(self, name: str) -> None:
        """Refuse the token from now on, even if that cannot be written down. Raises RequestError ``not_found``."""
        was_held = self._by_name.pop(name, None) is not None
        self._index()
        with self._database.transaction() as connection:
            was_written = connection.execute("DELETE FROM tokens WHERE name = ?", (name,)).rowcount > 0
        if not (was_held or was_written):
            raise _unknown(name)
        _log.info("token %s revoked", name)

    def _keep(self, caller: Caller, expires_at_s: float | None) -> NewToken:
        token = TOKEN_PREFIX + tokens.mint()
        held = _Held(
            caller=caller,
            token_sha256=tokens.fingerprint(token),
            created_at_s=self._now_s(),
            expires_at_s=expires_at_s,
        )
        with self._database.transaction() as connection:
            connection.execute(_REPLACE, held.row())
        self._by_name[caller.name] = held
        self._index()
        _log.info("token %s made", caller.name)
        return NewToken(name=caller.name, token=token, expires_at=expires_at_s)

    def _index(self) -> None:
        self._by_sha256 = {held.token_sha256: held for held in self._by_name.values()}


def _held(
    name: str, token_sha256: str, created_at_s: float, expires_at_s: float | None, limits: bytes
) -> _Held:
    try:
        decoded = msgspec.json.decode(limits, type=CallerLimits)
    except msgspec.MsgspecError as error:
        raise WorkerError(
            "journal_unavailable", f"cannot read the limits of token {name}: they are of a newer program"
        ) from error
    return _Held(
        caller=Caller(name=name, limits=decoded),
        token_sha256=token_sha256,
        created_at_s=created_at_s,
        expires_at_s=expires_at_s,
    )


def _unknown(name: str) -> RequestError:
    return RequestError("not_found", f"cannot find token {name[:64]!r}")
