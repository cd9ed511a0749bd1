"""Every field of a chat-completions request, in one table: honoured, ignored and reported, or refused. Pure.

The names are those of OpenAI's public specification. What would change the shape or the meaning of the answer is
refused; what only tunes a model is ignored, because ordinary clients always send some of it, and the answer's
``x-asm-ignored-params`` header names it. A name that is not in the table is ignored and reported as well. What differs
between command lines comes from their provider's ``TurnOptions``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from shared.errors import RequestError
from shared.provider import TurnOptions

IGNORED_HEADER = "x-asm-ignored-params"
MAX_REPORTED = 32
MAX_NAME_CHARS = 64
Honours = Callable[[Any, TurnOptions], bool]


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """How one field is treated. A null is an absent field, always.

    ``honours`` says whether a value can be honoured; all others are refused, or ignored and reported.
    """

    honours: Honours
    is_refused: bool = False


def _only(*values: Any) -> Honours:
    """These values ask for what is done anyway; of exactly these types, because 1 == True in Python, not in JSON."""
    exact = tuple((type(value), value) for value in values)
    return lambda value, _: (type(value), value) in exact


def _format_is_taken(value: Any, options: TurnOptions) -> bool:
    kind = value.get("type") if isinstance(value, Mapping) else None
    return kind == "text" or kind in options.response_formats


HONOURED = Parameter(honours=lambda *_: True)
IGNORED = Parameter(honours=_only())
REFUSED = Parameter(honours=_only(), is_refused=True)
MAX_TOKENS = Parameter(honours=lambda _, options: options.max_tokens)

PARAMETERS: Mapping[str, Parameter] = {
    "audio": REFUSED,
    "best_of": Parameter(honours=_only(1), is_refused=True),
    "frequency_penalty": IGNORED,
    "function_call": HONOURED,  # by refusing tools in every spelling, with a code of their own
    "functions": HONOURED,
    "logit_bias": IGNORED,
    "logprobs": Parameter(honours=_only(False), is_refused=True),
    "max_completion_tokens": MAX_TOKENS,
    "max_tokens": MAX_TOKENS,
    "messages": HONOURED,
    "metadata": IGNORED,
    "modalities": Parameter(honours=_only(["text"]), is_refused=True),
    "model": HONOURED,
    "moderation": REFUSED,  # who asks for it relies on it
    "n": Parameter(honours=_only(1), is_refused=True),
    "parallel_tool_calls": IGNORED,
    "prediction": IGNORED,
    "presence_penalty": IGNORED,
    "prompt": HONOURED,
    "prompt_cache_key": IGNORED,
    "prompt_cache_options": IGNORED,
    "prompt_cache_retention": IGNORED,
    "reasoning_effort": Parameter(honours=lambda value, options: value in options.reasoning_efforts),
    "response_format": Parameter(honours=_format_is_taken, is_refused=True),
    "safety_identifier": IGNORED,
    "seed": IGNORED,
    "service_tier": Parameter(honours=_only("auto", "default")),
    "stop": HONOURED,
    "store": Parameter(honours=_only(False)),
    "stream": HONOURED,
    "stream_options": HONOURED,
    "stream_options.include_obfuscation": Parameter(honours=_only(False)),
    "stream_options.include_usage": HONOURED,
    "temperature": IGNORED,
    "tool_choice": HONOURED,
    "tool_policy": HONOURED,
    "tools": HONOURED,
    "top_logprobs": Parameter(honours=_only(0), is_refused=True),
    "top_p": IGNORED,
    "user": IGNORED,
    "verbosity": IGNORED,
    "web_search_options": REFUSED,
}
"""The table. A dotted name is a field of a field."""


def ignored_names(body: Mapping[str, Any], options: TurnOptions) -> tuple[str, ...]:
    """The fields of ``body`` that will have no effect, sorted.

    Raises RequestError ``unsupported_parameter`` for a field that cannot be ignored.
    """
    ignored = []
    for name, value in _fields(body):
        parameter = PARAMETERS.get(name, IGNORED)
        if value is None or parameter.honours(value, options):
            continue
        if parameter.is_refused:
            raise unsupported(name)
        ignored.append(name)
    return tuple(sorted(ignored))


def unsupported(name: str, cause: str = "is not supported on this cli completion endpoint") -> RequestError:
    """The refusal of a field, or of a part of it, by its name."""
    return RequestError("unsupported_parameter", f"{name} {cause}", param=name)


def report(names: tuple[str, ...]) -> str:
    """The header's value. Names are the client's own words: they are escaped, and bounded in length and number."""
    listed = [quote(name[:MAX_NAME_CHARS], safe="", errors="replace") for name in names[:MAX_REPORTED]]
    return ", ".join(listed + ["..."] * (len(names) > MAX_REPORTED))


def _fields(body: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in body.items():
        yield name, value
        if name == "stream_options" and isinstance(value, Mapping):
            for inner, inner_value in value.items():
                yield f"{name}.{inner}", inner_value
