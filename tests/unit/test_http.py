"""What every answer of both applications has, whatever it is: envelope, status, headers."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from falcon import testing
from falcon.asgi import Request, Response

from shared import http
from shared.errors import KINDS, typed

MAX_BYTES = 100


class Failing:
    """Fails with whatever is asked for."""

    async def on_get(self, req: Request, resp: Response, code: str) -> None:
        raise typed(code, "cannot", param="p", retry_after_s=1.5, should_retry=False)


class Broken:
    """Has a defect."""

    async def on_get(self, req: Request, resp: Response) -> None:
        raise ZeroDivisionError("of our own")


class Reading:
    """Gives back the body that it read; can be got as well."""

    async def on_post(self, req: Request, resp: Response) -> None:
        http.send_json(resp, await http.read_json(req, MAX_BYTES, within_s=5.0))

    async def on_get(self, req: Request, resp: Response) -> None:
        http.send_json(resp, {"is": "here"})


@pytest.fixture
def client() -> testing.TestClient:
    """An application with nothing but these."""
    app = http.new_app(logging.getLogger("test"), origins=tuple)
    app.add_route("/failing/{code}", Failing())
    app.add_route("/broken", Broken())
    app.add_route("/reading", Reading())
    return testing.TestClient(app)


def ask(client: testing.TestClient, method: str, path: str, **more: Any) -> testing.Result:
    """A request to a loopback name."""
    return client.simulate_request(method, path, host="127.0.0.1", **more)


@pytest.mark.parametrize("code", KINDS)
def test_every_code_is_answered_as_openai_clients_expect(client: testing.TestClient, code: str):
    """Status, the four fields, and headers that clients obey."""
    answer = ask(client, "GET", f"/failing/{code}")
    assert answer.status_code == KINDS[code].status
    assert answer.json == {
        "error": {"message": "cannot", "type": KINDS[code].type, "param": "p", "code": code}
    }
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"].startswith("req_")
    assert int(answer.headers["openai-processing-ms"]) >= 0
    assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("2", "1500")
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers.get("www-authenticate") == ("Bearer" if answer.status_code == 401 else None)


@pytest.mark.parametrize(
    ("method", "path", "host", "status", "code"),
    [
        ("GET", "/nowhere", "127.0.0.1", 404, "not_found"),
        ("DELETE", "/reading", "127.0.0.1", 405, "method_not_allowed"),
        ("GET", "/broken", "127.0.0.1", 500, "internal_error"),
        ("GET", "/reading", "evil.example", 421, "misdirected_host"),
    ],
)
def test_failures_that_no_route_knows_look_the_same(
    client: testing.TestClient, method: str, path: str, host: str, status: int, code: str
):
    """The envelope and a request id, never a traceback."""
    answer = client.simulate_request(method, path, host=host)
    assert (answer.status_code, answer.json["error"]["code"]) == (status, code)
    assert answer.headers["x-request-id"]
    assert "ZeroDivision" not in answer.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"content-type": "application/json"}, 200),
        ({"content-type": "Application/JSON; charset=utf-8"}, 200),
        ({"content-type": "application/merge-patch+json"}, 200),
        ({"content-type": "application/json", "content-encoding": "identity"}, 200),
        ({"content-type": "application/json", "content-encoding": "gzip"}, 415),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "multipart/form-data; boundary=x"}, 415),
        ({"content-type": "application/jsonx"}, 415),
    ],
)
def test_a_body_that_says_it_is_not_json_is_refused(
    client: testing.TestClient, headers: dict[str, str], status: int
):
    """415; web pages can send such bodies without asking. One that says nothing is tried."""
    answer = ask(client, "POST", "/reading", body=b'{"a":1}', headers=headers)
    assert answer.status_code == status
    assert (
        answer.json == {"a": 1} if status == 200 else answer.json["error"]["code"] == "unsupported_media_type"
    )


@pytest.mark.parametrize("size", [MAX_BYTES, MAX_BYTES + 1])
def test_the_limit_of_a_body_is_its_last_byte(client: testing.TestClient, size: int):
    """One more is 413."""
    answer = ask(client, "POST", "/reading", body=b"1" + b" " * (size - 1))
    assert answer.status_code == (200 if size == MAX_BYTES else 413)


def test_a_head_is_that_of_the_get(client: testing.TestClient):
    """Same status and headers, the length too, and no body; of an error as well."""
    for path in ("/reading", "/nowhere", "/failing/not_found"):
        got, head = ask(client, "GET", path), ask(client, "HEAD", path)
        assert head.content == b""
        varying = {"x-request-id", "openai-processing-ms"}
        assert {k: v for k, v in head.headers.items() if k not in varying} == {
            k: v for k, v in got.headers.items() if k not in varying
        }
        assert head.status_code == got.status_code


def test_options_say_what_is_allowed(client: testing.TestClient):
    """Without a body; a 405 says the same."""
    answer = ask(client, "OPTIONS", "/reading")
    assert (answer.status_code, answer.content) == (200, b"")
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}
    assert "HEAD" in ask(client, "DELETE", "/reading").headers["allow"]
