"""Ways for a running request to end early, each as its caller, or somebody else, would really do it."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx

from supervisor import EndpointDescriptor

TIMEOUT_S = 60.0
REQUEST_ID = "to-be-ended"
WAYS = ("client closes", "client times out", "release", "cancel route")


def end_early(
    way: str,
    descriptor: EndpointDescriptor,
    body: dict[str, Any],
    wait_for_moment: Callable[[], object],
    release: Callable[[], object],
) -> httpx.Response | None:
    """Send a completion, end it that way when the moment has come, and what its caller got, if it stayed to get it."""
    if way in ("client closes", "client times out"):
        (_close if way == "client closes" else _time_out)(descriptor, body, wait_for_moment)
        return None
    end = release if way == "release" else lambda: cancel(descriptor)
    return _wait(descriptor, body, wait_for_moment, end)


def cancel(descriptor: EndpointDescriptor, request_id: str = REQUEST_ID) -> httpx.Response:
    """Ask for it by the route."""
    url = f"{descriptor.base_url}/requests/{request_id}/cancel"
    return httpx.post(url, headers=descriptor.headers, timeout=TIMEOUT_S, trust_env=False)


def _close(
    descriptor: EndpointDescriptor, body: dict[str, Any], wait_for_moment: Callable[[], object]
) -> None:
    parts, content = urlsplit(f"{descriptor.base_url}/chat/completions"), json.dumps(body).encode()
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {len(content)}\r\n"
        f"Authorization: {descriptor.headers['authorization']}\r\n\r\n"
    )
    with socket.create_connection((parts.hostname, parts.port), timeout=TIMEOUT_S) as connection:
        connection.sendall(head.encode() + content)
        wait_for_moment()


def _time_out(
    descriptor: EndpointDescriptor, body: dict[str, Any], wait_for_moment: Callable[[], object]
) -> None:
    """The client's deadline is that moment."""
    is_running = threading.Event()
    deadline: asyncio.Timeout
    loop: asyncio.AbstractEventLoop

    async def ask() -> None:
        nonlocal deadline, loop
        loop = asyncio.get_running_loop()
        async with (
            asyncio.timeout(None) as deadline,
            httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client,
        ):
            is_running.set()
            url = f"{descriptor.base_url}/chat/completions"
            async with client.stream("POST", url, headers=descriptor.headers, json=body) as answer:
                await answer.aread()

    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(asyncio.run, ask())
        is_running.wait(TIMEOUT_S)
        wait_for_moment()
        loop.call_soon_threadsafe(lambda: deadline.reschedule(loop.time()))
        assert isinstance(asked.exception(TIMEOUT_S), TimeoutError)


def _wait(
    descriptor: EndpointDescriptor,
    body: dict[str, Any],
    wait_for_moment: Callable[[], object],
    end: Callable[[], object],
) -> httpx.Response:
    url = f"{descriptor.base_url}/chat/completions"
    headers = {**descriptor.headers, "x-request-id": REQUEST_ID}
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(
            httpx.post, url, headers=headers, json=body, timeout=TIMEOUT_S, trust_env=False
        )
        wait_for_moment()
        end()
        return asked.result(TIMEOUT_S)
