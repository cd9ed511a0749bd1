"""Who may speak to a supervisor: the bearer of the admin's token, or of an identity's where a resource is for all.

An unknown, an expired and a revoked token get the same answer. What a caller may have of a resource is for the
service to say.
"""

from __future__ import annotations

from typing import Any

from falcon.asgi import Request, Response

from shared import tokens
from shared.errors import RequestError
from supervisor.caller import Caller, unauthorized
from supervisor.identities import Identities

OPEN_PATHS = frozenset({"/healthz"})


class Authentication:
    """Falcon middleware: who asks, as ``req.context.caller``."""

    def __init__(self, identities: Identities) -> None:
        self._identities = identities

    async def process_request(self, req: Request, resp: Response) -> None:
        """Say who asks. Raises RequestError ``unauthorized``."""
        caller = self._identities.caller(tokens.bearer_token(req.get_header("authorization")))
        if caller is None and req.path not in OPEN_PATHS:
            raise unauthorized()
        req.context.caller = caller

    async def process_resource(
        self, req: Request, resp: Response, resource: object, params: dict[str, Any]
    ) -> None:
        """Keep all but the admin from what is not for everybody. Raises RequestError ``not_permitted``."""
        caller: Caller | None = req.context.caller
        if caller and not caller.is_admin and not getattr(resource, "IS_FOR_EVERY_CALLER", False):
            raise RequestError("not_permitted", "cannot do this with an API token: the admin's is needed")
