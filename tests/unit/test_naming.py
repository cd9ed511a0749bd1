"""What a request names: providers, models and authority references, as the contract spells them and otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from shared.contracts import ExecutionContext, InferenceRequest, parse_request
from shared.errors import RequestError
from supervisor.naming import AUTHORITY_REFS, merge_authority_refs, resolve_model, resolve_provider

PUBLISHED = ("claude", "codex", "gemini", "amp")


def _preferring(**preference: object) -> dict[str, Any]:
    return {"model_preference": preference}


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ("claude", "claude"),
        ("codex", "codex"),
        ("gemini", "gemini"),
        ("amp", "amp"),
        (" Claude\n", "claude"),
        ("GEMINI", "gemini"),
        ("codex_exec", "codex"),
        (" CODEX_EXEC ", "codex"),
    ],
)
def test_providers_are_found_by_name(wanted: str, name: str) -> None:
    """Case and blanks around a provider's name do not matter."""
    assert resolve_provider(parse_request(_preferring(provider=wanted))) == name


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "unsupported_provider"),
        ({"model_preference": None}, "unsupported_provider"),
        ({"model_preference": "claude"}, "unsupported_provider"),
        ({"model_preference": ["claude"]}, "unsupported_provider"),
        ({"model_preference": 5}, "unsupported_provider"),
        (_preferring(), "unsupported_provider"),
        (_preferring(provider=None), "unsupported_provider"),
        (_preferring(provider=5), "unsupported_provider"),
        (_preferring(provider=["claude"]), "unsupported_provider"),
        (_preferring(provider=""), "unsupported_provider"),
        (_preferring(provider="   "), "unsupported_provider"),
        (_preferring(provider="openai"), "unsupported_provider"),
        (_preferring(provider="../claude"), "unsupported_provider"),
        (_preferring(provider="__init__"), "unsupported_provider"),
        (_preferring(provider="x" * 10_000), "unsupported_provider"),
        (_preferring(provider="cursor"), "unsupported_endpoint_provider"),
        (_preferring(provider=" Antigravity "), "unsupported_endpoint_provider"),
    ],
    ids=lambda value: str(value)[:48],
)
def test_other_providers_are_refused_with_the_known_names(body: dict[str, Any], code: str) -> None:
    """Whatever stands in a provider's place, the answer is a short typed error that lists the known ones."""
    with pytest.raises(RequestError) as refusal:
        resolve_provider(parse_request(body))
    assert refusal.value.code == code
    assert refusal.value.status == 400
    assert refusal.value.param == "model_preference.provider"
    assert all(name in refusal.value.message for name in PUBLISHED)
    assert len(refusal.value.message) < 300


@pytest.mark.parametrize(
    ("preference", "model"),
    [
        ({"id": "sonnet"}, "sonnet"),
        ({"model": "gpt-5.5"}, "gpt-5.5"),
        ({"id": "a", "model": "b"}, "a"),
        ({"id": None, "model": "b"}, "b"),
        ({"id": "sonnet[1m]"}, "sonnet[1m]"),
        ({"id": "vendor/model:tag@v1 (new)"}, "vendor/model:tag@v1 (new)"),
        ({"id": " padded "}, " padded "),
        ({"id": "模型"}, "模型"),
        ({"id": "m" * 256}, "m" * 256),
    ],
)
def test_models_are_taken_verbatim(preference: dict[str, Any], model: str) -> None:
    """The model is the requested id, else the requested model, unchanged."""
    assert resolve_model(parse_request(_preferring(**preference))) == model


@pytest.mark.parametrize(
    "preference",
    [
        None,
        "sonnet",
        5,
        [],
        {},
        {"id": None},
        {"id": ""},
        {"id": "  "},
        {"id": 5},
        {"id": ["m"]},
        {"id": "", "model": "m"},
        {"id": 0, "model": "m"},
        {"model": ""},
        {"model": {}},
    ],
    ids=str,
)
def test_a_missing_model_is_an_error(preference: object) -> None:
    """Without a non-empty string there is no model, whatever else is there."""
    with pytest.raises(RequestError) as refusal:
        resolve_model(parse_request({"model_preference": preference}))
    assert refusal.value.code == "missing_model_identity"
    assert refusal.value.param == "model_preference.id"


@pytest.mark.parametrize(
    "model",
    [
        "-m",
        "--dangerously-skip-permissions",
        " -m",
        "a\0b",
        "a\nb",
        "a\rb",
        "a\tb",
        "a\x1b[31m",
        "a\x7f",
        "a\x85",
        "a\u2028b",
        "a\u202eb",
        "a\u200b",
        "a\ud800",
        "m" * 257,
    ],
    ids=lambda value: ascii(value)[:24],
)
@pytest.mark.parametrize("key", ["id", "model"])
def test_models_that_could_be_more_than_a_name_are_refused(key: str, model: str) -> None:
    """A model becomes a command line's argument, so it cannot be an option or hide characters."""
    with pytest.raises(RequestError) as refusal:
        resolve_model(InferenceRequest(model_preference={key: model}))
    assert refusal.value.code == "invalid_request"
    assert refusal.value.param == f"model_preference.{key}"
    assert model not in refusal.value.message


@pytest.mark.parametrize(
    ("context", "request_refs", "merged"),
    [
        ({"authority_ref": "c"}, {"target_ref": "r"}, {"authority_ref": "c", "target_ref": "r"}),
        ({"authority_ref": "c"}, {"authority_ref": "r"}, {"authority_ref": "r"}),
        ({"authority_ref": "c"}, {"authority_ref": " "}, {"authority_ref": "c"}),
        ({"authority_ref": "c"}, {"authority_ref": None}, {"authority_ref": "c"}),
        ({"authority_ref": "c", "api_key": "k"}, {"password": "p"}, {"authority_ref": "c"}),
        ({"authority_ref": 5, "target_ref": ["x"]}, {"endpoint_ref": {}}, {}),
        ({5: "x", None: "y"}, {(): "z"}, {}),
        (None, None, {}),
        ("authority_ref", 5, {}),
        (["authority_ref"], [["authority_ref", "r"]], {}),
        ([], {"authority_ref": "r"}, {"authority_ref": "r"}),
        ({"authority_ref": " kept as is "}, {}, {"authority_ref": " kept as is "}),
    ],
)
def test_authority_references_are_merged_and_filtered(
    context: object, request_refs: object, merged: dict[str, str]
) -> None:
    """The request's references win over the context's; only known keys with non-blank strings are kept."""
    read = merge_authority_refs(
        ExecutionContext(authority_refs=context), InferenceRequest(authority_refs=request_refs)
    )
    assert read == merged


def test_every_known_authority_reference_is_kept() -> None:
    """All thirteen keys of the contract pass, from either side."""
    assert len(AUTHORITY_REFS) == 13
    refs = {key: f"ref:{key}" for key in AUTHORITY_REFS}
    assert merge_authority_refs(ExecutionContext(authority_refs=refs), parse_request({})) == refs
    assert merge_authority_refs(ExecutionContext(), parse_request({"authority_refs": refs})) == refs
