"""A chat with one leased endpoint, over plain HTTP: just enough to show that it answers."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec

from shared.contracts import EndpointDescriptor
from shared.errors import EndpointError, WorkerError
from supervisor.errors import from_envelope

TIMEOUT_S = 660.0
"""Longer than the worker's own bound on a whole turn, which answers with a typed error."""
PATH = "/chat/completions"
EVENT = "data: "
END = "[DONE]"


class Chat:
    """One endpoint's completions; a context manager. Every call raises the typed errors of :mod:`shared.errors`."""

    def __init__(self, descriptor: EndpointDescriptor) -> None:
        self._model = descriptor.model_identity
        self._http = httpx.Client(
            base_url=descriptor.base_url, headers=descriptor.headers, timeout=TIMEOUT_S, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._http.close()

    def complete(self, message: str) -> str:
        """The whole answer."""
        try:
            answer = self._http.post(PATH, json=self._body(message, stream=False))
        except httpx.HTTPError as error:
            raise _lost(error) from error
        if not answer.is_success:
            raise _refusal(answer)
        text: str = answer.json()["choices"][0]["message"]["content"]
        return text

    def stream(self, message: str) -> Iterator[str]:
        """The answer's pieces as they come."""
        try:
            with self._http.stream("POST", PATH, json=self._body(message, stream=True)) as answer:
                if not answer.is_success:
                    answer.read()
                    raise _refusal(answer)
                yield from _pieces(answer.iter_lines())
        except httpx.HTTPError as error:
            raise _lost(error) from error

    def _body(self, message: str, *, stream: bool) -> dict[str, Any]:
        messages = [{"role": "user", "content": message}]
        return {"model": self._model, "messages": messages, "stream": stream}


def _pieces(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if not line.startswith(EVENT):
            continue
        event = line.removeprefix(EVENT)
        if event == END:
            return
        chunk = msgspec.json.decode(event)
        if "error" in chunk:
            raise from_envelope(chunk, 200)
        for choice in chunk["choices"]:
            if piece := choice["delta"].get("content"):
                yield piece
    raise WorkerError("internal_error", "cannot complete: the stream ended before its end")


def _refusal(answer: httpx.Response) -> EndpointError:
    try:
        body = answer.json()
    except ValueError:
        body = None
    return from_envelope(body, answer.status_code, answer.headers)


def _lost(error: httpx.HTTPError) -> WorkerError:
    return WorkerError("internal_error", f"cannot reach the endpoint: {type(error).__name__}")
