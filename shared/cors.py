"""Which web pages may speak to a server: none, but for origins that are named. The cross-origin rules of browsers.

A browser asks first (preflight, without the token), and shows a page an answer only when it names the page's origin.
No cookie is ever allowed with it: a page needs a token, as everybody does.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

import falcon
from falcon.asgi import Request, Response

from shared.errors import RequestError

ALLOWED_HEADERS = frozenset(
    {"accept", "authorization", "content-type", "idempotency-key", "user-agent", "x-request-id"}
)
ALLOWED_PREFIXES = ("openai-", "x-stainless-")
"""What OpenAI's own clients send in a browser."""
ALLOWED_METHODS = "DELETE, GET, HEAD, OPTIONS, POST"
EXPOSED_HEADERS = (
    "openai-processing-ms, retry-after, retry-after-ms, x-asm-ignored-params, x-request-id, x-should-retry"
)
MAX_AGE_S = 600
"""How long a browser need not ask again."""


class Cors:
    """Falcon middleware, to stand before whatever asks for a token. ``origins`` gives those that are allowed."""

    def __init__(self, origins: Callable[[], tuple[str, ...]]) -> None:
        self._origins = origins

    async def process_request(self, req: Request, resp: Response) -> None:
        """Answer a preflight; let an allowed page see whatever the answer will be."""
        origins = self._origins()
        if not origins:
            return
        resp.append_header("vary", "Origin")
        origin = req.get_header("origin")
        if origin not in origins:
            return
        resp.set_header("access-control-allow-origin", origin)
        resp.set_header("access-control-expose-headers", EXPOSED_HEADERS)
        if req.method == "OPTIONS" and req.get_header("access-control-request-method"):
            _answer_preflight(req, resp)


def _answer_preflight(req: Request, resp: Response) -> None:
    wanted = (req.get_header("access-control-request-headers") or "").lower().split(",")
    allowed = [name for name in map(str.strip, wanted) if _is_allowed(name)]
    resp.status = falcon.HTTP_204
    resp.set_header("access-control-allow-methods", ALLOWED_METHODS)
    resp.set_header("access-control-max-age", str(MAX_AGE_S))
    if allowed:
        resp.set_header("access-control-allow-headers", ", ".join(allowed))
    if req.get_header("access-control-request-private-network"):
        resp.set_header("access-control-allow-private-network", "true")
    resp.complete = True


def _is_allowed(name: str) -> bool:
    return name in ALLOWED_HEADERS or name.startswith(ALLOWED_PREFIXES)


def read_origin(text: str) -> str:
    """An origin as browsers write it: ``https://host`` or with a port. Raises RequestError."""
    try:
        url = urlsplit(text)
        port = "" if url.port is None else f":{url.port}"
    except ValueError as error:
        raise _unreadable(text) from error
    host = url.hostname or ""
    origin = f"{url.scheme}://{f'[{host}]' if ':' in host else host}{port}"
    if url.scheme not in ("http", "https") or not host or "*" in host or origin != text.lower():
        raise _unreadable(text)
    return origin


def _unreadable(text: str) -> RequestError:
    cause = "an origin such as https://app.example:8443 is needed, without a path or a star"
    return RequestError("invalid_request", f"cannot allow {text[:64]!r}: {cause}", param="cors_origin")
