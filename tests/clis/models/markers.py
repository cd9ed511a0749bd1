"""The markers of the scripted models: a user's text in, a frozen ``Script`` out, in no API's terms.

Markers stand in the text of the last user message that has any; system prompts, ``role: system`` messages and
``<system-reminder>`` blocks at the head of a text are never searched. Of several markers of one name the LAST one
counts, because a conversation rendered into one user text still holds those of earlier turns; an earlier marker of
another name stays in force. A value ends at the first ``]]`` (that of ``tool-input`` at the first ``}]]``). An
unknown name, or a value of the wrong shape, is plain text. Without a marker the reply is ``echo: `` and the user's
text, one word per delta; markers are not echoed. Where a request demands a JSON schema, it is something with it.

The reply:

``[[text:WORDS]]`` this text instead of the echo, ``[[deltas:N]]`` the N deltas ``w0 ``, ``w1 `` ...,
``[[empty]]`` a text block without text, ``[[thinking:N]]`` N thoughts and a signature before the text,
``[[tool:NAME]]`` a tool call, with ``[[tool-input:{JSON}]]``; it comes without text unless a text is asked for, and
only as long as the conversation holds no tool result, ``[[stop:REASON]]`` the API's own stop reason, ``[[usage:IN,OUT]]``
or ``[[usage:IN,OUT,CACHED,REASONING]]`` token counts (else: words of the user's text, markers aside, and number of deltas, each at least 1).

The pace: ``[[first:SECONDS]]`` silence before the first delta, ``[[delay:SECONDS]]`` between deltas.

The failures: ``[[status:N]]`` this HTTP error instead of a reply, ``[[retry-after:SECONDS]]`` its header.
``[[refuse:CAUSE]]`` is a refusal in the API's own words, which are not the same status everywhere: ``context`` (the prompt
is too long), ``filter`` (a policy forbids it), ``key`` (there is no such key), ``quota`` (nothing is left), ``limit`` (too
many requests, over in ``retry-after``), ``plan`` (a subscription's limit, over in ``retry-after``). After the
deltas and before the end of the block, in a streamed reply only (a plain one is sent whole): ``[[error-event]]`` an
overloaded error, ``[[eof]]`` the end of the body, ``[[reset]]`` a TCP reset. ``[[hang]]`` silence until the client
leaves, after the start of the message and the text, if one is asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, TypeAlias

from shared.echo_cli import instance
from tests.clis.models.steps import Json

Refusal: TypeAlias = Literal["context", "filter", "key", "quota", "limit", "plan"]
Fault: TypeAlias = Literal["error-event", "eof", "reset", "hang"]

REFUSALS: tuple[Refusal, ...] = ("context", "filter", "key", "quota", "limit", "plan")
FAULTS: tuple[Fault, ...] = ("reset", "eof", "error-event", "hang")
MAX_DELTAS = 100_000
MAX_PAUSE_S = 60.0

_COUNT, _SECONDS = r"\d{1,9}", r"\d{1,6}(?:\.\d{1,6})?"
MARKER_SHAPES: Mapping[str, str] = {
    "text": r":.*?",
    "deltas": f":{_COUNT}",
    "empty": "",
    "thinking": f":{_COUNT}",
    "tool": r":[\w.-]+",
    "tool-input": r":\{.*?\}",
    "stop": r":[A-Za-z_]+",
    "usage": f":{_COUNT},{_COUNT}(?:,{_COUNT},{_COUNT})?",
    "first": f":{_SECONDS}",
    "delay": f":{_SECONDS}",
    "status": r":[45]\d\d",
    "refuse": f":(?:{'|'.join(REFUSALS)})",
    "retry-after": f":{_COUNT}",
    **dict.fromkeys(FAULTS, ""),
}
MARKER = re.compile(
    r"\[\[(?:" + "|".join(name + shape for name, shape in MARKER_SHAPES.items()) + r")\]\]", re.DOTALL
)
WORD = re.compile(r"\S+\s*|\s+")


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Token counts of one reply."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """The tool a scripted model asks for."""

    name: str
    arguments: Json


@dataclass(frozen=True, kw_only=True)
class Script:
    """How to answer one request, in no API's terms. ``words`` None means no text at all, () an empty text."""

    words: tuple[str, ...] | None
    is_echo: bool = False
    """Whether the words are only the user's, because no others were asked for."""
    thoughts: tuple[str, ...] = ()
    tool: ToolCall | None = None
    stop: str | None = None
    usage: Usage
    first_s: float = 0.0
    delay_s: float = 0.0
    status: int | None = None
    refusal: Refusal | None = None
    retry_after_s: int | None = None
    fault: Fault | None = None


def read_script(text: str, *, tool_answered: bool = False) -> Script:
    """The script that a user's text asks for; a conversation whose tool call was answered gets no other one."""
    asked, plain = _scan(text)
    fault = next((name for name in FAULTS if name in asked), None)
    tool = None if tool_answered else _tool(asked)
    words = _words(asked)
    is_echo = words is None and tool is None and fault != "hang"
    if is_echo:
        words = _split(f"echo: {plain}")
    thoughts = tuple(f"thought{number} " for number in range(_count(asked, "thinking")))
    return Script(
        words=words,
        is_echo=is_echo,
        thoughts=thoughts,
        tool=tool,
        stop=asked.get("stop"),
        usage=_usage(asked, plain, deltas=len(thoughts) + len(words or ())),
        first_s=_seconds(asked, "first"),
        delay_s=_seconds(asked, "delay"),
        status=int(asked["status"]) if "status" in asked else None,
        refusal=next((refusal for refusal in REFUSALS if refusal == asked.get("refuse")), None),
        retry_after_s=int(asked["retry-after"]) if "retry-after" in asked else None,
        fault=fault,
    )


def with_schema(script: Script, schema: Json) -> Json:
    """What a model that follows this JSON schema says instead of an echo."""
    answer: Json = instance(schema, "".join(script.words or ()), schema)
    return answer


def _scan(text: str) -> tuple[dict[str, str], str]:
    """The last value of each marker, and the text without markers."""
    asked: dict[str, str] = {}

    def take(match: re.Match[str]) -> str:
        name, _, value = match[0][2:-2].partition(":")
        if name == "tool-input" and not _is_json(value):
            return match[0]
        asked[name] = value
        return ""

    plain = MARKER.sub(take, text).strip()
    return asked, plain


def _is_json(text: str) -> bool:
    with suppress(ValueError):
        json.loads(text)
        return True
    return False


def _words(asked: Mapping[str, str]) -> tuple[str, ...] | None:
    if "empty" in asked:
        return ()
    if "deltas" in asked:
        return tuple(f"w{number} " for number in range(_count(asked, "deltas")))
    return _split(asked["text"]) if "text" in asked else None


def _split(text: str) -> tuple[str, ...]:
    return tuple(WORD.findall(text))


def _tool(asked: Mapping[str, str]) -> ToolCall | None:
    if "tool" not in asked:
        return None
    return ToolCall(name=asked["tool"], arguments=json.loads(asked.get("tool-input", "{}")))


def _usage(asked: Mapping[str, str], plain: str, *, deltas: int) -> Usage:
    if "usage" in asked:
        input_tokens, output_tokens, cached, reasoning = (
            int(count) for count in f"{asked['usage']},0,0".split(",")[:4]
        )
        return Usage(
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cached_tokens=cached,
            reasoning_tokens=reasoning,
        )
    return Usage(input_tokens=max(1, len(plain.split())), output_tokens=max(1, deltas))


def _count(asked: Mapping[str, str], name: str) -> int:
    return min(int(asked.get(name, 0)), MAX_DELTAS)


def _seconds(asked: Mapping[str, str], name: str) -> float:
    return min(float(asked.get(name, 0.0)), MAX_PAUSE_S)
