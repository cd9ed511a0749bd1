"""One log line for the end of each request for a turn: how it ended, how long it took, what it used.

Neither prompt nor answer is in it, nor the words of an error, which may quote them; unless contents are to be logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

from shared.errors import EndpointError
from shared.result import Projection
from shared.sansio import Prompt

_log = logging.getLogger("asm_endpoint.turn")


@contextlib.asynccontextmanager
async def of_request(
    request_id: str | None, prompt: Prompt, projection: Projection, *, with_content: bool
) -> AsyncIterator[None]:
    """Around the whole of it, from before it has a place."""
    started = time.monotonic()
    outcome, words = "internal_error", None
    try:
        yield
        outcome = "completed"
    except EndpointError as error:
        outcome, words = error.code, error.message
        raise
    except (asyncio.CancelledError, GeneratorExit):
        outcome = "cancelled"
        raise
    finally:
        elapsed_ms = round((time.monotonic() - started) * 1e3, 1)
        fields = {"outcome": outcome, "elapsed_ms": elapsed_ms, **_used(projection)}
        if with_content:
            fields |= {"error": words, **_content(prompt, projection)}
        _log.info("completion ended", extra={"request_id": request_id, **fields})


def _used(projection: Projection) -> dict[str, Any]:
    usage = projection.completion.usage
    if usage is None:
        return {}
    return {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}


def _content(prompt: Prompt, projection: Projection) -> dict[str, str]:
    answer = projection.completion
    return {
        "system": prompt.system,
        "prompt": prompt.text,
        "reasoning": answer.reasoning,
        "answer": answer.text,
    }
