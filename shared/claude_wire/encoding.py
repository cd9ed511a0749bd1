"""One turn as the lines that ``claude -p`` is given: its settings if it has any, ``initialize``, the user message.

* Only the first ``initialize`` counts; it carries the turn's system prompt, and the answer's JSON schema.
* ``client_composed`` keeps ``@file`` and ``/command`` prompts plain text; for versions that do not know it,
  a line break before a ``/`` does. In a list of parts only the last one could be a command.
* An ``apply_flag_settings`` control request before the message sets the turn's effort and its most output tokens.
"""

from __future__ import annotations

from typing import Any

import msgspec

from shared.sansio import Image, Prompt

COMMAND_START = "/"
MAX_TOKENS_VARIABLE = "CLAUDE_CODE_MAX_OUTPUT_TOKENS"
_encode = msgspec.json.Encoder().encode


def encoded(prompt: Prompt, *, hides_commands: bool) -> bytes:
    """The lines of this turn; ``hides_commands`` from a version that would run a ``/command``."""
    lines = [_initialize(prompt), _user_message(prompt, hides_commands=hides_commands)]
    if settings := _settings(prompt):
        lines.insert(0, _request({"subtype": "apply_flag_settings", "settings": settings}))
    return b"".join(_encode(line) + b"\n" for line in lines)


def _initialize(prompt: Prompt) -> dict[str, Any]:
    request: dict[str, Any] = {"subtype": "initialize", "hooks": None, "systemPrompt": [prompt.system]}
    if prompt.output_schema is not None:
        request["jsonSchema"] = prompt.output_schema
    return _request(request)


def _request(request: dict[str, Any]) -> dict[str, Any]:
    return {"type": "control_request", "request_id": request["subtype"], "request": request}


def _settings(prompt: Prompt) -> dict[str, Any]:
    """What the turn sets of claude's own settings."""
    settings: dict[str, Any] = {}
    if prompt.max_tokens is not None:
        settings["env"] = {MAX_TOKENS_VARIABLE: str(prompt.max_tokens)}
    if prompt.reasoning_effort is not None:
        settings["effortLevel"] = prompt.reasoning_effort
    return settings


def _user_message(prompt: Prompt, *, hides_commands: bool) -> dict[str, Any]:
    return {
        "type": "user",
        "message": {"role": "user", "content": _content(prompt, hides_commands=hides_commands)},
        "parent_tool_use_id": None,
        "session_id": "",
        "client_composed": True,
    }


def _content(prompt: Prompt, *, hides_commands: bool) -> str | list[dict[str, Any]]:
    parts = prompt.parts()
    last = parts[-1]
    if hides_commands and isinstance(last, str) and last.startswith(COMMAND_START):
        parts[-1] = f"\n{last}"
    return "".join(map(str, parts)) if not prompt.images else [_block(part) for part in parts]


def _block(part: str | Image) -> dict[str, Any]:
    """A content block of Anthropic's."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    source = {"type": "base64", "media_type": part.media_type, "data": part.base64}
    return {"type": "image", "source": source}
