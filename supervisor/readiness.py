"""Waiting for a worker's first answer. No polling: the request waits in the kernel's backlog until it is served.

One request line and one status line are all that is spoken, so this is done on a plain stream: an HTTP client library
would be the serving process's largest import and a third of the time of a lease.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from urllib.parse import urlsplit

from shared import logs
from shared.errors import WorkerError
from shared.logs import message_of
from supervisor.table import LeaseRecord

EXPECTED_STATUS = b"200"


async def until_ready(record: LeaseRecord, token: str, timeout_s: float) -> None:
    """Return at the first 200. Raises WorkerError ``boot_failed``: the connection was reset, or time is up."""
    try:
        async with asyncio.timeout(timeout_s):
            status = await _status(record, token)
    except TimeoutError:
        raise _failed(record, f"no answer in {timeout_s:g} s") from None
    except OSError as error:
        raise _failed(record, error.strerror or type(error).__name__) from error
    if status != EXPECTED_STATUS:
        cause = f"health answered {status.decode(errors='replace')}" if status else "connection closed"
        raise _failed(record, cause)


async def _status(record: LeaseRecord, token: str) -> bytes:
    url = urlsplit(record.base_url.removesuffix("/v1") + "/health")
    given = logs.bound("request_id")
    request_id = f"x-request-id: {given}\r\n" if given else ""
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
        writer.write(
            f"GET {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: Bearer {token}\r\n{request_id}"
            "Connection: close\r\n\r\n".encode()
        )
        fields = (await reader.readline()).split()
        return fields[1] if len(fields) > 1 else b""
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _failed(record: LeaseRecord, cause: str) -> WorkerError:
    return WorkerError("boot_failed", f"cannot boot the worker: {cause}; {_log_tail(record)}")


def _log_tail(record: LeaseRecord) -> str:
    try:
        lines = (Path(record.lease_dir) / "worker.log").read_text(errors="replace").strip().splitlines()
    except OSError:
        return "no worker log"
    return message_of(lines[-1]) if lines else "empty worker log"
