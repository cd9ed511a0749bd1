"""The committed examples are what the product reads and writes today."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import msgspec
import pytest

import supervisor.compatibility
from supervisor.errors import from_envelope
from tests.unit.contract_examples import DECIDED, ERRORS, FOLDER, STRUCTS, decision, files


def test_the_committed_files_are_up_to_date():
    """None is missing, none is left over, and none differs: otherwise run ``make contracts``, and look at it."""
    committed = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    made = files()
    assert sorted(committed) == sorted(made), "run: make contracts"
    assert [name for name, text in made.items() if committed[name] != text] == [], "run: make contracts"


@pytest.mark.parametrize("name", STRUCTS)
def test_each_contract_survives_a_round_trip(name: str):
    """Read from its file and written again it is the same, to the key."""
    text = (FOLDER / f"{name}.json").read_bytes()
    read = msgspec.json.decode(text, type=type(STRUCTS[name]))
    assert read == STRUCTS[name]
    assert json.loads(msgspec.json.encode(read)) == json.loads(text)


@pytest.mark.parametrize("name", ERRORS)
def test_each_error_survives_a_round_trip(name: str):
    """A client reads the same error, with what stands beside it."""
    error = ERRORS[name]
    body = json.loads((FOLDER / f"error.{name}.json").read_text(encoding="utf-8"))
    read = from_envelope(body, error.status)
    assert (read.code, read.message, read.param) == (error.code, error.message, error.param)
    assert type(read).__name__ == type(error).__name__
    assert json.loads(json.dumps(read.envelope())) == body


def test_there_is_an_example_of_every_reason():
    """Those that the decision's source names, no more and no less."""
    source = ast.parse(Path(supervisor.compatibility.__file__).read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(source) if isinstance(node, ast.Call)]
    reasons = {
        constant.value
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "Mismatch"
        for constant in ast.walk(call.args[0])
        if isinstance(constant, ast.Constant) and constant.value not in ("streaming", 0)
    }
    assert reasons | {"protocol_match"} == set(DECIDED)
    for reason in DECIDED:
        assert decision(reason).reason == reason


def test_question_marks_stay_in_the_keys():
    """The contract's own spelling, where a language would rather not have it."""
    result = json.loads((FOLDER / "compatibility-result.protocol_match.json").read_text(encoding="utf-8"))
    request = json.loads((FOLDER / "inference-request.json").read_text(encoding="utf-8"))
    endpoint = json.loads((FOLDER / "endpoint-descriptor.json").read_text(encoding="utf-8"))
    assert result["compatible?"] is True
    assert request["stream?"] is True
    assert endpoint["capabilities"]["streaming?"] is True
    assert endpoint["metadata"]["publication"]["common_surface_only?"] is False
