"""The supervisor's HTTP surface, thin over the service.

Only loopback Hosts are served, and all routes but ``/healthz`` need a token: the admin's, or where a resource says so
that of any identity.
"""

from __future__ import annotations

import importlib.metadata
import logging
from typing import Any, ClassVar

import falcon
import msgspec
from falcon.asgi import Request, Response

from shared import http
from shared.contracts import parse_consumer_manifest, parse_context, parse_lease_options, parse_request
from shared.errors import RequestError
from shared.health import Status
from shared.reading import parse
from supervisor import metrics, openapi
from supervisor.auth import Authentication
from supervisor.identities import Identities
from supervisor.selection import Selection
from supervisor.service import Service

MAX_BODY_BYTES = 1024 * 1024
_log = logging.getLogger("asm_endpoint.api")


class Resource:
    """A route over the service; the admin's alone unless it says otherwise."""

    IS_FOR_EVERY_CALLER: ClassVar[bool] = False

    def __init__(self, service: Service) -> None:
        self._service = service

    async def _object(self, req: Request) -> dict[str, Any]:
        body = await http.read_json(req, MAX_BODY_BYTES, self._service.wire.body_s)
        if not isinstance(body, dict):
            raise RequestError("invalid_request", "request body must be a JSON object")
        return body


class Healthz(Resource):
    """``GET /healthz``."""

    IS_FOR_EVERY_CALLER = True

    async def on_get(self, req: Request, resp: Response) -> None:
        """200 while leases can be made, 503 otherwise."""
        health = self._service.health()
        http.send_json(
            resp, health, falcon.HTTP_503 if health.status is Status.UNAVAILABLE else falcon.HTTP_200
        )


class Metrics(Resource):
    """``GET /metrics``."""

    async def on_get(self, req: Request, resp: Response) -> None:
        """In the format that the scraper prefers."""
        resp.data, resp.content_type = self._service.metrics.render(req.get_header("accept"))


class Counted:
    """Falcon middleware: counts answers by route and status."""

    def __init__(self, metrics: metrics.Metrics) -> None:
        self._metrics = metrics

    async def process_response(
        self, req: Request, resp: Response, resource: object, req_succeeded: bool
    ) -> None:
        """Whatever the answer is."""
        self._metrics.answered(req.uri_template, resp.status_code)


class OpenApi:
    """``GET /openapi.json``."""

    IS_FOR_EVERY_CALLER = True

    async def on_get(self, req: Request, resp: Response) -> None:
        """This API, described."""
        http.send_json(resp, openapi.document(importlib.metadata.version("asm-endpoint")))


class Manifest(Resource):
    """``GET /v1/consumer-manifest``."""

    IS_FOR_EVERY_CALLER = True

    async def on_get(self, req: Request, resp: Response) -> None:
        """The manifest of a consumer that fits."""
        http.send_json(resp, self._service.consumer_manifest())


class Providers(Resource):
    """``GET /v1/providers``."""

    IS_FOR_EVERY_CALLER = True

    async def on_get(self, req: Request, resp: Response) -> None:
        """Publications, and what is installed."""
        http.send_json(resp, {"providers": await self._service.providers()})


class Endpoints(Resource):
    """``/v1/endpoints``: ensure, list, and release many at once."""

    IS_FOR_EVERY_CALLER = True

    async def on_post(self, req: Request, resp: Response) -> None:
        """201 with descriptor and compatibility; 409 with the compatibility when it is no."""
        body = await self._object(req)
        if unknown := set(body) - {"request", "consumer_manifest", "context", "lease"}:
            raise RequestError("invalid_request", f"unknown field {min(unknown)!r}", param=min(unknown))
        manifest = body.get("consumer_manifest")
        ensured = await self._service.ensure(
            parse_request(body.get("request")),
            self._service.consumer_manifest() if manifest is None else parse_consumer_manifest(manifest),
            parse_context(body.get("context")),
            parse_lease_options(body.get("lease")),
            req.context.caller,
            http.idempotency_key(req),
        )
        http.send_json(resp, ensured, falcon.HTTP_201)

    async def on_get(self, req: Request, resp: Response) -> None:
        """Every open lease that the caller may see, of a group or an owner where one is named.

        With ``?ended=true`` before them the last ones that have ended.
        """
        selection = _selection(req, "ended")
        ended = bool(req.get_param_as_bool("ended"))
        http.send_json(resp, {"endpoints": self._service.catalogue.show_all(selection, ended=ended)})

    async def on_delete(self, req: Request, resp: Response) -> None:
        """End those of a group or an owner at once; the answer holds every proof."""
        selection = _selection(req)
        if not selection.is_narrowed:
            raise RequestError("invalid_request", "cannot release all leases: name a group or an owner")
        http.send_json(resp, {"endpoints": await self._service.release_all(selection)})


class Leave(Resource):
    """``POST /v1/leave``."""

    async def on_post(self, req: Request, resp: Response) -> None:
        """Leave every lease to another supervisor of this state folder, and end."""
        await self._service.leave()
        http.send_json(resp, {"left": True})


class Endpoint(Resource):
    """``/v1/endpoints/{lease_ref}``: show and release."""

    IS_FOR_EVERY_CALLER = True

    async def on_get(self, req: Request, resp: Response, lease_ref: str) -> None:
        """One lease."""
        http.send_json(resp, self._service.catalogue.show(lease_ref, req.context.caller))

    async def on_delete(self, req: Request, resp: Response, lease_ref: str) -> None:
        """End it; the answer holds the proof."""
        http.send_json(resp, await self._service.release(lease_ref, req.context.caller))

    async def on_get_log(self, req: Request, resp: Response, lease_ref: str) -> None:
        """The end of its log."""
        http.send_json(resp, {"log": self._service.catalogue.log(lease_ref, req.context.caller)})

    async def on_post_renew(self, req: Request, resp: Response, lease_ref: str) -> None:
        """A new expiry."""
        body = await self._object(req)
        try:
            ttl_s = msgspec.convert(body, openapi.Renewal).ttl_s
        except msgspec.ValidationError as error:
            raise RequestError("invalid_request", f"cannot read renewal: {error}", param="ttl_s") from error
        parse_lease_options({"ttl_s": ttl_s})
        http.send_json(resp, self._service.renew(lease_ref, ttl_s, req.context.caller))


class TokenResource(Resource):
    """A route over the identities; the admin's alone."""

    def __init__(self, service: Service, identities: Identities) -> None:
        super().__init__(service)
        self._identities = identities


class Tokens(TokenResource):
    """``/v1/tokens``: add and list."""

    async def on_post(self, req: Request, resp: Response) -> None:
        """201 with the token, this once."""
        wanted = parse(await self._object(req), openapi.TokenBody, code="invalid_request", noun="token")
        new = self._identities.add(wanted.name, wanted.limits, wanted.expires_in_s)
        http.send_json(resp, new, falcon.HTTP_201)

    async def on_get(self, req: Request, resp: Response) -> None:
        """Every named token, never itself."""
        http.send_json(resp, {"tokens": self._identities.views()})


class Token(TokenResource):
    """``/v1/tokens/{name}``: revoke and replace."""

    async def on_delete(self, req: Request, resp: Response, name: str) -> None:
        """Refuse it from now on; with ``?release=true`` end its leases too."""
        _known_parameters(req, {"release"})
        released = Selection(caller=req.context.caller, owner=name)
        chosen = released if req.get_param_as_bool("release") else None
        http.send_json(resp, {"revoked": True, "endpoints": await self._service.revoke(name, chosen)})

    async def on_post_rotate(self, req: Request, resp: Response, name: str) -> None:
        """A new one in its place, shown this once."""
        http.send_json(resp, self._identities.rotate(name))


def _selection(req: Request, *beside: str) -> Selection:
    _known_parameters(req, {"group", "owner", *beside})
    return Selection(caller=req.context.caller, group=req.get_param("group"), owner=req.get_param("owner"))


def _known_parameters(req: Request, known: set[str]) -> None:
    """Raises RequestError ``invalid_request``: a filter that is misspelt or doubled must not become another one."""
    for name, value in req.params.items():
        if name not in known or not isinstance(value, str):
            raise RequestError("invalid_request", f"cannot read query parameter {name[:64]!r}", param=name)


def create_app(
    service: Service, identities: Identities, *further: object, origins: tuple[str, ...] = ()
) -> http.FalconApp:
    """The application, with further Falcon middleware, for web pages of these origins too."""
    app = http.new_app(_log, Authentication(identities), *further, origins=lambda: origins)
    app.add_route("/healthz", Healthz(service))
    app.add_route("/metrics", Metrics(service))
    app.add_route("/openapi.json", OpenApi())
    app.add_route("/v1/consumer-manifest", Manifest(service))
    app.add_route("/v1/providers", Providers(service))
    app.add_route("/v1/endpoints", Endpoints(service))
    app.add_route("/v1/leave", Leave(service))
    endpoint = Endpoint(service)
    app.add_route("/v1/endpoints/{lease_ref}", endpoint)
    app.add_route("/v1/endpoints/{lease_ref}/renew", endpoint, suffix="renew")
    app.add_route("/v1/endpoints/{lease_ref}/log", endpoint, suffix="log")
    token = Token(service, identities)
    app.add_route("/v1/tokens", Tokens(service, identities))
    app.add_route("/v1/tokens/{name}", token)
    app.add_route("/v1/tokens/{name}/rotate", token, suffix="rotate")
    return app
