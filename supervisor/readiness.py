"""Waiting for a worker's first answer. No polling: the request waits in the kernel's backlog until it is served."""

from __future__ import annotations

from pathlib import Path

import httpx

from shared.errors import WorkerError
from supervisor.table import LeaseRecord


class ReadinessProbe:
    """Asks workers for their health."""

    def __init__(self, timeout_s: float) -> None:
        self._client = httpx.AsyncClient(timeout=timeout_s, trust_env=False)

    async def wait(self, record: LeaseRecord, token: str) -> None:
        """Return at the first 200. Raises WorkerError ``boot_failed``: the connection was reset, or time is up."""
        url = record.base_url.removesuffix("/v1") + "/health"
        try:
            answer = await self._client.get(
                url, headers={"authorization": f"Bearer {token}", "connection": "close"}
            )
        except httpx.HTTPError as error:
            cause = f"{type(error).__name__}; {_log_tail(record)}"
            raise WorkerError("boot_failed", f"cannot boot the worker: {cause}") from error
        if answer.status_code != 200:
            raise WorkerError("boot_failed", f"cannot boot the worker: health answered {answer.status_code}")

    async def close(self) -> None:
        """Close the client."""
        await self._client.aclose()


def _log_tail(record: LeaseRecord) -> str:
    try:
        lines = (Path(record.lease_dir) / "worker.log").read_text(errors="replace").strip().splitlines()
    except OSError:
        return "no worker log"
    return lines[-1] if lines else "empty worker log"
