"""A child process by itself, without a protocol: what is known of it while it runs, and when it has ended."""

from __future__ import annotations

import asyncio
import os

import pytest

from shared.provider import Command
from tests.process.serving import WAIT_S
from worker.child import Child, spawn

pytestmark = pytest.mark.process
DESCRIPTORS = 64
"""More than are open here, so that any number which has become free is taken again."""


def test_a_process_that_has_ended_takes_no_memory():
    """Also when its descriptor's number has become that of another process."""

    async def scenario() -> None:
        ended: list[tuple[int, str]] = []
        cat = spawn(Command(argv=("/bin/cat",), env={}, cwd="/"), None)
        child = Child(cat, lambda chunk: None, lambda exit_code, stderr: ended.append((exit_code, stderr)))
        assert child.rss_bytes > 0
        await child.stop(WAIT_S)
        assert ended == [(0, "")]
        others = [os.pidfd_open(os.getpid()) for _ in range(DESCRIPTORS)]
        try:
            assert child.rss_bytes == 0
        finally:
            for other in others:
                os.close(other)

    asyncio.run(scenario())
