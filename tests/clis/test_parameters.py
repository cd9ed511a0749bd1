"""What the real command lines do with a request's fields beside its messages, seen by the model."""

from __future__ import annotations

import base64
import json
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from shared import provider
from supervisor import EndpointDescriptor, InferenceEndpoint
from tests.clis.conftest import HTTP_TIMEOUT_S, WAIT_S, ask, chunks_of, lease_of, posts, text_of, until
from tests.clis.models.log import RecordedRequest
from tests.clis.models.server import ModelServer
from tests.clis.table import CLIS, Cli

pytestmark = [pytest.mark.cli, pytest.mark.process]
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}},
    "required": ["name"],
    "additionalProperties": False,
}
BOB = '{"name": "bob"}'
AS_SCHEMA = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}
AS_OBJECT = {"type": "json_object"}
TINY: dict[str, str] = {
    "image/gif": "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7",
    "image/png": "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR4nGP4z8CAFWEXHbQSACj/P8Fu7N9hAAAAAElFTkSuQmCC",
    "image/webp": "UklGRiIAAABXRUJQVlA4IBYAAAAwAQCdASoBAAEADsD+JaQAA3AAAAAA",
    "image/jpeg": (
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ"
        "EBAQEBAQEBAQEBAQEBD/wAALCAAIAAgBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAAAP/EABQQAQAAAAAAAAAAAAAAAAAAAAD/2gAI"
        "AQEAAD8AP//Z"
    ),
}
"""One image of a pixel or a few, of each type."""


def large_png(side: int = 900) -> str:
    """Noise, which no compression makes small: more than the 1 MiB that a body without images may have."""
    noise = random.Random(1)
    rows = b"".join(b"\0" + noise.randbytes(3 * side) for _ in range(side))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + parts).decode()


def say(descriptor: EndpointDescriptor, content: Any, **more: Any) -> httpx.Response:
    """One completion of a message with this content."""
    return httpx.post(
        f"{descriptor.base_url}/chat/completions",
        headers=descriptor.headers,
        json={"messages": [{"role": "user", "content": content}], **more},
        timeout=HTTP_TIMEOUT_S,
        trust_env=False,
    )


def picture(media_type: str, data: str) -> dict[str, Any]:
    """An image part."""
    return {"type": "image_url", "image_url": {"url": f"data:{media_type};base64,{data}"}}


def words(text: str) -> dict[str, str]:
    """A text part."""
    return {"type": "text", "text": text}


def options_of(cli: Cli) -> provider.TurnOptions:
    """What its provider says that it takes."""
    return provider.load(cli.provider).turn_options


def standing_by(endpoint: InferenceEndpoint, descriptor: EndpointDescriptor) -> None:
    """A warm command line has been started before the turn is known."""
    until(lambda: endpoint.endpoint(descriptor).load["standbys"] > 0)


def _anthropic_parts(request: RecordedRequest) -> list[tuple[str, str]]:
    blocks = request.body["messages"][-1]["content"]
    return [
        ("text", block["text"])
        if block["type"] == "text"
        else (block["source"]["media_type"], block["source"]["data"])
        for block in blocks
    ]


def _responses_parts(request: RecordedRequest) -> list[tuple[str, str]]:
    parts = request.body["input"][-1]["content"]
    urls = [part.get("image_url", "").removeprefix("data:").partition(";base64,") for part in parts]
    return [
        ("text", part["text"]) if "text" in part else url[::2] for part, url in zip(parts, urls, strict=True)
    ]


def _generative_parts(request: RecordedRequest) -> list[tuple[str, str]]:
    parts = [part for part in request.body["contents"][-1]["parts"] if "<session_context>" not in str(part)]
    return [
        ("text", part["text"])
        if "text" in part
        else (part["inlineData"]["mimeType"], part["inlineData"]["data"])
        for part in parts
    ]


PARTS: dict[str, Callable[[RecordedRequest], list[tuple[str, str]]]] = {
    "claude": _anthropic_parts,
    "codex": _responses_parts,
    "gemini": _generative_parts,
}
"""What the model is shown by the user, in order."""
CONVERTED = {("codex", "image/gif"): "image/png"}
SCHEMA_SEEN: dict[str, Callable[[RecordedRequest], Any]] = {
    "claude": lambda request: [tool["input_schema"] for tool in request.body["tools"]],
    "codex": lambda request: [request.body["text"]["format"]["schema"]],
}
EFFORT_SEEN: dict[str, Callable[[RecordedRequest], str]] = {
    "claude": lambda request: request.body["output_config"]["effort"],
    "codex": lambda request: request.body["reasoning"]["effort"],
}
PROMPTS_FOR_JSON = {
    "claude": f"[[tool:StructuredOutput]] [[tool-input:{BOB}]]",
    "codex": f"[[text:{BOB}]]",
}
"""How the scripted model answers with a schema: as each service does."""
IMAGES = [(name, kind) for name in CLIS for kind in provider.load(name).turn_options.image_types]
EFFORTS = [(name, effort) for name in CLIS for effort in provider.load(name).turn_options.reasoning_efforts]


def generated(server: ModelServer) -> RecordedRequest:
    """The only request for an answer."""
    (request,) = [request for request in posts(server) if not request.path.endswith(":countTokens")]
    return request


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_stops_the_model(lease: EndpointDescriptor, server: ModelServer, stream: bool):
    """The answer ends right before it, and the model server sees the command line hang up."""
    answer = ask(lease, "[[deltas:5000]] [[delay:0.02]] x", stop="2 w3", stream=stream)
    if stream:
        *chunks, done = chunks_of(answer)
        assert done == "[DONE]"
        text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
        assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    else:
        text = text_of(answer)
        assert answer.json()["usage"]["completion_tokens"] > 0
    assert text == "w0 w1 w"
    server.wait_for_hangup(lambda request: request.method == "POST", WAIT_S)
    assert len(posts(server)) == 1
    assert text_of(ask(lease, "still here")) == "echo: still here"


@pytest.mark.parametrize(("cli", "media_type"), IMAGES, indirect=["cli"])
def test_an_image_reaches_the_model(
    cli: Cli, lease: EndpointDescriptor, server: ModelServer, media_type: str
):
    """Of every published type, between the texts where it stands; byte for byte, but for codex, which converts some."""
    answer = say(lease, [words("before "), picture(media_type, TINY[media_type]), words(" after")])
    assert "before" in text_of(answer)
    before, image, after = PARTS[cli.provider](generated(server))
    assert (before, after) == (("text", "before "), ("text", " after"))
    if (cli.provider, media_type) in CONVERTED:
        assert image[0] == CONVERTED[cli.provider, media_type]
    else:
        assert image == (media_type, TINY[media_type])


def test_a_large_image_reaches_the_model(cli: Cli, lease: EndpointDescriptor, server: ModelServer):
    """More than a body without images may hold; the command line may make it smaller."""
    data = large_png()
    assert len(data) > 3_000_000
    text_of(say(lease, [words("look"), picture("image/png", data)]))
    (kind, _), (media_type, seen) = PARTS[cli.provider](generated(server))
    assert kind == "text"
    assert media_type in options_of(cli).image_types
    assert len(seen) > 100_000


@pytest.mark.parametrize("text", ["/clear", "/quit", "$skill x"])
def test_words_after_an_image_are_no_command(
    cli: Cli, lease: EndpointDescriptor, server: ModelServer, text: str
):
    """They are asked of the model as they are."""
    text_of(say(lease, [picture("image/png", TINY["image/png"]), words(text)]))
    (_, (_, seen)) = PARTS[cli.provider](generated(server))
    assert seen.strip("\u200b\n") == text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("cli", SCHEMA_SEEN, indirect=True)
def test_an_answer_has_the_schema(
    cli: Cli, with_key: InferenceEndpoint, lease: EndpointDescriptor, server: ModelServer, stream: bool
):
    """The model is told the schema by a command line that was warm before; the next turn has none."""
    standing_by(with_key, lease)
    answer = ask(lease, PROMPTS_FOR_JSON[cli.provider], response_format=AS_SCHEMA, stream=stream)
    if stream:
        *chunks, done = chunks_of(answer)
        assert done == "[DONE]"
        text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
        end = chunks[-1]["choices"][0]["finish_reason"]
    else:
        text, end = text_of(answer), answer.json()["choices"][0]["finish_reason"]
    assert (json.loads(text), end) == ({"name": "bob"}, "stop")
    assert SCHEMA_SEEN[cli.provider](generated(server)) == [SCHEMA]
    server.clear()
    assert text_of(ask(lease, "plain")) == "echo: plain"
    assert "additionalProperties" not in json.dumps(generated(server).body)


@pytest.mark.parametrize("cli", ["claude"], indirect=True)
def test_an_answer_is_any_json_object(lease: EndpointDescriptor, server: ModelServer):
    """Without a schema of its own."""
    answer = ask(lease, f"[[tool:StructuredOutput]] [[tool-input:{BOB}]]", response_format=AS_OBJECT)
    assert json.loads(text_of(answer)) == {"name": "bob"}
    assert SCHEMA_SEEN["claude"](generated(server)) == [{"type": "object"}]


@pytest.mark.parametrize(
    "prompt",
    ["[[text:no JSON at all]]", '[[tool:StructuredOutput]] [[tool-input:{"name": 5}]]'],
    ids=["words", "other"],
)
@pytest.mark.parametrize("cli", ["claude"], indirect=True)
def test_an_answer_without_the_schema_is_a_failure(
    lease: EndpointDescriptor, server: ModelServer, prompt: str
):
    """Claude looks at it, and the model is asked once."""
    answer = ask(lease, prompt, response_format=AS_SCHEMA)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "schema_mismatch")
    generated(server)


@pytest.mark.parametrize("cli", ["claude"], indirect=True)
def test_a_schema_that_is_none_is_refused(lease: EndpointDescriptor, server: ModelServer):
    """Instead of an answer in any form."""
    schema = {"name": "x", "schema": {"type": "strange"}}
    answer = ask(lease, "hello", response_format={"type": "json_schema", "json_schema": schema})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "provider_rejected_request")


@pytest.mark.parametrize("cli", ["claude"], indirect=True)
def test_a_schema_opens_no_other_tool(lease: EndpointDescriptor, server: ModelServer):
    """The lock holds."""
    answer = ask(lease, "[[tool:Bash]] [[tool-input:{}]]", response_format=AS_SCHEMA)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "tool_use_refused")


@pytest.mark.parametrize("kind", ["json_object", "json_schema"])
def test_a_format_that_the_command_line_does_not_have_is_refused(
    cli: Cli, lease: EndpointDescriptor, server: ModelServer, kind: str
):
    """By its field's name, before anything is asked; exactly what is not published."""
    answer = ask(lease, PROMPTS_FOR_JSON.get(cli.provider, "x"), response_format={**AS_SCHEMA, "type": kind})
    if kind in lease.metadata["publication"]["turn_options"]["response_formats"]:
        assert answer.status_code == 200
        return
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (
        400,
        "unsupported_parameter",
        "response_format",
    )
    assert not posts(server)


@pytest.mark.parametrize(("cli", "effort"), EFFORTS, indirect=["cli"])
def test_the_model_is_told_the_reasoning_effort(
    cli: Cli, with_key: InferenceEndpoint, lease: EndpointDescriptor, server: ModelServer, effort: str
):
    """Of every published level, by a command line that was warm before."""
    standing_by(with_key, lease)
    answer = ask(lease, "x", reasoning_effort=effort)
    assert "x-asm-ignored-params" not in answer.headers
    assert EFFORT_SEEN[cli.provider](generated(server)) == effort


def test_the_most_tokens_are_told_to_the_model_or_reported(
    cli: Cli, with_key: InferenceEndpoint, lease: EndpointDescriptor, server: ModelServer
):
    """Claude takes them with a turn, also when it was warm before; the turn after has its own again."""
    standing_by(with_key, lease)
    answer = ask(lease, "x", max_tokens=77, reasoning_effort="bogus")
    ignored = answer.headers["x-asm-ignored-params"].split(", ")
    request = generated(server)
    if not options_of(cli).max_tokens:
        assert ignored == ["max_tokens", "reasoning_effort"]
        return
    assert ignored == ["reasoning_effort"]
    assert request.body["max_tokens"] == 77
    server.clear()
    ask(lease, "x")
    assert generated(server).body["max_tokens"] > 77
    cut = ask(lease, "[[stop:max_tokens]] x", max_tokens=1).json()
    assert cut["choices"][0]["finish_reason"] == "length"


def test_the_descriptor_publishes_what_a_turn_takes(cli: Cli, with_key: InferenceEndpoint):
    """As the provider's file says, which the tests above hold it to."""
    descriptor = lease_of(with_key, cli)
    published = descriptor.metadata["publication"]["turn_options"]
    assert published["image_types"] == list(options_of(cli).image_types)
    assert published["max_tokens"] is options_of(cli).max_tokens
    with_key.release_endpoint(descriptor)
