"""The supervisor's API as Python calls: the same three names, the same structs and the same errors as in-process."""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec

from shared.contracts import (
    CompatibilityResult,
    ConsumerManifest,
    EndpointDescriptor,
    ExecutionContext,
    InferenceRequest,
    LeaseOptions,
    parse_consumer_manifest,
    parse_context,
    parse_lease_options,
    parse_request,
)
from shared.errors import RequestError, WorkerError
from shared.reading import parse
from supervisor.caller import ADMIN_NAME, CallerLimits
from supervisor.errors import from_envelope
from supervisor.settings import state_home
from supervisor.statefolder import StateFolder
from supervisor.views import LeaseReleased, LeaseView, NewToken, Released, TokenView

LEASE_REF = re.compile(r"[A-Za-z0-9_-]{1,128}")
URL_VARIABLE = "ASM_ENDPOINT_URL"
TOKEN_VARIABLE = "ASM_ENDPOINT_TOKEN"  # noqa: S105  # a variable's name
TIMEOUT_S = 120.0
"""For one call; longer than any bound of the supervisor on one lease."""


class SupervisorClient:
    """One supervisor's API; synchronous. Close it, or use it as a context manager.

    Every call raises the typed errors of :mod:`shared.errors`; ``supervisor_unavailable`` when nothing answers.
    """

    def __init__(self, url: str, token: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self.url = url
        self._http = httpx.Client(
            base_url=url,
            headers=_authorization(token),
            timeout=timeout_s,
            trust_env=False,
        )

    @classmethod
    def from_home(cls, home: Path | None = None) -> SupervisorClient:
        """The supervisor of a state folder, as its admin.

        Without ``home`` it is this user's; then $ASM_ENDPOINT_TOKEN, where it is set, is who asks, and with it
        $ASM_ENDPOINT_URL is whom: who has a named token need not have the folder. A supervisor that is just starting
        is waited for, at most ten seconds.

        Raises WorkerError ``supervisor_unavailable``, and for a URL without a token RequestError ``invalid_request``.
        """
        folder = StateFolder(home or state_home(os.environ))
        token = os.environ.get(TOKEN_VARIABLE) if home is None else None
        url = os.environ.get(URL_VARIABLE) if home is None else None
        if url and not token:
            raise RequestError("invalid_request", f"cannot ask {url}: {URL_VARIABLE} needs {TOKEN_VARIABLE}")
        return cls(url or folder.require_address().url, token or folder.read_token())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; leases go on."""
        self._http.close()

    def consumer_manifest(self) -> ConsumerManifest:
        """The manifest of a consumer that fits what this supervisor publishes."""
        return parse_consumer_manifest(self._call("GET", "/v1/consumer-manifest"))

    def ensure_endpoint(
        self,
        request: InferenceRequest | dict[str, Any],
        consumer_manifest: ConsumerManifest | dict[str, Any] | None = None,
        context: ExecutionContext | dict[str, Any] | None = None,
        *,
        lease: LeaseOptions | dict[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> tuple[EndpointDescriptor, CompatibilityResult]:
        """Lease one endpoint. Raises Incompatible, RequestError, ProviderError or WorkerError."""
        body: dict[str, Any] = {"request": parse_request(request)}
        if consumer_manifest is not None:
            body["consumer_manifest"] = parse_consumer_manifest(consumer_manifest)
        if context is not None:
            body["context"] = parse_context(context)
        if lease is not None:
            body["lease"] = parse_lease_options(lease)
        headers = {"idempotency-key": idempotency_key} if idempotency_key is not None else {}
        answer = self._call("POST", "/v1/endpoints", body, headers)
        return (
            parse(answer["endpoint"], EndpointDescriptor, code="invalid_request", noun="endpoint"),
            parse(answer["compatibility"], CompatibilityResult, code="invalid_request", noun="compatibility"),
        )

    def release_endpoint(self, lease_ref: str | EndpointDescriptor) -> Released:
        """End a lease and everything it started; returns the proof. Idempotent. Raises SurvivorsError."""
        if not LEASE_REF.fullmatch(_ref(lease_ref)):
            return Released(released=True)
        return msgspec.convert(self._call("DELETE", _path(lease_ref)), Released)

    def renew_endpoint(self, lease_ref: str | EndpointDescriptor, ttl_s: float) -> LeaseView:
        """Let a lease live for ``ttl_s`` seconds from now. Raises RequestError ``not_found``."""
        answer = self._call("POST", f"{_path(lease_ref)}/renew", {"ttl_s": ttl_s})
        return msgspec.convert(answer, LeaseView)

    def endpoint(self, lease_ref: str | EndpointDescriptor) -> LeaseView:
        """One lease. Raises RequestError ``not_found``."""
        return msgspec.convert(self._call("GET", _path(lease_ref)), LeaseView)

    def endpoints(
        self, *, group: str | None = None, owner: str | None = None, ended: bool = False
    ) -> list[LeaseView]:
        """Every open lease that this caller may see; with ``ended`` before them the last ones that have ended."""
        query = {"group": group, "owner": owner, "ended": "true" if ended else None}
        answer = self._call("GET", "/v1/endpoints", query=query)
        return msgspec.convert(answer["endpoints"], list[LeaseView])

    def release_endpoints(self, *, group: str | None = None, owner: str | None = None) -> list[LeaseReleased]:
        """End the leases of a group, of an owner, or of both, at once. Raises RequestError or ReleasesFailed."""
        answer = self._call("DELETE", "/v1/endpoints", query={"group": group, "owner": owner})
        return msgspec.convert(answer["endpoints"], list[LeaseReleased])

    def add_token(
        self,
        name: str,
        *,
        expires_in_s: float | None = None,
        limits: CallerLimits | dict[str, Any] | None = None,
    ) -> NewToken:
        """A token for a new identity; only its admin may. Raises RequestError."""
        body = {"name": name, "expires_in_s": expires_in_s, "limits": limits or {}}
        return msgspec.convert(self._call("POST", "/v1/tokens", body), NewToken)

    def tokens(self) -> list[TokenView]:
        """Every named token, never itself; only the admin may ask."""
        return msgspec.convert(self._call("GET", "/v1/tokens")["tokens"], list[TokenView])

    def rotate_token(self, name: str) -> NewToken:
        """A new token in place of the old one; this client goes on with its own. Raises RequestError ``not_found``."""
        new = msgspec.convert(self._call("POST", f"{_token_path(name)}/rotate", {}), NewToken)
        if name == ADMIN_NAME:
            self._http.headers.update(_authorization(new.token))
        return new

    def revoke_token(self, name: str, *, release: bool = False) -> list[LeaseReleased]:
        """Have a token refused from now on, and ``release`` its leases. Raises RequestError or ReleasesFailed."""
        query = {"release": "true"} if release else {}
        answer = self._call("DELETE", _token_path(name), query=query)
        return msgspec.convert(answer["endpoints"], list[LeaseReleased])

    def log(self, lease_ref: str | EndpointDescriptor) -> str:
        """The end of a lease's log, without secrets. Raises RequestError ``not_found``."""
        text: str = self._call("GET", f"{_path(lease_ref)}/log")["log"]
        return text

    def leave(self) -> None:
        """Have the supervisor leave every lease to another one of its state folder, and end."""
        self._call("POST", "/v1/leave")

    def providers(self) -> list[dict[str, Any]]:
        """Every provider: publication, and what is installed of it."""
        answer: list[dict[str, Any]] = self._call("GET", "/v1/providers")["providers"]
        return answer

    def _call(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        query: Mapping[str, str | None] | None = None,
    ) -> Any:
        content = None if body is None else msgspec.json.encode(body)
        try:
            answer = self._http.request(
                method,
                path,
                content=content,
                headers={"content-type": "application/json", **(headers or {})},
                params={name: value for name, value in (query or {}).items() if value is not None},
            )
        except httpx.HTTPError as error:
            raise WorkerError(
                "supervisor_unavailable",
                f"cannot reach the supervisor at {self.url}: {type(error).__name__}",
            ) from error
        try:
            decoded = msgspec.json.decode(answer.content)
        except msgspec.DecodeError:
            decoded = None
        if answer.is_success and decoded is not None:
            return decoded
        raise from_envelope(decoded, answer.status_code, answer.headers)


def _ref(lease_ref: str | EndpointDescriptor) -> str:
    return lease_ref if isinstance(lease_ref, str) else lease_ref.lease_ref


def _path(lease_ref: str | EndpointDescriptor) -> str:
    """The path of a lease. Raises RequestError ``not_found`` for what no lease can be called."""
    ref = _ref(lease_ref)
    if not LEASE_REF.fullmatch(ref):
        raise RequestError("not_found", f"cannot find lease {ref!r}")
    return f"/v1/endpoints/{ref}"


def _token_path(name: str) -> str:
    """The path of a token, whatever the name: one that no token can have is simply not found."""
    return f"/v1/tokens/{urllib.parse.quote(name, safe='')}"


def _authorization(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}
