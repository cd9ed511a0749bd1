"""The supervisor's HTTP surface, thin over the service.

Only loopback Hosts are served, and all routes but ``/healthz`` need the admin token.
"""

from __future__ import annotations

import importlib.metadata
import logging
from typing import Any

import falcon
import msgspec
from falcon.asgi import Request, Response

from shared import http, tokens
from shared.contracts import parse_consumer_manifest, parse_context, parse_lease_options, parse_request
from shared.errors import RequestError
from shared.loopback import is_loopback_host
from supervisor import metrics, openapi
from supervisor.caller import ADMIN
from supervisor.service import Service

MAX_BODY_BYTES = 1024 * 1024
OPEN_PATHS = frozenset({"/healthz"})
MAX_IDEMPOTENCY_KEY_CHARS = 256
_log = logging.getLogger("asm_endpoint.api")


class Admission:
    """Falcon middleware: loopback Host, and who asks, as ``req.context.caller``."""

    def __init__(self, admin_token_sha256: str) -> None:
        self._admin_token_sha256 = admin_token_sha256

    async def process_request(self, req: Request, resp: Response) -> None:
        """Raises RequestError ``misdirected_host`` or ``unauthorized``."""
        if not is_loopback_host(req.get_header("host")):
            raise RequestError(
                "misdirected_host", "cannot serve this Host: only loopback names are served here"
            )
        token = tokens.bearer_token(req.get_header("authorization"))
        if req.path not in OPEN_PATHS and not (token and tokens.matches(token, self._admin_token_sha256)):
            raise RequestError(
                "unauthorized", "unauthorized: the admin token is in the state folder's admin.token"
            )
        req.context.caller = ADMIN


class Resource:
    """A route over the service."""

    def __init__(self, service: Service) -> None:
        self._service = service


class Healthz(Resource):
    """``GET /healthz``."""

    async def on_get(self, req: Request, resp: Response) -> None:
        """200 while leases can be made, 503 otherwise."""
        is_healthy = self._service.is_healthy
        status = falcon.HTTP_200 if is_healthy else falcon.HTTP_503
        http.send_json(resp, {"status": "ok" if is_healthy else "unavailable"}, status)


class Metrics(Resource):
    """``GET /metrics``."""

    async def on_get(self, req: Request, resp: Response) -> None:
        """Prometheus' text format."""
        resp.content_type = metrics.CONTENT_TYPE
        resp.text = metrics.render(self._service.show_all(req.context.caller))


class OpenApi:
    """``GET /openapi.json``."""

    async def on_get(self, req: Request, resp: Response) -> None:
        """This API, described."""
        http.send_json(resp, openapi.document(importlib.metadata.version("asm-endpoint")))


class Manifest(Resource):
    """``GET /v1/consumer-manifest``."""

    async def on_get(self, req: Request, resp: Response) -> None:
        """The manifest of a consumer that fits."""
        http.send_json(resp, self._service.consumer_manifest())


class Providers(Resource):
    """``GET /v1/providers``."""

    async def on_get(self, req: Request, resp: Response) -> None:
        """Publications, and what is installed."""
        http.send_json(resp, {"providers": await self._service.providers()})


class Endpoints(Resource):
    """``/v1/endpoints``: ensure and list."""

    async def on_post(self, req: Request, resp: Response) -> None:
        """201 with descriptor and compatibility; 409 with the compatibility when it is no."""
        body = await _object(req)
        if unknown := set(body) - {"request", "consumer_manifest", "context", "lease"}:
            raise RequestError("invalid_request", f"unknown field {min(unknown)!r}", param=min(unknown))
        manifest = body.get("consumer_manifest")
        ensured = await self._service.ensure(
            parse_request(body.get("request")),
            self._service.consumer_manifest() if manifest is None else parse_consumer_manifest(manifest),
            parse_context(body.get("context")),
            parse_lease_options(body.get("lease")),
            req.context.caller,
            _idempotency_key(req),
        )
        http.send_json(resp, ensured, falcon.HTTP_201)

    async def on_get(self, req: Request, resp: Response) -> None:
        """Every lease."""
        http.send_json(resp, {"endpoints": self._service.show_all(req.context.caller)})


class Endpoint(Resource):
    """``/v1/endpoints/{lease_ref}``: show and release."""

    async def on_get(self, req: Request, resp: Response, lease_ref: str) -> None:
        """One lease."""
        http.send_json(resp, self._service.show(lease_ref, req.context.caller))

    async def on_delete(self, req: Request, resp: Response, lease_ref: str) -> None:
        """End it; the answer holds the proof."""
        http.send_json(resp, await self._service.release(lease_ref, req.context.caller))

    async def on_post_renew(self, req: Request, resp: Response, lease_ref: str) -> None:
        """A new expiry."""
        body = await _object(req)
        try:
            ttl_s = msgspec.convert(body, openapi.Renewal).ttl_s
        except msgspec.ValidationError as error:
            raise RequestError("invalid_request", f"cannot read renewal: {error}", param="ttl_s") from error
        parse_lease_options({"ttl_s": ttl_s})
        http.send_json(resp, self._service.renew(lease_ref, ttl_s, req.context.caller))


async def _object(req: Request) -> dict[str, Any]:
    body = await http.read_json(req, MAX_BODY_BYTES)
    if not isinstance(body, dict):
        raise RequestError("invalid_request", "request body must be a JSON object")
    return body


def _idempotency_key(req: Request) -> str | None:
    key: str | None = req.get_header("idempotency-key")
    if key is not None and not 0 < len(key) <= MAX_IDEMPOTENCY_KEY_CHARS:
        raise RequestError(
            "invalid_request", f"Idempotency-Key must have 1 to {MAX_IDEMPOTENCY_KEY_CHARS} characters"
        )
    return key


def create_app(service: Service, admin_token: str, *lifespan: object) -> http.FalconApp:
    """The application; ``lifespan`` are further Falcon middleware."""
    app = http.new_app(_log, Admission(tokens.fingerprint(admin_token)), *lifespan)
    app.add_route("/healthz", Healthz(service))
    app.add_route("/metrics", Metrics(service))
    app.add_route("/openapi.json", OpenApi())
    app.add_route("/v1/consumer-manifest", Manifest(service))
    app.add_route("/v1/providers", Providers(service))
    app.add_route("/v1/endpoints", Endpoints(service))
    endpoint = Endpoint(service)
    app.add_route("/v1/endpoints/{lease_ref}", endpoint)
    app.add_route("/v1/endpoints/{lease_ref}/renew", endpoint, suffix="renew")
    return app
