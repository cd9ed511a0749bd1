"""From a chat-completions body to one prompt. Pure.

System and developer messages become the command line's own system prompt. A single user message goes verbatim; a
longer history is rendered as a transcript of ``role: content`` lines. The limits and the wording of the errors are
those of the inference contract.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from shared.errors import RequestError
from shared.provider import Prompt

MAX_MESSAGES = 128
MAX_PROMPT_BYTES = 262_144
SYSTEM_ROLES = ("system", "developer")
ROLES = (*SYSTEM_ROLES, "user", "assistant", "tool")


class _Message(msgspec.Struct, frozen=True):
    role: str
    content: str


def read_prompt(body: Mapping[str, Any]) -> Prompt:
    """The prompt of a request body. Raises RequestError ``invalid_request`` or ``tools_not_supported``."""
    if body.get("prompt") is not None:
        prompt = Prompt(text=_prompt_text(body["prompt"]))
    elif "messages" in body:
        prompt = _from_messages(_messages(body["messages"]))
    else:
        raise _invalid("expected a prompt string or a messages array", "messages")
    if len(prompt.text.encode()) + len(prompt.system.encode()) > MAX_PROMPT_BYTES:
        raise RequestError(
            "context_length_exceeded", f"prompt exceeds the {MAX_PROMPT_BYTES}-byte limit", param="messages"
        )
    return prompt


def _prompt_text(value: Any) -> str:
    if not isinstance(value, str):
        raise _invalid("prompt must be a string", "prompt")
    if not value.strip():
        raise _invalid("prompt must not be empty", "prompt")
    return value


def _messages(value: Any) -> list[_Message]:
    if not isinstance(value, list):
        raise _invalid("messages must be an array", "messages")
    if not value:
        raise _invalid("messages must not be empty", "messages")
    if len(value) > MAX_MESSAGES:
        raise _invalid(f"messages exceeds the {MAX_MESSAGES}-message limit", "messages")
    return [_message(item, f"messages[{index}]") for index, item in enumerate(value)]


def _message(item: Any, where: str) -> _Message:
    if not isinstance(item, dict):
        raise _invalid(f"{where} must be an object", where)
    role = item.get("role")
    if not isinstance(role, str):
        raise _invalid(f"{where}.role must be a string", f"{where}.role")
    role = role.strip().lower()
    if role not in ROLES:
        raise _invalid(f"{where}.role is unsupported", f"{where}.role")
    return _Message(role, _content(item.get("content"), f"{where}.content"))


def _content(value: Any, where: str) -> str:
    text = (
        "".join(_part(part, f"{where}[{index}]") for index, part in enumerate(value))
        if isinstance(value, list)
        else value
    )
    if not isinstance(text, str) or not text.strip():
        raise _invalid(f"{where} must be a non-empty UTF-8 string", where)
    return text


def _part(part: Any, where: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind != "text":
        raise _invalid(f"{where}: only parts of type text are supported, not {kind!r}", where)
    if not isinstance(part.get("text"), str):
        raise _invalid(f"{where}.text must be a string", f"{where}.text")
    text: str = part["text"]
    return text


def _from_messages(messages: list[_Message]) -> Prompt:
    system = "\n\n".join(message.content for message in messages if message.role in SYSTEM_ROLES)
    spoken = [message for message in messages if message.role not in SYSTEM_ROLES]
    if not spoken:
        raise _invalid("messages must contain a user message", "messages")
    if len(spoken) == 1 and spoken[0].role == "user":
        return Prompt(text=spoken[0].content, system=system)
    return Prompt(text="\n".join(f"{message.role}: {message.content}" for message in spoken), system=system)


def _invalid(message: str, param: str) -> RequestError:
    return RequestError("invalid_request", message, param=param)
