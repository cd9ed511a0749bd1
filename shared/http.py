"""What both Falcon applications share: bounded JSON bodies, typed errors as envelopes, request ids and one log line.

This is the last resort for exceptions: whatever is not an EndpointError is logged and answered as ``internal_error``.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import re
import time
import uuid
from collections.abc import Callable
from typing import Any

import falcon
import msgspec
from falcon.asgi import App, Request, Response

from shared import logs
from shared.cors import Cors
from shared.errors import EndpointError, RequestError, WorkerError
from shared.loopback import is_loopback_host

MAX_IDEMPOTENCY_KEY_CHARS = 256
LINGER_S = 2.0
"""How long a refused request's remaining body is read before the answer."""
_REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
FalconApp = App[Request, Response]
_encode = msgspec.json.Encoder().encode


def send_json(resp: Response, body: Any, status: str = falcon.HTTP_200) -> None:
    """Answer with JSON; msgspec structs are fine."""
    resp.status = status
    resp.content_type = falcon.MEDIA_JSON
    resp.data = _encode(body)


async def read_json(req: Request, max_bytes: int, within_s: float) -> Any:
    """The decoded body.

    Raises RequestError ``unsupported_media_type``, ``request_too_large``, ``request_timeout`` or ``invalid_request``.
    """
    _require_json(req)
    if (req.content_length or 0) > max_bytes:
        raise _too_large(max_bytes)
    body = await _read_body(req, max_bytes, within_s)
    if len(body) > max_bytes:
        raise _too_large(max_bytes)
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError("invalid_request", f"request body must be valid JSON in UTF-8: {error}") from error


def _require_json(req: Request) -> None:
    """A body that says nothing of itself may be JSON; one that says it is something else is not."""
    media_type, _, _ = (req.content_type or falcon.MEDIA_JSON).lower().partition(";")
    encoding = req.get_header("content-encoding") or "identity"
    if media_type.strip() != falcon.MEDIA_JSON and not media_type.strip().endswith("+json"):
        raise RequestError(
            "unsupported_media_type", f"request body must be {falcon.MEDIA_JSON}, not {media_type[:64]}"
        )
    if encoding.lower() != "identity":
        raise RequestError(
            "unsupported_media_type", f"request body must not be encoded, and is {encoding[:64]}"
        )


async def _read_body(req: Request, max_bytes: int, within_s: float) -> bytearray:
    """All of it, or its beginning when it is too long: the rest is read without being kept, for a moment."""
    body = bytearray()
    now = asyncio.get_running_loop().time
    try:
        async with asyncio.timeout(within_s) as limit:
            async for chunk in req.stream:
                if len(body) <= max_bytes:
                    body += chunk
                    if len(body) > max_bytes:
                        limit.reschedule(min(now() + LINGER_S, limit.when() or math.inf))
    except TimeoutError as error:
        if len(body) <= max_bytes:
            raise RequestError(
                "request_timeout", f"request body did not come within {within_s:g} s"
            ) from error
    return body


async def _discard_rest(req: Request) -> None:
    """Read on without keeping anything: closing a connection on unread data loses the answer (a TCP reset)."""
    if req.stream.eof:
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            await req.stream.exhaust()


def _too_large(max_bytes: int) -> RequestError:
    return RequestError("request_too_large", f"request body exceeds the {max_bytes}-byte limit")


def new_request_id() -> str:
    """For a request whose caller has none."""
    return f"req_{uuid.uuid4().hex}"


def idempotency_key(req: Request) -> str | None:
    """The caller's key for repeating a request safely. Raises RequestError ``invalid_request``."""
    key: str | None = req.get_header("idempotency-key")
    if key is not None and not 0 < len(key) <= MAX_IDEMPOTENCY_KEY_CHARS:
        raise RequestError(
            "invalid_request", f"Idempotency-Key must have 1 to {MAX_IDEMPOTENCY_KEY_CHARS} characters"
        )
    return key


class RequestLog:
    """Falcon middleware: gives each request an id (the caller's, when it is a plain one) and logs its end."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    async def process_request(self, req: Request, resp: Response) -> None:
        """Choose the request id."""
        given = req.get_header("x-request-id") or ""
        req.context.request_id = given if _REQUEST_ID.fullmatch(given) else new_request_id()
        req.context.started_at = time.monotonic()
        logs.begin(request_id=req.context.request_id)
        resp.set_header("x-request-id", req.context.request_id)

    async def process_response(
        self, req: Request, resp: Response, resource: object, req_succeeded: bool
    ) -> None:
        """Read what is left of the body; say and log how long it took, with method, path and status.

        Never a body or header. The line is written when the answer's first bytes are on their way.
        """
        await _discard_rest(req)
        elapsed_ms = (time.monotonic() - req.context.started_at) * 1000
        resp.set_header("openai-processing-ms", str(round(elapsed_ms)))
        answer = {"method": req.method, "path": req.path, "status": resp.status_code}
        extra = {**answer, "elapsed_ms": round(elapsed_ms, 1)}
        asyncio.get_running_loop().call_soon(functools.partial(self._logger.info, "answered", extra=extra))


class LoopbackOnly:
    """Falcon middleware: a foreign Host header means that a web page has rebound its own name to 127.0.0.1."""

    async def process_request(self, req: Request, resp: Response) -> None:
        """Raises RequestError ``misdirected_host``."""
        if not is_loopback_host(req.get_header("host")):
            raise RequestError(
                "misdirected_host", "cannot serve this Host: only loopback names are served here"
            )


class HeadAsGet:
    """Falcon middleware: whatever can be got, its head can be asked for."""

    async def process_request(self, req: Request, resp: Response) -> None:
        """Be routed as GET."""
        req.context.is_head = req.method == "HEAD"
        if req.context.is_head:
            req.method = "GET"

    async def process_response(
        self, req: Request, resp: Response, resource: object, req_succeeded: bool
    ) -> None:
        """Be answered as HEAD: Falcon then leaves the body out, and says how long it would be."""
        if req.context.is_head:
            req.method = "HEAD"
        allowed = resp.get_header("allow")
        if allowed and "GET" in allowed.split(", "):
            resp.set_header("allow", f"{allowed}, HEAD")


def new_app(logger: logging.Logger, *middleware: object, origins: Callable[[], tuple[str, ...]]) -> FalconApp:
    """An application with the request log, this middleware, and every failure as the error envelope.

    ``origins`` gives those of web pages that may use it.
    """
    ours = (RequestLog(logger), HeadAsGet(), LoopbackOnly(), Cors(origins))
    app = App(middleware=[*ours, *middleware])  # type: ignore[arg-type]
    _install_error_handlers(app, logger)
    return app


def _install_error_handlers(app: FalconApp, logger: logging.Logger) -> None:

    async def on_endpoint_error(req: Request, resp: Response, error: EndpointError, _: Any) -> None:
        _send_error(resp, error)

    async def on_http_error(req: Request, resp: Response, error: falcon.HTTPError, _: Any) -> None:
        _send_error(resp, _translated(error))
        if isinstance(error, falcon.HTTPMethodNotAllowed):
            resp.set_headers(error.headers or {})

    async def on_exception(req: Request, resp: Response, error: Exception, _: Any) -> None:
        logger.error("cannot answer %s %s", req.method, req.path, exc_info=error)
        _send_error(resp, WorkerError("internal_error", "cannot answer: an internal error was logged"))

    app.add_error_handler(Exception, on_exception)
    app.add_error_handler(falcon.HTTPError, on_http_error)
    app.add_error_handler(EndpointError, on_endpoint_error)


def _send_error(resp: Response, error: EndpointError) -> None:
    resp.stream = None
    send_json(resp, error.envelope(), falcon.code_to_http_status(error.status))
    resp.set_headers(error.headers())


def _translated(error: falcon.HTTPError) -> EndpointError:
    match error:
        case falcon.HTTPNotFound():
            return RequestError("not_found", "not found")
        case falcon.HTTPMethodNotAllowed():
            return RequestError("method_not_allowed", "this method is not allowed here")
        case _ if error.status_code < 500:
            return RequestError("invalid_request", error.description or error.title or "bad request")
    return WorkerError("internal_error", error.title or "cannot answer")
