"""The routes of one lease: health, models, chat completions, cancellation. One flow each, thin over ``stream``."""

from __future__ import annotations

import functools
import importlib.metadata
import time
from typing import Any

import falcon
from falcon.asgi import Request, Response

from shared import budget, health, http, openai, provider
from shared.errors import RequestError
from worker import openapi as description
from worker import parameters
from worker.completion import CompletionRequest, read_request
from worker.lease import ServedLease
from worker.recording import Answering, Making
from worker.session import stream
from worker.sse import EventStream
from worker.whole import WholeAnswer

MAX_BODY_BYTES = 1024 * 1024
MAX_BODY_BYTES_WITH_IMAGES = 8 * 1024 * 1024
"""Where the command line takes images."""


class Health:
    """``GET health``: what this worker is, how it is, and how busy."""

    def __init__(self, lease: ServedLease) -> None:
        self._lease = lease

    async def on_get(self, req: Request, resp: Response, lease_ref: str) -> None:
        """200 while the worker serves, well or badly."""
        spec, session = self._lease.spec, self._lease.session
        cli = provider.describe_cli(provider.load(spec.provider), spec.executable[-1], spec.cli_version)
        found = health.health(
            health.worker_reasons(
                session.capacity.board, time.monotonic_ns(), is_supported_version=cli["is_supported"]
            )
        )
        http.send_json(
            resp,
            {
                "status": found.status,
                "reasons": found.reasons,
                "endpoint_id": spec.endpoint_id,
                "lease_ref": spec.lease_ref,
                "provider": spec.provider,
                "model": spec.model,
                "cli": cli,
                "budget": budget.limits(session.capacity.ledger.budget),
                "spent": session.capacity.ledger.spent,
                "load": session.capacity.board.counts()
                | {
                    "standbys": session.pool.standbys,
                    "standby_rss_bytes": session.pool.standby_rss_bytes,
                },
            },
        )


class Models:
    """``GET v1/models`` and ``v1/models/{id}``: the one pinned model."""

    def __init__(self, lease: ServedLease) -> None:
        self._lease = lease
        self._created = int(time.time())

    async def on_get(self, req: Request, resp: Response, lease_ref: str) -> None:
        """A list of one."""
        http.send_json(resp, {"object": "list", "data": [self._model()]})

    async def on_get_one(self, req: Request, resp: Response, lease_ref: str, model_id: str) -> None:
        """The pinned model; 404 for any other."""
        if model_id != self._lease.spec.model:
            raise RequestError(
                "model_not_found", f"the model {model_id!r} does not exist here", param="model"
            )
        http.send_json(resp, self._model())

    def _model(self) -> dict[str, Any]:
        spec = self._lease.spec
        return openai.model_object(spec.model, self._created, spec.provider)


class OpenApi:
    """``GET openapi.json``."""

    async def on_get(self, req: Request, resp: Response, lease_ref: str) -> None:
        """This API, described."""
        http.send_json(resp, description.document(importlib.metadata.version("asm-endpoint")))


class ChatCompletions:
    """``POST v1/chat/completions``."""

    def __init__(self, lease: ServedLease) -> None:
        self._lease = lease

    async def on_post(self, req: Request, resp: Response, lease_ref: str) -> None:
        """Run one turn, or repeat its answer. A caller that leaves has its request cancelled, and with it the turn."""
        spec = self._lease.spec
        options = provider.load(spec.provider).turn_options
        max_bytes = MAX_BODY_BYTES_WITH_IMAGES if options.image_types else MAX_BODY_BYTES
        body = await http.read_json(req, max_bytes, spec.wire.body_s)
        request = read_request(body, model=spec.model, streaming=spec.streaming, options=options)
        if request.ignored:
            resp.set_header(parameters.IGNORED_HEADER, parameters.report(request.ignored))
        answer = self._answer(request, body, req, resp)
        await answer.open()
        if request.stream:
            _send_stream(resp, answer)
        else:
            await _send_whole(resp, answer)

    def _answer(self, request: CompletionRequest, body: Any, req: Request, resp: Response) -> Answering:
        """One that is made now, or, under an ``Idempotency-Key``, the one there is."""
        request_id = req.context.request_id
        key = http.idempotency_key(req)
        if key is None:
            return self._make(request, request_id)
        make = functools.partial(self._make, request, request_id)
        reader, is_repeat = self._lease.replays.reader(key, body, make)
        reader.known_as(request_id, self._lease.session.requests)
        if is_repeat:
            resp.set_header("idempotent-replayed", "true")
        return reader

    def _make(self, request: CompletionRequest, request_id: str) -> Making:
        session, model = self._lease.session, self._lease.spec.model
        completion_id = openai.new_completion_id()
        turn = stream(session, request.prompt, stop=request.stop, request_id=request_id)
        if not request.stream:
            return WholeAnswer(turn, completion_id=completion_id, model=model)
        encoder = openai.ChunkEncoder(
            completion_id=completion_id, model=model, include_usage=request.include_usage
        )
        return EventStream(turn, encoder, session.limits)


class Cancellations:
    """``POST v1/requests/{request_id}/cancel``: by the ``x-request-id`` of a completion."""

    def __init__(self, lease: ServedLease) -> None:
        self._lease = lease

    async def on_post(self, req: Request, resp: Response, lease_ref: str, request_id: str) -> None:
        """End what waits or runs under that id: its callers get ``turn_cancelled``. 404 when nothing does."""
        if not self._lease.session.requests.cancel(request_id):
            raise RequestError("not_found", "no request of this id waits or runs here", param="request_id")
        http.send_json(resp, {"id": request_id, "object": "request", "cancelled": True})


async def _send_whole(resp: Response, answer: Answering) -> None:
    resp.content_type = falcon.MEDIA_JSON
    try:
        resp.data = b"".join([block async for block in answer])
    finally:
        await answer.close()


def _send_stream(resp: Response, events: Answering) -> None:
    resp.status = falcon.HTTP_200
    resp.content_type = "text/event-stream; charset=utf-8"
    resp.set_header("cache-control", "no-cache")
    resp.set_header("x-accel-buffering", "no")
    resp.stream = events  # type: ignore[assignment]  # Falcon takes any object with __aiter__ and close
