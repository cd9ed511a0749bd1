"""The table of request fields: whole, and each row does what it says."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.chat import completion_create_params

from shared.errors import RequestError
from shared.provider import TurnOptions
from worker.parameters import (
    HONOURED,
    IGNORED,
    MAX_NAME_CHARS,
    MAX_REPORTED,
    PARAMETERS,
    REFUSED,
    ignored_names,
    report,
)

NOTHING = TurnOptions()
EVERYTHING = TurnOptions(
    max_tokens=True,
    reasoning_efforts=("low", "high"),
    response_formats=("json_object", "json_schema"),
    image_types=("image/png",),
)


def test_every_field_of_the_public_specification_is_in_the_table():
    """As the installed official client knows it; a newer client with a new field makes this fail."""
    known = {
        *completion_create_params.CompletionCreateParamsStreaming.__annotations__,
        *completion_create_params.CompletionCreateParamsBase.__annotations__,
    }
    assert "messages" in known
    assert known <= set(PARAMETERS)


@pytest.mark.parametrize("name", [name for name, row in PARAMETERS.items() if row is IGNORED])
def test_what_only_tunes_is_ignored_and_named(name: str):
    """Whatever its value; null is as good as absent."""
    assert ignored_names({name: "x"}, EVERYTHING) == (name,)
    assert ignored_names({name: None}, EVERYTHING) == ()


REFUSALS = [
    *((name, {"some": "value"}) for name, row in PARAMETERS.items() if row is REFUSED),
    ("n", 2), ("n", True), ("n", 0), ("best_of", 2), ("logprobs", True), ("logprobs", 0), ("top_logprobs", 3),
    ("modalities", ["text", "audio"]), ("modalities", ["audio"]), ("response_format", {"type": "json_object"}),
    ("response_format", {"type": "json_schema"}), ("response_format", {"type": "grammar"}), ("response_format", "x"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), REFUSALS)
def test_what_would_change_the_answer_is_refused_by_name(name: str, value: Any):
    """400 with OpenAI's code."""
    with pytest.raises(RequestError) as refused:
        ignored_names({name: value}, NOTHING)
    assert (refused.value.code, refused.value.status, refused.value.param) == (
        "unsupported_parameter",
        400,
        name,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 1), ("best_of", 1), ("logprobs", False), ("top_logprobs", 0), ("modalities", ["text"]), ("store", False),
        ("response_format", {"type": "text"}), ("service_tier", "auto"), ("stream_options", {"include_usage": True}),
        *((name, None) for name in PARAMETERS),
    ],
)  # fmt: skip
def test_what_asks_for_nothing_special_is_no_matter(name: str, value: Any):
    """Neither refused nor reported."""
    assert ignored_names({name: value}, NOTHING) == ()


@pytest.mark.parametrize("name", [name for name, row in PARAMETERS.items() if row is HONOURED])
def test_what_is_honoured_is_not_reported(name: str):
    """Other modules read it."""
    assert ignored_names({name: "x"}, NOTHING) == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_tokens", 5), ("max_completion_tokens", 5), ("reasoning_effort", "low")],
)
def test_what_a_command_line_takes_is_honoured_there_and_reported_elsewhere(name: str, value: Any):
    """By its provider's options, never by its name."""
    assert ignored_names({name: value}, EVERYTHING) == ()
    assert ignored_names({name: value}, NOTHING) == (name,)


def test_a_level_of_reasoning_that_a_command_line_does_not_know_is_reported():
    """Its others are honoured."""
    assert ignored_names({"reasoning_effort": "minimal"}, EVERYTHING) == ("reasoning_effort",)


@pytest.mark.parametrize("kind", ["json_object", "json_schema"])
def test_a_format_that_a_command_line_has_is_honoured(kind: str):
    """And only that one."""
    assert ignored_names({"response_format": {"type": kind}}, TurnOptions(response_formats=(kind,))) == ()
    other = {"json_object": "json_schema", "json_schema": "json_object"}[kind]
    with pytest.raises(RequestError):
        ignored_names({"response_format": {"type": other}}, TurnOptions(response_formats=(kind,)))


def test_unknown_fields_are_ignored_and_named():
    """Clients of other servers send theirs."""
    assert ignored_names({"top_k": 5, "min_p": 0, "messages": []}, NOTHING) == ("min_p", "top_k")
    assert ignored_names({"stream_options": {"include_obfuscation": True, "x": 1}}, NOTHING) == (
        "stream_options.include_obfuscation",
        "stream_options.x",
    )


def test_the_report_is_a_header_whatever_the_names_are():
    """One line of ASCII, bounded."""
    assert report(("a", "stream_options.x")) == "a, stream_options.x"
    odd = report(("a\r\nset-cookie: b", "ü, x", "\ud800"))
    assert odd.isascii()
    assert odd.isprintable()
    assert odd.count(",") == 2
    many = report(tuple(f"{'n' * 100}{number}" for number in range(100)))
    assert len(many) < (MAX_REPORTED + 1) * (MAX_NAME_CHARS + 2)
    assert many.endswith(", ...")
