"""Which API answers which request. Another API is one more module and its lines in here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tests.clis.models.anthropic import anthropic_error, anthropic_messages
from tests.clis.models.generative import stream_generate_content
from tests.clis.models.responses import responses
from tests.clis.models.steps import SendJson, Step, Steps


def hello(_body: Any, _serial: int) -> Iterator[Step]:
    """What command lines ask for at start-up, to see whether the server is there."""
    yield SendJson(status=200, body={})


def count_tokens(_body: Any, _serial: int) -> Iterator[Step]:
    """What gemini asks for before it sends an image."""
    yield SendJson(status=200, body={"totalTokens": 1})


def no_such_page(_body: Any, serial: int) -> Iterator[Step]:
    """Everything else."""
    yield anthropic_error(404, serial)


ROUTES: tuple[tuple[re.Pattern[str], Steps], ...] = (
    (re.compile(r"HEAD /(?:api/hello)?"), hello),
    (re.compile(r"POST /v1/messages"), anthropic_messages),
    (re.compile(r"POST /v1/responses"), responses),
    (re.compile(r"POST /v1beta/models/[^/]+:streamGenerateContent"), stream_generate_content),
    (re.compile(r"POST /v1beta/models/[^/]+:countTokens"), count_tokens),
)


def steps_of(method: str, path: str) -> Steps:
    """What answers a request for ``path``, whose query does not count."""
    page = f"{method} {path.partition('?')[0]}"
    return next((steps for pattern, steps in ROUTES if pattern.fullmatch(page)), no_such_page)
