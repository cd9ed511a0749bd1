"""One HTTP exchange, taken from the bytes that went over a connection both ways. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TypeAlias

import h11
import msgspec

Event: TypeAlias = h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]
DONE = "[DONE]"
ENDS = (
    "peer closed connection without sending complete message body",
    "can't handle event type ConnectionClosed",
)
"""h11's words for a connection that ends before the answer does."""


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """A request and what came back for it."""

    method: str
    path: str
    asked: bytes
    status: int
    """0 where nothing came back."""
    headers: dict[str, str]
    """With names in lower case."""
    content: bytes
    is_whole: bool
    """Whether the answer came to its end."""

    @property
    def is_stream(self) -> bool:
        """Whether the answer is a stream of events."""
        return self.headers.get("content-type", "").startswith("text/event-stream")

    @property
    def includes_usage(self) -> bool:
        """Whether the request asked for usage in the stream."""
        try:
            options = json.loads(self.asked)["stream_options"] or {}
            return options.get("include_usage") is True
        except (ValueError, KeyError, TypeError, AttributeError):
            return False

    def events(self) -> list[str]:
        """The data of a stream's whole events, comments left out."""
        *whole, _ = self.content.decode().split("\n\n")
        return [event.removeprefix("data: ") for event in whole if not event.startswith(":")]


def exchanges(sent: bytes, received: bytes) -> list[Exchange]:
    """Every exchange of one connection that was answered. Raises h11.ProtocolError when it is not HTTP/1.1."""
    client, answers = h11.Connection(h11.CLIENT), h11.Connection(h11.SERVER)
    answers.receive_data(sent)
    client.receive_data(received)
    client.receive_data(b"")
    return list(_pairs(answers, client))


def _pairs(requests: h11.Connection, responses: h11.Connection) -> Iterator[Exchange]:
    while isinstance(request := requests.next_event(), h11.Request):
        responses.send(request)
        body = b""
        while isinstance(event := requests.next_event(), h11.Data):
            body += event.data
            responses.send(event)
        if isinstance(event, h11.EndOfMessage):
            responses.send(event)
        yield (exchange := _answered(request, body, responses))
        if not exchange.is_whole or responses.states != {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
            return
        responses.start_next_cycle()
        _finish_cycle(requests)


def _answered(request: h11.Request, body: bytes, responses: h11.Connection) -> Exchange:
    response = _next(responses)
    while isinstance(response, h11.InformationalResponse):
        response = _next(responses)
    content, event = b"", None
    if isinstance(response, h11.Response):
        while isinstance(event := _next(responses), h11.Data):
            content += event.data
    return Exchange(
        method=request.method.decode(),
        path=request.target.decode(),
        asked=body,
        status=response.status_code if isinstance(response, h11.Response) else 0,
        headers=_headers(response) if isinstance(response, h11.Response) else {},
        content=content,
        is_whole=isinstance(event, h11.EndOfMessage),
    )


def _headers(response: h11.Response) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in response.headers}


def _next(connection: h11.Connection) -> Event | None:
    """The next event; None where the server's bytes end before or in the middle of an answer."""
    try:
        return connection.next_event()
    except h11.RemoteProtocolError as error:
        if any(end in str(error) for end in ENDS):
            return None
        raise


def _finish_cycle(requests: h11.Connection) -> None:
    """Say that the request was answered; with what does not matter here."""
    requests.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
    requests.send(h11.EndOfMessage())
    if requests.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
        requests.start_next_cycle()
