"""Which web pages may speak to a server."""

from __future__ import annotations

import logging

import pytest
from falcon import testing
from falcon.asgi import Request, Response

from shared import http
from shared.cors import read_origin
from shared.errors import RequestError

PAGE, OTHER = "https://app.example", "https://evil.example"
PREFLIGHT = {"access-control-request-method": "POST"}
SDK_HEADERS = (
    "authorization", "content-type", "idempotency-key", "openai-organization", "openai-project", "x-request-id",
    "x-stainless-arch", "x-stainless-lang", "x-stainless-retry-count", "x-stainless-runtime",
)  # fmt: skip


class Refusing:
    """A token check that nobody passes."""

    async def process_request(self, req: Request, resp: Response) -> None:
        raise RequestError("unauthorized", "unauthorized")


def ask(origins: tuple[str, ...], method: str, host: str = "127.0.0.1", **headers: str) -> testing.Result:
    """A request without a token, where these origins are allowed."""
    app = http.new_app(logging.getLogger("test"), Refusing(), origins=lambda: origins)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return testing.TestClient(app).simulate_request(method, "/", host=host, headers=named)


def test_a_preflight_of_an_allowed_page_needs_no_token():
    """All that OpenAI's client sends is allowed, and nothing that is not known; no cookie, no star."""
    wanted = ", ".join([*SDK_HEADERS, "X-Stainless-OS", "x-evil"])
    answer = ask(
        (PAGE,),
        "OPTIONS",
        origin=PAGE,
        access_control_request_method="POST",
        access_control_request_headers=wanted,
    )
    assert (answer.status_code, answer.content) == (204, b"")
    headers = answer.headers
    assert headers["access-control-allow-origin"] == PAGE
    assert set(headers["access-control-allow-headers"].split(", ")) == {*SDK_HEADERS, "x-stainless-os"}
    assert "POST" in headers["access-control-allow-methods"]
    assert headers["vary"] == "Origin"
    assert headers["x-request-id"]
    assert "access-control-allow-credentials" not in headers
    assert "*" not in "".join(value for name, value in headers.items() if name.startswith("access-control"))


def test_an_answer_to_an_allowed_page_is_shown_to_it():
    """An error too, with the headers that its client obeys."""
    answer = ask((OTHER, PAGE), "GET", origin=PAGE)
    assert answer.status_code == 401
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert {
        "x-request-id",
        "retry-after",
        "x-should-retry",
        "openai-processing-ms",
        "x-asm-ignored-params",
    } <= set(answer.headers["access-control-expose-headers"].split(", "))
    assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize(
    ("origins", "origin"),
    [
        ((), PAGE),
        ((PAGE,), OTHER),
        ((PAGE,), "null"),
        ((PAGE,), f"{PAGE}.evil.example"),
        ((PAGE,), PAGE[:-1]),
    ],
)
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_no_other_page_is_let_in(origins: tuple[str, ...], origin: str, method: str):
    """By default none. A preflight is then a request without a token."""
    answer = ask(origins, method, origin=origin, access_control_request_method="POST")
    assert answer.status_code == 401
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert answer.headers.get("vary") == ("Origin" if origins else None)


def test_the_host_is_checked_first():
    """A rebound name gets nothing, whatever its page's origin."""
    answer = ask((PAGE,), "OPTIONS", host="evil.example", origin=PAGE, access_control_request_method="POST")
    assert answer.status_code == 421
    assert "access-control-allow-origin" not in answer.headers


def test_a_private_network_is_allowed_only_when_asked_for():
    """Browsers ask, before a public page may speak to loopback."""
    name = "access-control-allow-private-network"
    asked = {"origin": PAGE, "access_control_request_method": "GET"}
    assert name not in ask((PAGE,), "OPTIONS", **asked).headers
    answer = ask((PAGE,), "OPTIONS", **asked, access_control_request_private_network="true")
    assert answer.headers[name] == "true"


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://app.example", "https://app.example"),
        ("http://LOCALHOST:3000", "http://localhost:3000"),
        ("http://[::1]:3000", "http://[::1]:3000"),
    ],
)
def test_an_origin_is_read_as_browsers_write_it(text: str, origin: str):
    """In small letters."""
    assert read_origin(text) == origin


@pytest.mark.parametrize(
    "text",
    ["", "*", "null", "app.example", "https://", "https://*.example", "https://a.example/", "https://a.example/x",
     "https://a.example:x", "https://u@a.example", "ftp://a.example", "https://a.example?x"],
)  # fmt: skip
def test_anything_else_is_no_origin(text: str):
    """A misspelt one must not let anybody in, nor silently nobody."""
    with pytest.raises(RequestError, match="an origin such as"):
        read_origin(text)
