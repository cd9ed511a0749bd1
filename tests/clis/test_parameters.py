"""What the real command lines do with a request's fields beside its messages, seen by the model."""

from __future__ import annotations

import pytest

from supervisor import EndpointDescriptor
from tests.clis.conftest import WAIT_S, ask, chunks_of, posts, text_of
from tests.clis.models.server import ModelServer

pytestmark = [pytest.mark.cli, pytest.mark.process]


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_stops_the_model(lease: EndpointDescriptor, server: ModelServer, stream: bool):
    """The answer ends right before it, and the model server sees the command line hang up."""
    answer = ask(lease, "[[deltas:5000]] [[delay:0.02]] x", stop="2 w3", stream=stream)
    if stream:
        *chunks, done = chunks_of(answer)
        assert done == "[DONE]"
        text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
        assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    else:
        text = text_of(answer)
        assert answer.json()["usage"]["completion_tokens"] > 0
    assert text == "w0 w1 w"
    server.wait_for_hangup(lambda request: request.method == "POST", WAIT_S)
    assert len(posts(server)) == 1
    assert text_of(ask(lease, "still here")) == "echo: still here"
