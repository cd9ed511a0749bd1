"""Reading untrusted input into the contract's structs, and writing them in the contract's spelling."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from shared.contracts import (
    BackendCapabilities,
    BackendManifest,
    Budget,
    CompatibilityResult,
    ConsumerManifest,
    EndpointCapabilities,
    EndpointDescriptor,
    ExecutionContext,
    InferenceRequest,
    LeaseOptions,
    parse_consumer_manifest,
    parse_context,
    parse_lease_options,
    parse_request,
)
from shared.errors import RequestError
from shared.reading import parse

COUNTED_LIMITS = ("memory_bytes", "processes", "open_files", "workspace_bytes")
SECRET = "Bearer 3fJk-very-secret"

READERS: dict[str, Callable[[object], msgspec.Struct]] = {
    "invalid_request": parse_request,
    "invalid_consumer_manifest": parse_consumer_manifest,
    "invalid_context": parse_context,
    "invalid_lease_options": parse_lease_options,
}
NOUNS = {
    "invalid_request": "request",
    "invalid_consumer_manifest": "consumer manifest",
    "invalid_context": "context",
    "invalid_lease_options": "lease options",
}


def _descriptor(**changes: Any) -> EndpointDescriptor:
    fields: dict[str, Any] = {
        "endpoint_id": "endpoint_01",
        "base_url": "http://127.0.0.1:4010/leases/lease_01/v1",
        "headers": {"authorization": SECRET},
        "provider_identity": "claude",
        "model_identity": "sonnet",
        "lease_ref": "lease_01",
    }
    return EndpointDescriptor(**(fields | changes))


def _refusal(code: str, source: object) -> RequestError:
    with pytest.raises(RequestError) as refusal:
        READERS[code](source)
    assert refusal.value.code == code
    assert refusal.value.status == 400
    assert refusal.value.message.startswith(f"cannot read {NOUNS[code]}: ")
    return refusal.value


@pytest.mark.parametrize(
    ("struct", "expected"),
    [
        (
            ConsumerManifest(),
            {
                "contract_version": "inference.v1",
                "consumer": None,
                "accepted_runtime_kinds": ["task"],
                "accepted_management_modes": ["jido_managed"],
                "accepted_protocols": ["openai_chat_completions"],
                "required_capabilities": {},
                "optional_capabilities": {},
                "constraints": {},
                "metadata": {},
            },
        ),
        (
            BackendManifest(),
            {
                "contract_version": "inference.v1",
                "backend": "asm_inference_endpoint",
                "runtime_kind": "task",
                "management_modes": ["jido_managed"],
                "startup_kind": "spawned",
                "protocols": ["openai_chat_completions"],
                "capabilities": {"streaming?": False, "tool_calling?": False, "embeddings?": "unknown"},
                "supported_surfaces": ["local_subprocess", "ssh_exec", "guest_bridge"],
                "resource_profile": {},
                "metadata": {},
            },
        ),
        (
            _descriptor(),
            {
                "contract_version": "inference.v1",
                "endpoint_id": "endpoint_01",
                "runtime_kind": "task",
                "management_mode": "jido_managed",
                "target_class": "cli_endpoint",
                "protocol": "openai_chat_completions",
                "base_url": "http://127.0.0.1:4010/leases/lease_01/v1",
                "headers": {"authorization": SECRET},
                "provider_identity": "claude",
                "model_identity": "sonnet",
                "source_runtime": "agent_session_manager",
                "source_runtime_ref": None,
                "lease_ref": "lease_01",
                "health_ref": None,
                "boundary_ref": None,
                "capabilities": {"streaming?": False, "tool_calling?": False},
                "metadata": {},
            },
        ),
        (
            CompatibilityResult(),
            {
                "contract_version": "inference.v1",
                "compatible?": False,
                "reason": "unresolved",
                "resolved_runtime_kind": None,
                "resolved_management_mode": None,
                "resolved_protocol": None,
                "warnings": [],
                "missing_requirements": [],
                "metadata": {},
            },
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_json_form_has_the_contracts_keys_and_defaults(
    struct: BackendManifest | CompatibilityResult | ConsumerManifest | EndpointDescriptor,
    expected: dict[str, Any],
) -> None:
    """Every published struct has exactly the contract's JSON keys, question marks kept."""
    assert msgspec.json.decode(msgspec.json.encode(struct)) == expected
    assert struct.to_builtins() == expected
    assert msgspec.convert(expected, type(struct)) == struct


def test_lease_options_defaults() -> None:
    """A lease without options lives an hour, idles fifteen minutes, and keeps one standby."""
    assert parse_lease_options(None) == LeaseOptions(
        ttl_s=3600.0, idle_timeout_s=900.0, owner_pid=None, concurrency=4, budget=None, standby=1, limits=None
    )


@pytest.mark.parametrize("representation", [repr, str, lambda value: str(value.__rich_repr__())])
def test_descriptor_representations_hide_the_token(
    representation: Callable[[EndpointDescriptor], str],
) -> None:
    """A logged descriptor shows which headers there are and not what they hold."""
    text = representation(_descriptor())
    assert SECRET not in text
    assert "very-secret" not in text
    assert "authorization" in text
    assert "endpoint_01" in text


@pytest.mark.parametrize(
    ("reader", "absent"),
    [
        (parse_consumer_manifest, ConsumerManifest()),
        (parse_context, ExecutionContext()),
        (parse_lease_options, LeaseOptions()),
    ],
)
def test_absent_input_means_the_defaults(
    reader: Callable[[object], msgspec.Struct], absent: msgspec.Struct
) -> None:
    """None and an empty map are the same as saying nothing."""
    assert reader(None) == absent
    assert reader({}) == absent


@pytest.mark.parametrize(
    ("reader", "struct"),
    [
        (
            parse_request,
            InferenceRequest(
                model_preference={"provider": "claude"}, stream=True, messages=({"role": "user"},)
            ),
        ),
        (parse_consumer_manifest, ConsumerManifest(consumer="me", accepted_protocols=("a", "b"))),
        (parse_context, ExecutionContext(run_id="run_1", boundary_ref="b", metadata={"k": 1})),
        (parse_lease_options, LeaseOptions(ttl_s=60.0, budget=Budget(requests=3))),
    ],
)
def test_structs_and_their_json_are_read_alike(
    reader: Callable[[object], msgspec.Struct], struct: msgspec.Struct
) -> None:
    """A struct, its map and its JSON all read as the same struct."""
    assert reader(struct) == struct
    assert reader(msgspec.structs.asdict(struct)) == struct
    assert reader(msgspec.json.decode(msgspec.json.encode(struct))) == struct


def test_foreign_structs_are_flattened() -> None:
    """A caller's own struct or dataclass is read by its fields."""

    class Manifest(msgspec.Struct):
        consumer: str

    @dataclasses.dataclass
    class Context:
        run_id: str

    assert parse_consumer_manifest(Manifest(consumer="mine")) == ConsumerManifest(consumer="mine")
    assert parse_context(Context(run_id="run_7")) == ExecutionContext(run_id="run_7")


@pytest.mark.parametrize("kind", [BackendManifest, EndpointDescriptor])
def test_capability_keys_are_read_in_both_spellings(kind: type[msgspec.Struct]) -> None:
    """``streaming`` and ``streaming?`` are one capability."""
    base = _descriptor().to_builtins() if kind is EndpointDescriptor else {}
    for key in ("streaming", "streaming?"):
        source = {**base, "capabilities": {key: True, key.replace("streaming", "tool_calling"): True}}
        capabilities: Any = getattr(parse(source, kind, code="invalid_request", noun="it"), "capabilities")  # noqa: B009
        assert (capabilities.streaming, capabilities.tool_calling) == (True, True)


def test_result_and_request_flags_are_read_in_both_spellings() -> None:
    """``compatible`` is ``compatible?`` and ``stream`` is ``stream?``; the contract's own spelling wins."""
    for key in ("compatible", "compatible?"):
        assert parse({key: True}, CompatibilityResult, code="invalid_request", noun="it").compatible
    for key in ("stream", "stream?"):
        assert parse_request({key: True}).stream
    assert parse_request({"stream": False, "stream?": True}).stream
    assert not parse_request({"stream": True, "stream?": False}).stream


def test_unknown_backend_capability_values_are_refused() -> None:
    """A capability is true, false or "unknown", and nothing else."""
    unknown = {"capabilities": {"embeddings": "unknown", "streaming?": "unknown"}}
    read = parse(unknown, BackendManifest, code="invalid_request", noun="it")
    assert read.capabilities == BackendCapabilities(streaming="unknown")
    for value in ("yes", 1, None):
        with pytest.raises(RequestError) as refusal:
            parse({"capabilities": {"streaming": value}}, BackendManifest, code="invalid_request", noun="it")
        assert refusal.value.param == "capabilities.streaming?"


@pytest.mark.parametrize(
    ("value", "streams"),
    [
        (True, True),
        ("true", True),
        (False, False),
        ("false", False),
        ("yes", False),
        ("", False),
        (None, False),
    ],
)
def test_stream_is_true_or_the_word_true(value: object, streams: bool) -> None:
    """Only true and "true" ask for a stream."""
    assert parse_request({"stream?": value}).stream is streams


@pytest.mark.parametrize("preference", [None, "claude", 5, [], {"provider": 3}])
def test_any_model_preference_is_readable(preference: object) -> None:
    """A wrong model preference is for the decision to refuse with its own reason."""
    assert parse_request({"model_preference": preference}).model_preference == preference


def test_nulls_in_requests_and_contexts_are_absences() -> None:
    """Clients that write every field, null or not, are read like those that leave them out."""
    for struct, reader in ((InferenceRequest(), parse_request), (ExecutionContext(), parse_context)):
        assert reader(dict.fromkeys(msgspec.structs.asdict(struct))) == struct


def test_unknown_fields_are_tolerated_where_others_write() -> None:
    """A newer client's extra fields do not break an older supervisor."""
    assert parse_request({"temperature": 1}) == InferenceRequest()
    assert parse_consumer_manifest({"extra": 1}) == ConsumerManifest()
    assert parse_context({"extra": 1}) == ExecutionContext()


@pytest.mark.parametrize("code", READERS)
@pytest.mark.parametrize("source", ["text", 5, [], [("stream", True)], True, b"{}", object()])
def test_what_is_no_object_is_refused(code: str, source: object) -> None:
    """Only maps and structs have fields."""
    refusal = _refusal(code, source)
    assert refusal.message.endswith("it must be an object")
    assert refusal.param is None


def _endless() -> dict[str, object]:
    endless: dict[str, object] = {}
    endless["again"] = endless
    return endless


@pytest.mark.parametrize(
    "value",
    [object(), {"deep": [object()]}, {(1, 2): 3}, "\ud800", {"\ud800": 1}, _endless()],
    ids=lambda value: ascii(value)[:24],
)
@pytest.mark.parametrize("code", ["invalid_request", "invalid_consumer_manifest", "invalid_context"])
def test_what_json_cannot_hold_is_refused(code: str, value: object) -> None:
    """Nothing is accepted that could not be answered, logged or journalled later."""
    assert _refusal(code, {"metadata": {"key": value}}).message.endswith("it holds what JSON cannot")


def test_an_unwritable_option_name_is_refused() -> None:
    """Even a field name that is no text gets a typed answer."""
    _refusal("invalid_lease_options", {"\ud800": 1})


def test_a_request_cannot_be_absent() -> None:
    """Everything has a default but the request."""
    assert _refusal("invalid_request", None).param is None


WRONG_TYPES: dict[str, dict[str, list[object]]] = {
    "invalid_request": {
        "contract_version": [5, "", []],
        "request_id": [5, {}, "r" * 257],
        "operation": [5, []],
        "messages": [{}, "hi", 5],
        "prompt": [5, []],
        "target_preference": [[], "cli_endpoint"],
        "stream?": [1, [], {}],
        "tool_policy": [[], "none"],
        "output_constraints": [[], 5],
        "metadata": [[], "x"],
        "tools": [{}, "x", 5],
        "functions": [{}, "x"],
    },
    "invalid_consumer_manifest": {
        "contract_version": [5, "", None],
        "consumer": [5, [], "c" * 257],
        "accepted_runtime_kinds": ["task", {}, 5, None],
        "accepted_management_modes": ["jido_managed", {}, None],
        "accepted_protocols": ["openai_chat_completions", {}, None],
        "required_capabilities": [[], "streaming?", None],
        "optional_capabilities": [[], True, None],
        "constraints": [[], "x", None],
        "metadata": [[], "x", None],
    },
    "invalid_context": {
        "contract_version": [5, ""],
        "run_id": [5, {}, "r" * 257],
        "attempt_id": [5, [], "a" * 257],
        "authority_source": [5],
        "decision_ref": [5],
        "authority_ref": [5],
        "boundary_ref": [5, {}],
        "credential_scope": [[], "x"],
        "network_policy": [[]],
        "observability": ["x"],
        "streaming_policy": [5],
        "replay": [[]],
        "metadata": [[], 5],
    },
    "invalid_lease_options": {
        "ttl_s": [0, 0.99, -1, 604_801, 1e300, 10**400, float("nan"), float("inf"), "60", True, None, []],
        "idle_timeout_s": [0, -5, 604_801, float("nan"), "60", True, None],
        "owner_pid": [0, -1, "1", 1.5, True],
        "concurrency": [0, 65, -1, 1.5, "4", True, None],
        "queue_limit": [-1, 1025, 0.5, "4", True],
        "budget": [5, [], "x"],
        "limits": [5, [], "x"],
        "standby": [-1, 9, "1", 0.5, True, None],
        "group": ["", "g" * 129, 5, [], True],
    },
}


@pytest.mark.parametrize(
    ("code", "field", "value"),
    [
        (code, field, value)
        for code, fields in WRONG_TYPES.items()
        for field, values in fields.items()
        for value in values
    ],
    ids=lambda value: str(value)[:24],
)
def test_wrong_values_name_their_field(code: str, field: str, value: object) -> None:
    """A value of a wrong type or out of bounds is refused, and the refusal names the field."""
    refusal = _refusal(code, {field: value})
    assert refusal.param == field
    assert field in refusal.message


@pytest.mark.parametrize(
    ("code", "kind", "free"),
    [
        (
            "invalid_request",
            InferenceRequest,
            {"model_preference", "authority_refs", "tool_choice", "function_call"},
        ),
        ("invalid_consumer_manifest", ConsumerManifest, set()),
        ("invalid_context", ExecutionContext, {"authority_refs"}),
        ("invalid_lease_options", LeaseOptions, set()),
    ],
)
def test_every_field_has_a_refused_value(code: str, kind: type[msgspec.Struct], free: set[str]) -> None:
    """No field is forgotten by the table above but those that take anything."""
    assert {field.encode_name for field in msgspec.structs.fields(kind)} == WRONG_TYPES[code].keys() | free


@pytest.mark.parametrize(
    ("code", "source", "param", "words"),
    [
        ("invalid_consumer_manifest", {"accepted_protocols": 5}, "accepted_protocols", "must be an array"),
        (
            "invalid_consumer_manifest",
            {"accepted_protocols": ["a", 1]},
            "accepted_protocols[1]",
            "must be a string",
        ),
        (
            "invalid_consumer_manifest",
            {"metadata": {1: 2}},
            "metadata",
            "the keys of metadata must be strings",
        ),
        ("invalid_consumer_manifest", {1: 2}, None, "the keys of the object must be strings"),
        ("invalid_request", {"messages": [{}, "hi"]}, "messages[1]", "must be an object"),
        ("invalid_request", {"stream": 5}, "stream?", "must be true or false"),
        ("invalid_lease_options", {"ttl_s": 0}, "ttl_s", "must be a number >= 1"),
        ("invalid_lease_options", {"concurrency": 65}, "concurrency", "must be an integer <= 64"),
        ("invalid_lease_options", {"ttl": 5}, "ttl", "ttl is not a known field"),
        ("invalid_lease_options", {"contract_version": "x"}, "contract_version", "is not a known field"),
        ("invalid_lease_options", {"budget": {"tokens": 5}}, "budget.tokens", "is not a known field"),
        ("invalid_lease_options", {"budget": {"requests": 0}}, "budget.requests", "must be an integer >= 1"),
        ("invalid_lease_options", {"budget": {"cost_usd": 0}}, "budget.cost_usd", "must be a number > 0"),
        (
            "invalid_lease_options",
            {"budget": {"cli_s": 1.1e9}},
            "budget.cli_s",
            "must be a number <= 1000000000.0",
        ),
        (
            "invalid_lease_options",
            {"budget": {"total_tokens": "9"}},
            "budget.total_tokens",
            "must be an integer",
        ),
        ("invalid_lease_options", {"limits": {"memory": 5}}, "limits.memory", "is not a known field"),
        *(
            ("invalid_lease_options", {"limits": {name: value}}, f"limits.{name}", f"must be {kind}")
            for kind, names, values in (
                ("an integer", COUNTED_LIMITS, (0, -1, 1.5, "5", True)),
                ("a number", ("cpu_s", "wall_s"), (0, -0.5, "5", True, 1e10, math.inf, math.nan)),
            )
            for name in names
            for value in values
        ),
    ],
)
def test_refusals_say_what_is_expected(code: str, source: object, param: str | None, words: str) -> None:
    """The message is a sentence about the field, in the caller's terms."""
    refusal = _refusal(code, source)
    assert refusal.param == param
    assert words in refusal.message
    assert refusal.envelope()["error"]["param"] == refusal.param


@pytest.mark.parametrize("name", ["", " ", "`", "x` - at `$.y`", "a\nb", "$.ttl_s", "ttl_s?", "[0]"])
def test_odd_unknown_option_names_are_refused_cleanly(name: str) -> None:
    """A field name that looks like part of a message changes nothing about the refusal."""
    assert "known field" in _refusal("invalid_lease_options", {name: 5}).message


@pytest.mark.parametrize(
    "options",
    [LeaseOptions(concurrency=65), LeaseOptions(budget=Budget(requests=0)), LeaseOptions(ttl_s=0.0)],
)
def test_structs_are_validated_too(options: LeaseOptions) -> None:
    """A struct built in Python has no way around the bounds."""
    _refusal("invalid_lease_options", options)


@pytest.mark.parametrize(
    "options",
    [
        {"ttl_s": 1, "idle_timeout_s": 1, "concurrency": 1, "standby": 0},
        {"ttl_s": 604_800, "idle_timeout_s": 604_800.0, "concurrency": 64, "standby": 8},
        {"owner_pid": 1, "budget": {"requests": 1, "total_tokens": 1, "cost_usd": 1e-9, "cli_s": 1e9}},
        {"owner_pid": None, "budget": None, "queue_limit": None},
        {"budget": dict.fromkeys(Budget.__struct_fields__)},
        {"queue_limit": 0},
        {"queue_limit": 1024},
        {"limits": {**dict.fromkeys(COUNTED_LIMITS, 1), "cpu_s": 0.001, "wall_s": 1e9}},
        {"limits": {**dict.fromkeys(COUNTED_LIMITS, 2**63), "cpu_s": None, "wall_s": None}},
    ],
)
def test_lease_options_take_their_bounds(options: dict[str, Any]) -> None:
    """The bounds themselves are allowed."""
    read = msgspec.to_builtins(parse_lease_options(options))
    assert {key: read[key] for key in options} == options


def test_names_of_the_callers_own_take_their_bound() -> None:
    """Longer ones would fill the journal and every line of the logs, however few leases their owner may have."""
    longest = "n" * 256
    assert parse_request({"request_id": longest}).request_id == longest
    assert parse_consumer_manifest({"consumer": longest}).consumer == longest
    assert parse_context({"run_id": longest, "attempt_id": longest}).run_id == longest


def test_a_missing_required_field_is_named() -> None:
    """A descriptor without its lease is no descriptor."""
    source = _descriptor().to_builtins()
    del source["lease_ref"]
    with pytest.raises(RequestError, match="lease_ref is required") as refusal:
        parse(source, EndpointDescriptor, code="invalid_request", noun="descriptor")
    assert refusal.value.param == "lease_ref"


@pytest.mark.parametrize(
    "field", ["endpoint_id", "base_url", "provider_identity", "model_identity", "lease_ref"]
)
def test_descriptor_identities_are_not_empty(field: str) -> None:
    """An endpoint without a name, an address or a model is not published."""
    with pytest.raises(RequestError) as refusal:
        parse(_descriptor(**{field: ""}), EndpointDescriptor, code="invalid_request", noun="descriptor")
    assert refusal.value.param == field


def test_reading_does_not_change_its_input() -> None:
    """The caller's map is left as it was, old spellings and nulls included."""
    source = {"stream": "true", "prompt": None}
    parse_request(source)
    assert source == {"stream": "true", "prompt": None}


def test_contract_structs_are_frozen() -> None:
    """A decision cannot be changed after the fact."""
    with pytest.raises(AttributeError):
        CompatibilityResult().reason = "protocol_match"
    with pytest.raises(AttributeError):
        EndpointCapabilities().streaming = True
