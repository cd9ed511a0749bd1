"""The real command lines behind the locks that an operator can put on them: each completes, and is really held."""

from __future__ import annotations

import contextlib
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
OURS = str(os.getuid())
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


def identities(endpoint: InferenceEndpoint, descriptor: EndpointDescriptor) -> set[tuple[str, ...]]:
    """Of the lease's processes but its server's two: user, privileges and groups, as the kernel has them."""
    found: set[tuple[str, ...]] = set()
    for process in endpoint.endpoint(descriptor).processes[2:]:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            status = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
            found.add((status["Uid"].split()[1], status["NoNewPrivs"], status["CapEff"], status["Groups"]))
    return found


def test_each_command_line_completes_behind_its_locks(
    cli: Cli, hardened: InferenceEndpoint, server: ModelServer, locks: tuple[str, ...]
):
    """Twice, so that a home that such a process has left is met again; within limits; the kernel says who it is."""
    descriptor = lease_of(hardened, cli, limits=LIMITS)
    assert descriptor.metadata["isolation"].split("+")[1:] == list(locks)
    for _ in range(2):
        assert text_of(ask(descriptor, "Say hello")) == "echo: Say hello"
    if any(lock.startswith("uid") for lock in locks):
        until(lambda: identities(hardened, descriptor) == {(str(NOBODY), "1", "0" * 16, "")})
    elif locks:
        until(lambda: {each[:3] for each in identities(hardened, descriptor)} == {(OURS, "1", "0" * 16)})
    else:
        until(lambda: {each[:2] for each in identities(hardened, descriptor)} == {(OURS, "1")})
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
