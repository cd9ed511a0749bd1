"""From a chat-completions body to one prompt. Pure.

System and developer messages become the command line's own system prompt. A single user message goes verbatim; a
longer history is rendered as a transcript of ``role: content`` lines. Images keep their place in the text. The limits
and the wording of the errors are those of the inference contract.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from shared.errors import RequestError
from shared.sansio import Image, Prompt
from worker.images import MAX_IMAGES, read_image
from worker.parameters import unsupported

MAX_MESSAGES = 128
MAX_PROMPT_BYTES = 262_144
SYSTEM_ROLES = ("system", "developer")
ROLES = (*SYSTEM_ROLES, "user", "assistant", "tool")
OTHER_PARTS = frozenset({"file", "input_audio"})
"""Kinds of parts that OpenAI has and no command line takes."""


class _Message(msgspec.Struct, frozen=True):
    """Its pieces are texts and images, whose place in the whole text is not yet known."""

    role: str
    pieces: tuple[str | Image, ...]

    @property
    def text(self) -> str:
        return "".join(piece for piece in self.pieces if isinstance(piece, str))


def read_prompt(body: Mapping[str, Any], image_types: tuple[str, ...] = ()) -> Prompt:
    """The prompt of a request body, for a command line that takes images of these types.

    Raises RequestError ``invalid_request``, ``unsupported_parameter`` or ``context_length_exceeded``.
    """
    if body.get("prompt") is not None:
        prompt = Prompt(text=_prompt_text(body["prompt"]))
    elif "messages" in body:
        prompt = _from_messages(_messages(body["messages"], image_types))
    else:
        raise _invalid("expected a prompt string or a messages array", "messages")
    if len(prompt.text.encode()) + len(prompt.system.encode()) > MAX_PROMPT_BYTES:
        raise RequestError(
            "context_length_exceeded", f"prompt exceeds the {MAX_PROMPT_BYTES}-byte limit", param="messages"
        )
    if len(prompt.images) > MAX_IMAGES:
        raise _invalid(f"messages exceeds the {MAX_IMAGES}-image limit", "messages")
    return prompt


def _prompt_text(value: Any) -> str:
    if not isinstance(value, str):
        raise _invalid("prompt must be a string", "prompt")
    if not value.strip():
        raise _invalid("prompt must not be empty", "prompt")
    return value


def _messages(value: Any, image_types: tuple[str, ...]) -> list[_Message]:
    if not isinstance(value, list):
        raise _invalid("messages must be an array", "messages")
    if not value:
        raise _invalid("messages must not be empty", "messages")
    if len(value) > MAX_MESSAGES:
        raise _invalid(f"messages exceeds the {MAX_MESSAGES}-message limit", "messages")
    return [_message(item, f"messages[{index}]", image_types) for index, item in enumerate(value)]


def _message(item: Any, where: str, image_types: tuple[str, ...]) -> _Message:
    if not isinstance(item, dict):
        raise _invalid(f"{where} must be an object", where)
    role = item.get("role")
    if not isinstance(role, str):
        raise _invalid(f"{where}.role must be a string", f"{where}.role")
    role = role.strip().lower()
    if role not in ROLES:
        raise _invalid(f"{where}.role is unsupported", f"{where}.role")
    pieces = _pieces(item.get("content"), f"{where}.content", image_types if role == "user" else ())
    return _Message(role, pieces)


def _pieces(value: Any, where: str, image_types: tuple[str, ...]) -> tuple[str | Image, ...]:
    parts = value if isinstance(value, list) else [{"type": "text", "text": value}]
    if not isinstance(value, str | list):
        raise _empty(where)
    pieces = tuple(_piece(part, f"{where}[{index}]", image_types) for index, part in enumerate(parts))
    if all(isinstance(piece, str) and not piece.strip() for piece in pieces):
        raise _empty(where)
    return pieces


def _piece(part: Any, where: str, image_types: tuple[str, ...]) -> str | Image:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "image_url":
        return read_image(part, f"{where}.image_url", image_types)
    if kind in OTHER_PARTS:
        raise unsupported(f"{where}.{kind}")
    if kind != "text":
        raise _invalid(f"{where}: only parts of type text are supported, not {kind!r}", where)
    if not isinstance(part.get("text"), str):
        raise _invalid(f"{where}.text must be a string", f"{where}.text")
    text: str = part["text"]
    return text


def _from_messages(messages: list[_Message]) -> Prompt:
    system = "\n\n".join(message.text for message in messages if message.role in SYSTEM_ROLES)
    spoken = [message for message in messages if message.role not in SYSTEM_ROLES]
    if not spoken:
        raise _invalid("messages must contain a user message", "messages")
    if len(spoken) == 1 and spoken[0].role == "user":
        return _joined(spoken[0].pieces, system)
    breaks = ("\n" * bool(index) for index in range(len(spoken)))
    lines = (
        (f"{start}{message.role}: ", *message.pieces) for start, message in zip(breaks, spoken, strict=True)
    )
    return _joined([piece for line in lines for piece in line], system)


def _joined(pieces: Iterable[str | Image], system: str) -> Prompt:
    """One text, and each image at its place in it."""
    texts: list[str] = []
    images: list[Image] = []
    at = 0
    for piece in pieces:
        if isinstance(piece, str):
            texts.append(piece)
            at += len(piece)
        else:
            images.append(msgspec.structs.replace(piece, at=at))
    return Prompt(text="".join(texts), system=system, images=tuple(images))


def _empty(where: str) -> RequestError:
    return _invalid(f"{where} must be a non-empty UTF-8 string", where)


def _invalid(message: str, param: str) -> RequestError:
    return RequestError("invalid_request", message, param=param)
