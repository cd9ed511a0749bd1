"""The OpenAPI document agrees with the application it describes."""

from __future__ import annotations

import json
import re

from shared.errors import KINDS
from supervisor.api import create_app
from supervisor.auth import OPEN_PATHS
from supervisor.openapi import ADMIN_ONLY, EVERY_CALLER, document


def test_every_route_is_described_and_every_description_is_a_route():
    """The document's paths and operations are the application's own."""
    app = create_app(None, None)  # type: ignore[arg-type]  # no request is made
    for path, operations in document("0")["paths"].items():
        found = app._router.find(re.sub(r"{\w+}", "x", path))
        assert found is not None, path
        routed = {method.lower() for method, responder in found[1].items() if _is_ours(responder)}
        assert routed == {name for name in operations if name != "parameters"}, path


def test_who_may_do_what_is_as_described():
    """What the document says needs the admin's token is what the application keeps from everybody else."""
    app = create_app(None, None)  # type: ignore[arg-type]  # no request is made
    for path, operations in document("0")["paths"].items():
        found = app._router.find(re.sub(r"{\w+}", "x", path))
        assert found is not None, path
        is_for_all = getattr(found[0], "IS_FOR_EVERY_CALLER", False)
        for name, operation in operations.items():
            if name != "parameters":
                assert operation["security"] == (
                    [] if path in OPEN_PATHS else EVERY_CALLER if is_for_all else ADMIN_ONLY
                )


def test_every_error_is_one_of_its_operation():
    """Each status is described by its codes, which have it; none is left to a default."""
    for path, operations in document("0")["paths"].items():
        for name, operation in operations.items():
            if name == "parameters":
                continue
            responses = operation["responses"]
            assert "default" not in responses, path
            for status, answer in responses.items():
                for code in re.findall(r"`(\w+)`", answer["description"]):
                    assert str(KINDS[code].status) == status, (path, code)
            assert {"401", "421", "500"} - set(responses) <= ({"401"} if path in OPEN_PATHS else set()), path


def test_every_reference_resolves():
    """No schema is named that is not there."""
    text = json.dumps(made := document("0"))
    for name in re.findall(r"#/components/schemas/(\w+)", text):
        assert name in made["components"]["schemas"]


def test_contract_keys_keep_their_question_marks():
    """The schema shows the names that really are on the wire."""
    schemas = document("0")["components"]["schemas"]
    assert "compatible?" in schemas["CompatibilityResult"]["properties"]
    assert "stream?" in schemas["InferenceRequest"]["properties"]


def _is_ours(responder: object) -> bool:
    return getattr(responder, "__module__", "").startswith("supervisor")
