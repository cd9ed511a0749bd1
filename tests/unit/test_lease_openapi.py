"""A lease's OpenAPI document agrees with the application it describes and the answers it really gives."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from shared.errors import KINDS, WorkerError
from shared.events import AssistantDelta, Thinking, Usage
from shared.openai import DONE, ChunkEncoder, completion_object, model_object
from shared.result import Completion
from worker.app import build_app
from worker.lease import ServedLease
from worker.openapi import ChatCompletion, ChatCompletionChunk, CompletionBody, ModelObject, document
from worker.parameters import PARAMETERS

USAGE = Usage(prompt_tokens=3, completion_tokens=2, cached_tokens=1, reasoning_tokens=1)


def test_every_route_is_described_and_every_description_is_a_route():
    """The document's paths and operations are the application's own."""
    app = build_app(ServedLease())
    described = document("0")["paths"]
    for path, operations in described.items():
        found = app._router.find(re.sub(r"{\w+}", "x", path))
        assert found is not None, path
        routed = {method.lower() for method, responder in found[1].items() if _is_ours(responder)}
        assert routed == {name for name in operations if name != "parameters"}, path
        assert operations["parameters"]
    assert len(described) == len(list(_templates(app._router._roots)))


def test_every_error_is_one_of_its_operation():
    """Each status is described by its codes, which have it."""
    for path, operations in document("0")["paths"].items():
        for name, operation in operations.items():
            if name != "parameters":
                assert {"401", "421", "500"} <= set(operation["responses"]), path
                for status, answer in operation["responses"].items():
                    for code in re.findall(r"`(\w+)`", answer["description"]):
                        assert str(KINDS[code].status) == status, (path, code)


def test_every_reference_resolves():
    """No schema is named that is not there."""
    made = document("0")
    for name in re.findall(r"#/components/schemas/(\w+)", json.dumps(made)):
        assert name in made["components"]["schemas"]


def test_the_request_has_the_fields_of_the_table():
    """Each with what is done with it."""
    fields = document("0")["components"]["schemas"]["CompletionBody"]["properties"]
    assert set(fields) == {name for name in PARAMETERS if "." not in name}
    assert fields["messages"]["description"] == "Honoured"
    assert fields["n"]["description"].startswith("Refused")
    assert fields["temperature"]["description"].startswith("Ignored")
    assert set(CompletionBody.__struct_fields__) == set(fields)


@pytest.mark.parametrize("usage", [None, USAGE])
@pytest.mark.parametrize("reasoning", ["", "thought"])
def test_a_whole_answer_is_as_described(usage: Usage | None, reasoning: str):
    """No field more and none less."""
    completion = Completion(text="t", usage=usage, reasoning=reasoning)
    _is_exactly(completion_object(completion, completion_id="x", model="m"), ChatCompletion)
    _is_exactly(model_object("m", 1, "echo"), ModelObject)


@pytest.mark.parametrize("include_usage", [False, True])
def test_every_chunk_is_as_described(include_usage: bool):
    """From the role to the usage; an error in a stream is not one of them."""
    encoder = ChunkEncoder(completion_id="x", model="m", include_usage=include_usage)
    pieces = encoder.pieces([Thinking("a"), AssistantDelta("b")])
    end = encoder.end(Completion(text="b", usage=USAGE))
    for event in (encoder.role() + pieces + end).removesuffix(DONE).split(b"\n\n")[:-1]:
        _is_exactly(json.loads(event.removeprefix(b"data: ")), ChatCompletionChunk)
    error = encoder.error(WorkerError("internal_error", "cannot")).removeprefix(b"data: ")
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(error, type=ChatCompletionChunk)


def _is_exactly(answer: object, kind: type) -> None:
    assert msgspec.to_builtins(msgspec.convert(answer, kind)) == answer


def _templates(nodes: Sequence[Any]) -> list[str]:
    found = []
    for node in nodes:
        if node.resource is not None:
            found.append(node.uri_template)
        found += _templates(node.children)
    return found


def _is_ours(responder: object) -> bool:
    return getattr(responder, "__module__", "").startswith("worker")
