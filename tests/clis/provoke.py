"""Making the rows of the table of failures happen, and holding what a caller sees against them."""

from __future__ import annotations

import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from shared.errors import EndpointError
from shared.launch import TurnLimits
from supervisor import EndpointDescriptor, InferenceEndpoint
from tests.clis.conftest import HTTP_TIMEOUT_S, ask, chunks_of
from tests.clis.failures import Failing
from worker.session import open_session, query

CLOCK_S = 2
"""How much of a time to wait may have passed before it is told."""
PIECE = re.compile(r'"content":"[^"]')
DRIFTING = """#!{python} -IS
import subprocess, sys
command_line = subprocess.Popen([{executable!r}, *sys.argv[1:]], stdout=subprocess.PIPE)
for line in command_line.stdout:
    sys.stdout.buffer.write(line.replace({printed!r}, {read!r}))
    sys.stdout.buffer.flush()
sys.exit(command_line.wait())
"""


def assert_fails(descriptor: EndpointDescriptor, failing: Failing) -> None:
    """A typed error with its own status, streaming or not, at once: nothing is tried again for minutes."""
    whole = ask(descriptor, failing.prompt)
    streamed = ask(descriptor, failing.prompt, stream=True)
    if failing.status == 200:
        assert whole.json()["choices"][0]["finish_reason"] == failing.end
        assert chunks_of(streamed)[-2]["choices"][0]["finish_reason"] == failing.end
        return
    assert_refusal(whole, failing)
    if not failing.has_begun:
        assert_refusal(streamed, failing)
        return
    assert streamed.status_code == 200
    assert chunks_of(streamed)[-1]["error"]["code"] == failing.end
    assert "[DONE]" not in streamed.text


def assert_refusal(answer: httpx.Response, failing: Failing) -> None:
    """Status, code, and what is said of trying again."""
    assert (answer.status_code, answer.json()["error"]["code"]) == (failing.status, failing.end), answer.text
    assert answer.headers["x-should-retry"] == "false"
    if failing.retry_after is None:
        assert "retry-after" not in answer.headers
    else:
        assert 0 <= int(failing.retry_after) - int(answer.headers["retry-after"]) <= CLOCK_S


async def assert_is_a_failure(provider: str, model: str, failing: Failing) -> None:
    """The row as a library call, under the row's deadlines; the session goes on when only a deadline was missed."""
    async with open_session(provider, model=model) as session:
        if failing.limits:
            await query(session, "a warm one")
            session.limits = TurnLimits(**failing.limits)
        with pytest.raises(EndpointError, match=next(iter(failing.limits), None)) as caught:
            await query(session, failing.prompt)
        assert (caught.value.status, caught.value.code) == (failing.status, failing.end)
        if failing.by == "deadline":
            assert (await query(session, "still here")).text == "echo: still here"


def assert_is_fatal(endpoint: InferenceEndpoint, descriptor: EndpointDescriptor, failing: Failing) -> None:
    """Killed from outside in the middle of an answer, and any that stand by with it."""
    body = {"messages": [{"role": "user", "content": failing.prompt}], "stream": True}
    url = f"{descriptor.base_url}/chat/completions"
    with httpx.stream("POST", url, headers=descriptor.headers, json=body, timeout=HTTP_TIMEOUT_S) as answer:
        lines: Iterator[str] = answer.iter_lines()
        next(line for line in lines if PIECE.search(line))
        for process in endpoint.endpoint(descriptor).processes[2:]:
            psutil.Process(process.pid).kill()
        rest = "\n".join(lines)
    assert f'"code":"{failing.end}"' in rest
    assert "[DONE]" not in rest


def write_drifting(folder: Path, executable: Path, failing: Failing) -> Path:
    """A command line that prints what the real one prints, but for one thing."""
    printed, read = (part.encode() for part in failing.drift)
    path = folder / "drifting"
    path.write_text(
        DRIFTING.format(python=sys.executable, executable=str(executable), printed=printed, read=read)
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path
