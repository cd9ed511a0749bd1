"""From messages to one prompt: the contract's rules, limits and words."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest

from shared.errors import RequestError
from shared.sansio import Image, Prompt
from worker.formats import ANY_OBJECT, MAX_SCHEMA_DEPTH, read_schema
from worker.images import MAX_IMAGE_BYTES, MAX_IMAGES
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
            "messages[0].content[0].image_url is not supported on this cli completion endpoint",
        ),
        (
            {"messages": [user([{"type": "input_audio"}])]},
            "messages[0].content[0].input_audio is not supported on this cli completion endpoint",
        ),
        ({"messages": [user([{"type": "x"}])]}, "only parts of type text are supported, not 'x'"),
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


PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"pixels").decode()
JPEG = base64.b64encode(b"\xff\xd8\xff" + b"pixels").decode()
TYPES = ("image/png", "image/jpeg")


def picture(content: str = PNG, kind: str = "image/png") -> dict[str, Any]:
    """An image part."""
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{content}", "detail": "auto"}}


def text(words: str) -> dict[str, Any]:
    """A text part."""
    return {"type": "text", "text": words}


def test_images_keep_their_place_in_a_single_message():
    """Before, between and after its texts."""
    body = {"messages": [user([picture(), text("a"), picture(JPEG, "image/jpeg"), picture(), text("b")])]}
    prompt = read_prompt(body, TYPES)
    png, jpeg = (
        Image(media_type="image/png", base64=PNG, at=0),
        Image(media_type="image/jpeg", base64=JPEG, at=1),
    )
    assert prompt.text == "ab"
    assert prompt.images[:2] == (png, jpeg)
    assert prompt.parts() == [prompt.images[0], "a", prompt.images[1], prompt.images[2], "b"]


def test_images_keep_their_place_in_a_transcript():
    """In the line of the message that holds them."""
    body = {
        "messages": [
            user([text("see"), picture()]),
            {"role": "assistant", "content": "ok"},
            user([picture(), text("?")]),
        ]
    }
    prompt = read_prompt(body, TYPES)
    first, second = prompt.images
    assert prompt.parts() == ["user: see", first, "\nassistant: ok\nuser: ", second, "?"]


def test_an_image_alone_is_a_message():
    """No words are needed."""
    prompt = read_prompt({"messages": [user([picture()])]}, TYPES)
    assert prompt.parts() == [prompt.images[0]]
    assert Prompt(text="").parts() == [""]


@pytest.mark.parametrize(
    ("part", "types", "code", "words"),
    [
        (picture(), (), "unsupported_parameter", "is not supported on this cli completion endpoint"),
        (picture(), ("image/jpeg",), "unsupported_parameter", "must be one of image/jpeg, not image/png"),
        (
            {"type": "image_url", "image_url": {"url": "https://a.example/x.png"}},
            TYPES,
            "unsupported_parameter",
            "nothing is fetched",
        ),
        (
            {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
            TYPES,
            "unsupported_parameter",
            "nothing is fetched",
        ),
        (
            {"type": "image_url", "image_url": {"url": "data:image/png,AAAA"}},
            TYPES,
            "unsupported_parameter",
            "in base64",
        ),
        ({"type": "image_url", "image_url": {}}, TYPES, "invalid_request", "must hold a url"),
        ({"type": "image_url"}, TYPES, "invalid_request", "must hold a url"),
        (picture("A"), TYPES, "invalid_request", "is not valid base64"),
        (picture("AA\nAA"), TYPES, "invalid_request", "is not valid base64"),
        (picture("é" * 4), TYPES, "invalid_request", "is not valid base64"),
        (picture(JPEG), TYPES, "invalid_request", "does not hold image/png"),
        (picture(""), TYPES, "invalid_request", "does not hold image/png"),
        (
            picture("A" * (MAX_IMAGE_BYTES * 4 // 3 + 8)),
            TYPES,
            "request_too_large",
            f"{MAX_IMAGE_BYTES}-byte limit",
        ),
    ],
)
def test_other_images_are_refused(part: dict[str, Any], types: tuple[str, ...], code: str, words: str):
    """By the name of their place."""
    with pytest.raises(RequestError) as refused:
        read_prompt({"messages": [user([text("x"), part])]}, types)
    assert (refused.value.code, refused.value.param) == (code, "messages[0].content[1].image_url")
    assert words in refused.value.message


def test_only_users_show_images():
    """Not a system message, and not the model."""
    for role in ("system", "assistant"):
        with pytest.raises(RequestError) as refused:
            read_prompt({"messages": [{"role": role, "content": [text("x"), picture()]}, user("x")]}, TYPES)
        assert refused.value.code == "unsupported_parameter"


def test_there_are_only_so_many_images():
    """Of all messages together."""
    body = {"messages": [user([text("x"), *[picture()] * MAX_IMAGES])]}
    assert len(read_prompt(body, TYPES).images) == MAX_IMAGES
    with pytest.raises(RequestError, match=f"{MAX_IMAGES}-image limit"):
        read_prompt({"messages": [*body["messages"], user([picture()])]}, TYPES)


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, ANY_OBJECT),
        (
            {
                "type": "json_schema",
                "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
            },
            {"type": "object"},
        ),
    ],
)
def test_a_response_format_is_a_schema(value: Any, schema: Any):
    """Of any object, or a named one."""
    assert read_schema(value) == schema


@pytest.mark.parametrize(
    ("value", "param"),
    [
        (None, "json_schema"),
        ([], "json_schema"),
        ({"schema": {}}, "json_schema.name"),
        ({"name": "a b", "schema": {}}, "json_schema.name"),
        ({"name": "n" * 65, "schema": {}}, "json_schema.name"),
        ({"name": "n"}, "json_schema.schema"),
        ({"name": "n", "schema": []}, "json_schema.schema"),
    ],
)
def test_a_malformed_json_schema_is_refused(value: Any, param: str):
    """By the name of what is wrong."""
    with pytest.raises(RequestError) as refused:
        read_schema({"type": "json_schema", "json_schema": value})
    assert (refused.value.code, refused.value.param) == ("invalid_request", f"response_format.{param}")


@pytest.mark.parametrize("nest", [lambda inner: {"properties": inner}, lambda inner: {"anyOf": [inner]}])
def test_a_json_schema_is_only_so_deep(nest: Callable[[Any], Any]):
    """Deeper ones could be read, but not written for the command line."""
    schema: Any = {}
    while depth_of(schema) < MAX_SCHEMA_DEPTH - 1:
        schema = nest(schema)
    named = {"name": "n", "schema": schema}
    assert read_schema({"type": "json_schema", "json_schema": named}) == schema
    with pytest.raises(RequestError) as refused:
        read_schema({"type": "json_schema", "json_schema": named | {"schema": nest(nest(schema))}})
    assert (refused.value.code, refused.value.param) == (
        "invalid_request",
        "response_format.json_schema.schema",
    )


def depth_of(value: Any) -> int:
    """How many objects and lists are around its innermost one, that one included."""
    within = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if within is None else 1 + max(map(depth_of, within), default=0)
