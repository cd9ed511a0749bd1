"""A request that ends early is felt by the model, whatever real command line is between, and whoever ends it."""

from __future__ import annotations

import json

import pytest

from supervisor import EndpointDescriptor, InferenceEndpoint
from tests.clis.conftest import WAIT_S, ask, lease_of, model_request, posts, text_of, until
from tests.clis.models.server import ModelServer
from tests.clis.table import Cli
from tests.departures import WAYS, end_early

pytestmark = [pytest.mark.cli, pytest.mark.process]
MOMENTS = {
    "before the first token": "[[hang]] x",
    "between tokens": "[[deltas:5000]] [[delay:0.02]] x",
    "while silent": "[[text:begun]] [[hang]] x",
}
CODES = {"release": (503, "lease_closed"), "cancel route": (499, "turn_cancelled")}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("way", WAYS)
def test_the_model_sees_the_command_line_hang_up(
    cli: Cli,
    with_key: InferenceEndpoint,
    lease: EndpointDescriptor,
    server: ModelServer,
    way: str,
    moment: str,
    stream: bool,
):
    """The turn is gone up to the model, the place is free, and the lease goes on, unless that was released."""
    descriptor = lease_of(with_key, cli) if way == "release" else lease
    before = with_key.endpoint(descriptor).load["completion_tokens"]

    def reached() -> None:
        model_request(server)
        if moment != "before the first token":
            until(lambda: with_key.endpoint(descriptor).load["pending_tokens"] > 0)

    body = {"messages": [{"role": "user", "content": MOMENTS[moment]}], "stream": stream}
    answer = end_early(way, descriptor, body, reached, lambda: with_key.release_endpoint(descriptor))
    server.wait_for_hangup(lambda request: request.method == "POST", WAIT_S)
    assert len(posts(server)) == 1
    if way != "release":
        until(lambda: with_key.endpoint(descriptor).load["in_flight"] == 0)
        assert with_key.endpoint(descriptor).load["completion_tokens"] >= before
        assert text_of(ask(descriptor, "still here")) == "echo: still here"
    if answer is None:
        return
    status, code = CODES[way]
    if answer.status_code == 200:
        *_, last = answer.text.strip().split("\n\n")
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == code
    else:
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
