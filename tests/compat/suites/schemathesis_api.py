"""schemathesis over the product's own OpenAPI documents: no server error, no status that is not in it, no hang.

Every operation of the document but those that end the server under test, with what the document allows and what it
does not; the same cases each time.
"""

from __future__ import annotations

import os
from typing import Any

import requests
import schemathesis
from lane import read_lane
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

CASE_TIMEOUT_S = 30.0
MAX_EXAMPLES = 25
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    ignored_auth,
    unsupported_method,
]
SUPERVISOR = os.environ["COMPAT_SUPERVISOR_URL"]
ADMIN_TOKEN = os.environ["COMPAT_SUPERVISOR_TOKEN"]
ENDS_THE_SERVER = ["/v1/leave"]


def config(*schemes: str, token: str) -> schemathesis.Config:
    """Bounded, the same each time, with that token for those security schemes."""
    return schemathesis.Config.from_dict(
        {
            "auth": {"openapi": {scheme: {"bearer": token} for scheme in schemes}},
            "generation": {"max-examples": MAX_EXAMPLES, "deterministic": True, "database": "none"},
        }
    )


def document(url: str, token: str) -> Any:
    """The OpenAPI document that is served there."""
    answer = requests.get(url, headers={"authorization": f"Bearer {token}"}, timeout=CASE_TIMEOUT_S)
    answer.raise_for_status()
    return answer.json()


LANE = read_lane()
LEASE_URL = LANE.base_url.removesuffix("/v1")
SERVER_URL, LEASE_REF = LEASE_URL.rsplit("/leases/", 1)

supervisor = schemathesis.openapi.from_dict(
    document(f"{SUPERVISOR}/openapi.json", ADMIN_TOKEN),
    config=config("adminToken", "apiToken", token=ADMIN_TOKEN),
).exclude(path=ENDS_THE_SERVER)


@supervisor.parametrize()
def test_supervisor(case: schemathesis.Case) -> None:
    case.call_and_validate(base_url=SUPERVISOR, timeout=CASE_TIMEOUT_S, checks=CHECKS)


worker = schemathesis.openapi.from_dict(
    document(f"{LEASE_URL}/openapi.json", LANE.api_key), config=config("leaseToken", token=LANE.api_key)
)


@worker.parametrize()
def test_worker(case: schemathesis.Case) -> None:
    case.path_parameters["lease_ref"] = LEASE_REF  # of another one nothing is said, but that it is not ours
    case.call_and_validate(base_url=SERVER_URL, timeout=CASE_TIMEOUT_S, checks=CHECKS)
