"""Who may speak to a worker: holders of the lease's token, until it is revoked.

An unknown lease and a wrong token get the same answer, so neither can be probed for. After :meth:`Gate.close` every
token is wrong.
"""

from __future__ import annotations

from typing import Protocol

from falcon.asgi import Request, Response

from shared import tokens
from shared.errors import RequestError


class Gate:
    """The lease's token check; closed once, for good."""

    def __init__(self, lease_ref: str, token_sha256: str) -> None:
        self._prefix = f"/leases/{lease_ref}/"
        self._token_sha256 = token_sha256
        self.is_closed = False

    def close(self) -> None:
        """Revoke the token."""
        self.is_closed = True

    def admits(self, path: str, authorization: str | None) -> bool:
        """Whether the path is this lease's and the header holds its token."""
        token = tokens.bearer_token(authorization)
        is_right = token is not None and tokens.matches(token, self._token_sha256)
        return is_right and path.startswith(self._prefix) and not self.is_closed


class HasGate(Protocol):
    """A lease, as far as admission knows it."""

    gate: Gate


class Admission:
    """Falcon middleware that lets only admitted requests through."""

    def __init__(self, lease: HasGate) -> None:
        self._lease = lease

    async def process_request(self, req: Request, resp: Response) -> None:
        """Raises RequestError ``unauthorized``."""
        if not self._lease.gate.admits(req.path, req.get_header("authorization")):
            raise RequestError("unauthorized", "unauthorized")
