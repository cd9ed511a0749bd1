"""The zygote itself: whom it follows, and that it tells of an end until that has been confirmed."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from shared import launch, processes, provider, scoreboard
from shared.launch import Exited, Hello, LaunchSpec, Ready
from shared.logs import LogSettings
from shared.unixsocket import connect_to
from supervisor import EndpointDescriptor
from supervisor.launcher import Launcher, Met
from supervisor.zygotes import SOCKET_NAME, Zygotes
from tests.process.serving import ECHO, Serving, ask, serving, until
from worker.rehearsal import SPEC

pytestmark = pytest.mark.process
TIMEOUT_S = 30.0
LEASE_REF = "lease_of_nobody"


@pytest.fixture
def home() -> Iterator[Path]:
    """A state folder with a short name, as the addresses of sockets must be for who does not know our way round it."""
    folder = Path(tempfile.mkdtemp(prefix="zygote-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def unwatched(isolation: tuple[str, ...], home: Path) -> Iterator[tuple[Serving, EndpointDescriptor]]:
    """A lease whose supervisor has just been killed; the zygote waits for another one."""
    with serving(home, *isolation) as held:
        with held.client() as client:
            descriptor, _ = client.ensure_endpoint(ECHO, lease={"standby": 0})
        inner = held.inner
        held.kill()
        until(lambda: not processes.is_alive(inner))
        yield held, descriptor


def greet(path: Path) -> bytes:
    """What a zygote answers to a supervisor; b"" when it hangs up."""
    with connect_to(path, TIMEOUT_S) as connection:
        return greeted(connection)


def greeted(connection: socket.socket) -> bytes:
    """The same over a connection that is there."""
    connection.settimeout(TIMEOUT_S)
    try:
        connection.send(launch.encode(Hello(protocol=launch.PROTOCOL, adopt_grace_s=TIMEOUT_S)))
        return connection.recv(launch.MAX_MESSAGE_BYTES)
    except ConnectionError:
        return b""


def test_a_command_line_cannot_give_the_zygote_orders(unwatched: tuple[Serving, EndpointDescriptor]):
    """Of the same user, and with nobody else connected. The control: we, who are not below it, are followed."""
    held, descriptor = unwatched
    path = held.home / SOCKET_NAME
    answer = ask(descriptor, f"[[supervise:{path}]] x").json()["choices"][0]["message"]["content"]
    assert answer in {"ConnectionResetError", "BrokenPipeError"}
    assert isinstance(launch.decode_from_zygote(greet(path)), Ready)
    held.start()


def test_who_has_gone_gives_the_zygote_no_orders(unwatched: tuple[Serving, EndpointDescriptor]):
    """A command line could have a child connect that ends before the zygote looks where it stands."""
    held, _ = unwatched
    path = held.home / SOCKET_NAME
    connect = "import socket, sys; socket.socket(fileno=int(sys.argv[1])).connect(sys.argv[2])"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        fd = connection.fileno()
        os.kill(held.zygote.pid, signal.SIGSTOP)
        try:
            subprocess.run((sys.executable, "-c", connect, str(fd), str(path)), pass_fds=(fd,), check=True)
        finally:
            os.kill(held.zygote.pid, signal.SIGCONT)
        assert not greeted(connection)
    assert isinstance(launch.decode_from_zygote(greet(path)), Ready)
    held.start()


def test_a_second_supervisor_is_not_followed_while_there_is_one(isolation: tuple[str, ...], home: Path):
    """Whoever it is; afterwards the first one still is."""
    with serving(home, *isolation) as held, held.client() as client:
        assert not greet(home / SOCKET_NAME)
        descriptor, _ = client.ensure_endpoint(ECHO, lease={"standby": 0})
        assert ask(descriptor, "hello").status_code == 200


def echo_spec(home: Path) -> LaunchSpec:
    """A family that serves nobody."""
    folder = home / "leases" / LEASE_REF
    for name in ("workspace", "home", "tmp"):
        (folder / name).mkdir(parents=True)
    return msgspec.structs.replace(
        SPEC,
        lease_ref=LEASE_REF,
        lease_dir=str(folder),
        executable=provider.load("echo").executable.pinned,
        namespaces=True,
    )


async def launched(launcher: Launcher, spec: LaunchSpec) -> int:
    """Launch it; returns its leader."""
    variables = os.memfd_create("variables")
    os.write(variables, b"{}")
    board = scoreboard.create()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        started = await launcher.launch(spec, (listener.fileno(), variables, board))
    for fd in (variables, board, started.namespace_fd):
        if fd is not None:
            os.close(fd)
    return started.launched.pid


def test_an_end_is_told_until_it_is_confirmed(home: Path):
    """To one supervisor after the other, with how it was; and then never again."""
    heard: list[Exited] = []

    async def meet(zygotes: Zygotes, launcher: Launcher) -> Met:
        connection = await zygotes.find()
        assert connection is not None
        return await launcher.meet(
            connection, adopt_grace_s=TIMEOUT_S, timeout_s=TIMEOUT_S, log=LogSettings()
        )

    async def scenario() -> None:
        zygotes, launcher = Zygotes(home), Launcher(heard.append, lambda: None)
        await launcher.meet(zygotes.start(), adopt_grace_s=TIMEOUT_S, timeout_s=TIMEOUT_S, log=LogSettings())
        pid = await launched(launcher, echo_spec(home))
        launcher.leave()
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(TIMEOUT_S):
            while processes.read(pid):
                await asyncio.sleep(0.01)
        for _ in range(2):
            met = await meet(zygotes, launcher)
            found = met.families[LEASE_REF]
            assert found.exited is not None
            assert (found.exited.status, found.exited.stopping) == ("signal SIGKILL", False)
            found.close()
            launcher.leave()
        await meet(zygotes, launcher)
        launcher.confirm(LEASE_REF)
        launcher.leave()
        assert (await meet(zygotes, launcher)).families == {}
        launcher.end()
        await zygotes.end()

    asyncio.run(scenario())
    assert heard == []
    assert not (home / SOCKET_NAME).exists()
