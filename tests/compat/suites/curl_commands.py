"""``curl -N``, as people try an endpoint out: whole, streamed, with a body from a file, cut short."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from lane import Lane

TEXT = "one two three"
TIMEOUT_S = 60
CUT_SHORT = 28
"""curl's exit status when its own time is over."""


def curl(lane: Lane, *arguments: str, path: str = "/chat/completions", exits: int = 0) -> str:
    """What it printed."""
    command = ("curl", "-sS", "-H", f"Authorization: Bearer {lane.api_key}", *arguments, lane.base_url + path)
    ran = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert ran.returncode == exits, ran.stderr
    return ran.stdout


def body(text: str, **more: Any) -> str:
    """A request as it would be typed."""
    return json.dumps({"messages": [{"role": "user", "content": text}], **more})


def test_completion(lane: Lane) -> None:
    answer = json.loads(curl(lane, "--json", body(lane.saying(TEXT))))
    assert answer["choices"][0]["message"]["content"] == TEXT


def test_stream(lane: Lane) -> None:
    printed = curl(lane, "-N", "--json", body(lane.saying(TEXT), stream=True))
    *events, end, rest = printed.split("\n\n")
    deltas = [json.loads(event.removeprefix("data: "))["choices"][0]["delta"] for event in events]
    assert "".join(delta.get("content", "") for delta in deltas) == TEXT
    assert (end, rest) == ("data: [DONE]", "")


def test_stream_comes_while_it_is_made(lane: Lane) -> None:
    printed = curl(lane, "-N", "--max-time", "3", "--json", body(lane.long, stream=True), exits=CUT_SHORT)
    assert '"content":"w' in printed
    assert "[DONE]" not in printed


def test_without_a_content_type(lane: Lane) -> None:
    answer = json.loads(curl(lane, "-H", "Content-Type:", "-d", body(lane.saying(TEXT))))
    assert answer["choices"][0]["message"]["content"] == TEXT


def test_a_chunked_body_from_a_file(lane: Lane, tmp_path: Path) -> None:
    file = tmp_path / "body.json"
    file.write_text(body(lane.saying(TEXT)), encoding="utf-8")
    sent = ("-H", "Transfer-Encoding: chunked", "-H", "Content-Type: application/json", "-d", f"@{file}")
    assert json.loads(curl(lane, *sent))["choices"][0]["message"]["content"] == TEXT


def test_a_large_body_that_asks_first(lane: Lane) -> None:
    text = "word " * 20_000
    answer = json.loads(
        curl(lane, "-H", "Expect: 100-continue", "--json", body(lane.saying(TEXT) + " " * len(text)))
    )
    assert answer["choices"][0]["message"]["content"].strip() == TEXT


def test_headers(lane: Lane) -> None:
    printed = curl(lane, "-i", "-H", "X-Request-Id: mine-1", "--json", body(lane.saying(TEXT)))
    head = printed.partition("\r\n\r\n")[0].lower()
    assert head.startswith("http/1.1 200")
    assert "x-request-id: mine-1" in head


def test_models(lane: Lane) -> None:
    assert [model["id"] for model in json.loads(curl(lane, path="/models"))["data"]] == [lane.model]


@pytest.mark.parametrize(("sent", "status"), [("--json", 400), ("-d", 415)])
def test_a_failure_is_json_with_a_status(lane: Lane, sent: str, status: int) -> None:
    printed = curl(lane, "-w", "\n%{http_code}", sent, "{")
    error, _, printed_status = printed.rpartition("\n")
    assert printed_status == str(status)
    assert json.loads(error)["error"]["type"] == "invalid_request_error"


def test_fail_with_body(lane: Lane) -> None:
    printed = curl(lane, "--fail-with-body", "--json", body("x", n=2), exits=22)
    assert json.loads(printed)["error"]["param"] == "n"
