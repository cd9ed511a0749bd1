"""How many deltas per second go through one stream, against reading the command line's pipe alone."""

from __future__ import annotations

import os
import statistics
import subprocess
import time

import msgspec
import pytest

from shared import provider
from shared.claude_wire.connection import ClaudeConnection
from shared.sansio import Prompt
from supervisor import InferenceEndpoint
from tests.bench.measure import report
from tests.bench.rawhttp import stream_bytes

pytestmark = pytest.mark.bench
DELTAS = 10_000
RUNS = 9
STANDBY_SETTLE_S = 0.3
PROMPT = f"[[burst:{DELTAS}]]"
FLOOR_PER_S = 300_000


def pipe_alone_s() -> float:
    """Prompt to end of output of a ready echo process, its bytes read and not looked at."""
    process = subprocess.Popen(
        (*provider.load("echo").executable.pinned, "--model", "any"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        time.sleep(STANDBY_SETTLE_S)
        connection = ClaudeConnection()
        connection.start_turn("turn", Prompt(text=PROMPT))
        data = connection.data_to_send()
        started = time.perf_counter()
        os.write(process.stdin.fileno(), data)
        process.stdin.close()
        while os.read(process.stdout.fileno(), 1 << 18):
            pass
        return time.perf_counter() - started


def test_ten_thousand_deltas_go_through_one_stream(endpoint: InferenceEndpoint):
    """At least 300 000 deltas a second, or 80 % of the pipe alone, whichever is smaller."""
    descriptor, _ = endpoint.ensure_endpoint({"model_preference": {"provider": "echo", "id": "any"}})
    body = {"messages": [{"role": "user", "content": PROMPT}], "stream": True}
    ours, alone = [], []
    for _ in range(RUNS):
        time.sleep(STANDBY_SETTLE_S)
        elapsed_s, received = stream_bytes(descriptor, body)
        assert received.count(b'"content":"w "') == DELTAS
        assert b"data: [DONE]" in received[-64:]
        ours.append(DELTAS / elapsed_s)
        alone.append(DELTAS / pipe_alone_s())
    endpoint.release_endpoint(descriptor)
    per_s, alone_per_s = statistics.median(ours), statistics.median(alone)
    bound = min(FLOOR_PER_S, 0.8 * alone_per_s)
    detail = (
        f"{per_s / 1e3:.0f}k deltas/s through the endpoint, {alone_per_s / 1e3:.0f}k/s from the pipe alone"
    )
    report("10 000 deltas, against the bound", detail, per_s / bound, ">= 1")
    assert per_s >= bound


def test_decoding_is_not_the_bottleneck_of_msgspec():
    """Guard: a typed decode of one delta line costs less than a plain json one, or the wire types are in the way."""
    line = b'{"type":"stream_event","event":{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"w "}}}'
    connection = ClaudeConnection()
    connection.start_turn("turn", Prompt(text="x"))
    decode = msgspec.json.Decoder().decode
    started = time.perf_counter()
    for _ in range(DELTAS):
        connection.receive((line,))
    typed_s = time.perf_counter() - started
    started = time.perf_counter()
    for _ in range(DELTAS):
        decode(line)
    plain_s = time.perf_counter() - started
    report(
        "receive() against an untyped decode",
        f"{typed_s / DELTAS * 1e6:.2f} us a line",
        typed_s / plain_s,
        "<= 4",
    )
    assert typed_s <= 4 * plain_s
