"""From messages to one prompt: the contract's rules, limits and words."""

from __future__ import annotations

from typing import Any

import pytest

from shared.errors import RequestError
from worker.prompt import MAX_PROMPT_BYTES, read_prompt


def user(content: Any) -> dict[str, Any]:
    """One user message."""
    return {"role": "user", "content": content}


@pytest.mark.parametrize(
    ("body", "text", "system"),
    [
        ({"messages": [user("  as it is \n")]}, "  as it is \n", ""),
        ({"messages": [user("-p --version")]}, "-p --version", ""),
        ({"messages": [{"role": "system", "content": "S"}, user("U")]}, "U", "S"),
        ({"messages": [{"role": "developer", "content": "D"}, user("U"), {"role": "System", "content": "S"}]}, "U", "D\n\nS"),
        ({"messages": [user("a"), {"role": "assistant", "content": "b"}, user("c")]}, "user: a\nassistant: b\nuser: c", ""),
        ({"messages": [{"role": " Assistant ", "content": "b"}]}, "assistant: b", ""),
        ({"messages": [user([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])]}, "ab", ""),
        ({"prompt": "raw", "messages": [user("ignored")]}, "raw", ""),
        ({"prompt": None, "messages": [user("x")]}, "x", ""),
        ({"prompt": "x" * MAX_PROMPT_BYTES}, "x" * MAX_PROMPT_BYTES, ""),
    ],
)  # fmt: skip
def test_a_prompt_is_made(body: dict[str, Any], text: str, system: str):
    """Verbatim, as a transcript, or raw; instructions apart."""
    prompt = read_prompt(body)
    assert (prompt.text, prompt.system) == (text, system)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "expected a prompt string or a messages array"),
        ({"messages": None}, "messages must be an array"),
        ({"messages": {}}, "messages must be an array"),
        ({"messages": []}, "messages must not be empty"),
        ({"messages": [user("x")] * 129}, "messages exceeds the 128-message limit"),
        ({"messages": ["x"]}, "messages[0] must be an object"),
        ({"messages": [user("x"), {"content": "x"}]}, "messages[1].role must be a string"),
        ({"messages": [{"role": 5, "content": "x"}]}, "messages[0].role must be a string"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role is unsupported"),
        ({"messages": [user("")]}, "messages[0].content must be a non-empty UTF-8 string"),
        ({"messages": [user(" \n")]}, "messages[0].content must be a non-empty UTF-8 string"),
        ({"messages": [user(None)]}, "messages[0].content must be a non-empty UTF-8 string"),
        ({"messages": [user([])]}, "messages[0].content must be a non-empty UTF-8 string"),
        (
            {"messages": [user([{"type": "image_url"}])]},
            "only parts of type text are supported, not 'image_url'",
        ),
        ({"messages": [user(["text"])]}, "only parts of type text are supported"),
        ({"messages": [user([{"type": "text", "text": 5}])]}, "messages[0].content[0].text must be a string"),
        ({"messages": [{"role": "system", "content": "only"}]}, "messages must contain a user message"),
        ({"prompt": 5}, "prompt must be a string"),
        ({"prompt": " "}, "prompt must not be empty"),
        ({"prompt": "x" * (MAX_PROMPT_BYTES + 1)}, "prompt exceeds the 262144-byte limit"),
        ({"prompt": "é" * (MAX_PROMPT_BYTES // 2) + "x"}, "prompt exceeds the 262144-byte limit"),
        (
            {"messages": [{"role": "system", "content": "x" * MAX_PROMPT_BYTES}, user("x")]},
            "262144-byte limit",
        ),
    ],
)
def test_a_prompt_is_refused(body: dict[str, Any], words: str):
    """400, in the contract's words."""
    with pytest.raises(RequestError) as refused:
        read_prompt(body)
    assert words in refused.value.message
    assert refused.value.status == 400
