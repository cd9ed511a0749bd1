"""The real command lines behind the locks that an operator can put on them: each completes, and is really held."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor import EndpointDescriptor, InferenceEndpoint, ProviderError
from tests.clis.conftest import ask, lease_of, text_of, until
from tests.clis.models.server import ModelServer
from tests.clis.table import KEY, Cli

pytestmark = pytest.mark.cli
NOBODY = 65534
LOCKS = {
    "none": (),
    "landlock": ("landlock",),
    "uid": (f"uid:{NOBODY}",),
    "both": ("landlock", f"uid:{NOBODY}"),
}
LIMITS = {
    "memory_bytes": 4 * 10**9,
    "cpu_s": 300,
    "processes": 50,
    "open_files": 1000,
    "workspace_bytes": 200 * 10**6,
    "wall_s": 600,
}
"""Which each of them keeps with ease."""
LOGIN_FILES = {
    "claude": ".claude/.credentials.json",
    "codex": ".codex/auth.json",
    "gemini": ".gemini/oauth_creds.json",
}


@pytest.fixture(params=LOCKS)
def locks(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """None for comparison, each lock, and both."""
    return LOCKS[request.param]


@pytest.fixture
def hardened(
    cli: Cli, locks: tuple[str, ...], start_supervisor: Callable[..., InferenceEndpoint]
) -> Iterator[InferenceEndpoint]:
    """A supervisor that puts the locks on."""
    with start_supervisor(cli, arguments=arguments(locks), **{cli.key_variable: KEY}) as endpoint:
        yield endpoint


def arguments(locks: tuple[str, ...]) -> tuple[str, ...]:
    """As ``serve`` takes them."""
    return tuple(part for lock in locks for part in ("--harden", lock))


def status_of(pid: int) -> dict[str, str]:
    """What the kernel says of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def command_lines(endpoint: InferenceEndpoint, descriptor: EndpointDescriptor) -> list[int]:
    """Of the lease's processes, those that are not its server's two."""
    return [process.pid for process in endpoint.endpoint(descriptor).processes][2:]


def test_each_command_line_completes_behind_its_locks(
    cli: Cli, hardened: InferenceEndpoint, server: ModelServer, locks: tuple[str, ...]
):
    """Twice, so that a home that such a process has left is met again; within limits; the kernel says who it is."""
    descriptor = lease_of(hardened, cli, limits=LIMITS)
    assert descriptor.metadata["isolation"].split("+")[1:] == list(locks)
    for _ in range(2):
        assert text_of(ask(descriptor, "Say hello")) == "echo: Say hello"
    until(lambda: command_lines(hardened, descriptor))
    uid = NOBODY if any(lock.startswith("uid") for lock in locks) else os.getuid()
    for pid in command_lines(hardened, descriptor):
        status = status_of(pid)
        assert status["Uid"].split() == [str(uid)] * 4
        assert status["NoNewPrivs"] == "1"
        assert uid != NOBODY or (status["CapEff"], status["Groups"]) == ("0" * 16, "")
    proof = hardened.release_endpoint(descriptor).proof
    assert proof is not None
    assert not proof.survivors


@pytest.mark.parametrize("cli", LOGIN_FILES, indirect=True)
def test_a_login_that_the_other_user_cannot_read_is_none(
    cli: Cli, start_supervisor: Callable[..., InferenceEndpoint], tmp_path: Path
):
    """Said before any lease, with the place that is closed."""
    path = tmp_path / LOGIN_FILES[cli.provider]
    path.parent.mkdir()
    path.touch(mode=0o600)
    with start_supervisor(cli, tmp_path, arguments=arguments((f"uid:{NOBODY}",))) as endpoint:
        with pytest.raises(ProviderError, match=f"as user {NOBODY}: .* is closed to it") as refused:
            lease_of(endpoint, cli)
        assert refused.value.code == "not_logged_in"
        assert endpoint.endpoints() == []
