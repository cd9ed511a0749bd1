"""Real leases at their bounds: what is refused, says so and leaves nothing; what is there already stays."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from shared.contracts import ExecutionContext, InferenceRequest, LeaseOptions
from shared.errors import EndpointError, RequestError, WorkerError
from shared.provider import Provider
from supervisor import EndpointDescriptor, InferenceEndpoint, SupervisorClient, stopping
from supervisor.caller import ADMIN, Caller, CallerLimits
from supervisor.commandlines import CommandLine, CommandLines
from supervisor.database import DATABASE_NAME, Database
from supervisor.errors import ReleasesFailed
from supervisor.identities import Identities
from supervisor.journal import Journal
from supervisor.lease import State
from supervisor.selection import Selection
from supervisor.service import Ensured, Service
from supervisor.settings import Settings
from supervisor.statefolder import LEASES_NAME, StateFolder
from tests.process.serving import WAIT_S, until

pytestmark = pytest.mark.process
ECHO = {"model_preference": {"provider": "echo", "id": "any"}}
MAX_STARTS = 2
CALLERS = 30
EVERYTHING = Selection(caller=ADMIN)


@contextlib.contextmanager
def held(pid: int) -> Iterator[None]:
    """The process does nothing meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("isolation", [(), ("--no-namespaces",)], ids=["pid_namespace", "process_group"])
def test_a_crowd_of_starts(tmp_path: Path, isolation: tuple[str, ...]):
    """Thirty at once over two starts: two leases, 28 typed refusals that say when to come again, nothing else."""
    arguments = ("--set", f"max_starts={MAX_STARTS}", *isolation)
    with InferenceEndpoint(tmp_path, serve_arguments=arguments) as endpoint:
        first, _ = endpoint.ensure_endpoint(ECHO, lease={"standby": 0})
        zygote = psutil.Process(endpoint.endpoint(first).processes[0].pid).parent()
        assert zygote is not None
        (worker,) = psutil.Process(endpoint.pid).children()
        endpoint.release_endpoint(first)
        before = worker.num_fds()

        def ensure(_: int) -> EndpointDescriptor | EndpointError:
            with SupervisorClient.from_home(tmp_path) as client:
                try:
                    return client.ensure_endpoint(ECHO, lease={"standby": 0})[0]
                except EndpointError as error:
                    return error

        with ThreadPoolExecutor(CALLERS) as threads:
            with held(zygote.pid):
                running = [threads.submit(ensure, number) for number in range(CALLERS)]
                until(lambda: sum(each.done() for each in running) == CALLERS - MAX_STARTS)
                assert [view.state for view in endpoint.endpoints() if view.state != "closed"] == [
                    "starting"
                ] * 2
            outcomes = [each.result() for each in running]
        made = [each for each in outcomes if isinstance(each, EndpointDescriptor)]
        refused = [each for each in outcomes if isinstance(each, WorkerError)]
        assert (len(made), len(refused)) == (MAX_STARTS, CALLERS - MAX_STARTS)
        assert {(each.code, each.status) for each in refused} == {("at_capacity", 429)}
        assert all("2 leases are starting" in each.message for each in refused)
        assert all(1 <= (each.retry_after_s or 0) <= 2 for each in refused)
        assert len(endpoint.endpoints(ended=True)) == 1 + MAX_STARTS  # nothing is written of what was refused
        assert len(list((tmp_path / LEASES_NAME).iterdir())) == MAX_STARTS
        assert len(zygote.children()) == MAX_STARTS
        for descriptor in made:
            assert endpoint.release_endpoint(descriptor).proof is not None
        until(lambda: worker.num_fds() <= before)
        assert not list((tmp_path / LEASES_NAME).iterdir())
        again, _ = endpoint.ensure_endpoint(ECHO, lease={"standby": 0})
        endpoint.release_endpoint(again)


class SlowlyFound(CommandLines):
    """Finds a command line only when it is told to."""

    def __init__(self, prepared: Path) -> None:
        super().__init__({}, Path.home(), prepared)
        self.is_asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def find(self, chosen: Provider) -> CommandLine:
        self.is_asked.set()
        await self.may_answer.wait()
        return await super().find(chosen)


class Supervisor:
    """A service of our own, without HTTP before it; how much memory there is, is said here."""

    def __init__(self, home: Path) -> None:
        folder = StateFolder(home)
        self.available_bytes = 1000
        self.command_lines = SlowlyFound(home / "prepared")
        self.database = Database(home / DATABASE_NAME)
        self.identities = Identities(self.database, folder.admin_token(), folder.write_admin_token)
        settings = Settings(home=home, min_available_bytes=100, monitor_period_s=0.05)
        self.service = Service(
            settings,
            self.command_lines,
            self.identities,
            Journal(self.database),
            lambda: 0.4,
            lambda: self.available_bytes,
        )

    def caller(self, name: str, max_leases: int | None = None) -> Caller:
        """A new identity."""
        caller = self.identities.caller(
            self.identities.add(name, CallerLimits(max_leases=max_leases), None).token
        )
        assert caller is not None
        return caller

    async def ensure(self, caller: Caller = ADMIN, group: str | None = None) -> Ensured:
        """One echo lease."""
        return await self.service.ensure(
            InferenceRequest(model_preference=ECHO["model_preference"]),
            self.service.consumer_manifest(),
            ExecutionContext(),
            LeaseOptions(standby=0, group=group),
            caller,
        )

    def states(self) -> list[str]:
        """Of all leases there ever were."""
        return [view.state for view in self.service.catalogue.show_all(EVERYTHING, ended=True)]


@contextlib.asynccontextmanager
async def supervisor(home: Path) -> AsyncIterator[Supervisor]:
    """Started, and ended with all its leases."""
    made = Supervisor(home)
    await made.service.start()
    try:
        yield made
    finally:
        await made.service.end()


async def is_answered(ensured: Ensured) -> bool:
    """Whether the endpoint serves."""
    async with httpx.AsyncClient(trust_env=False) as client:
        return (
            await client.get(str(ensured.endpoint.health_ref), headers=ensured.endpoint.headers)
        ).is_success


def test_memory_pressure_refuses_the_new_and_keeps_the_old(tmp_path: Path):
    """503 with its own code and a time to come again; the lease that is there serves on; then all is as before."""

    async def scenario() -> None:
        async with supervisor(tmp_path) as own:
            old = await own.ensure()
            own.available_bytes = 99
            with pytest.raises(
                WorkerError, match="99 bytes of memory are available, 100 are kept free"
            ) as refused:
                await own.ensure()
            assert (refused.value.code, refused.value.status) == ("memory_pressure", 503)
            assert refused.value.headers()["retry-after"] == "21"  # 15 s and 0.4 of it
            await asyncio.sleep(0.2)  # four looks of the monitor, none of which may end anything
            assert own.states() == [State.READY]
            assert await is_answered(old)
            own.available_bytes = 100
            await own.ensure()
            assert own.states() == [State.READY, State.READY]

    asyncio.run(scenario())


@pytest.mark.parametrize("release", [True, False])
def test_a_token_that_is_revoked_while_its_lease_is_decided(tmp_path: Path, release: bool):
    """No lease comes of it, although the request was let in; one that had begun before is ended or left, as wanted."""

    async def scenario() -> None:
        async with supervisor(tmp_path) as own:
            alice = own.caller("alice")
            before = await own.ensure(alice)
            own.command_lines.is_asked.clear()
            own.command_lines.may_answer.clear()
            coming = asyncio.create_task(own.ensure(alice))
            await own.command_lines.is_asked.wait()
            selection = Selection(caller=ADMIN, owner="alice") if release else None
            ended = await own.service.revoke("alice", selection)
            own.command_lines.may_answer.set()
            with pytest.raises(RequestError) as refused:
                await coming
            assert refused.value.code == "unauthorized"
            assert [each.lease_ref for each in ended] == ([before.endpoint.lease_ref] if release else [])
            assert own.states() == [State.CLOSED if release else State.READY]
            assert len(list((tmp_path / LEASES_NAME).iterdir())) == (0 if release else 1)

    asyncio.run(scenario())


def test_a_supervisor_that_ends_while_a_lease_is_decided(tmp_path: Path):
    """No lease comes of it, and it is said why; from then on no lease can be made."""

    async def scenario() -> None:
        async with supervisor(tmp_path) as own:
            own.command_lines.may_answer.clear()
            coming = asyncio.create_task(own.ensure())
            await own.command_lines.is_asked.wait()
            await own.service.end()
            own.command_lines.may_answer.set()
            with pytest.raises(WorkerError) as refused:
                await coming
            assert (refused.value.code, refused.value.status) == ("shutting_down", 503)
            assert "shutting_down" in {reason.code for reason in own.service.health().reasons}
            assert not list((tmp_path / LEASES_NAME).iterdir())

    asyncio.run(scenario())


def test_one_failure_does_not_stop_the_release_of_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The error tells how each ended; what failed can be released again, by itself."""

    async def scenario() -> None:
        async with supervisor(tmp_path) as own:
            made = [await own.ensure(group="g") for _ in range(3)]
            bad = made[1].endpoint.lease_ref
            stop_family = stopping.stop_family

            async def stop_all_but_one(record, *rest):
                if record.lease_ref == bad:
                    raise RuntimeError("no way")
                return await stop_family(record, *rest)

            monkeypatch.setattr(stopping, "stop_family", stop_all_but_one)
            with pytest.raises(ReleasesFailed, match="cannot release 1 of 3 leases") as failed:
                await own.service.release_all(Selection(caller=ADMIN, group="g"))
            outcomes = {each.lease_ref: each for each in failed.value.endpoints}
            assert {ref: each.released for ref, each in outcomes.items()} == {
                each.endpoint.lease_ref: each.endpoint.lease_ref != bad for each in made
            }
            assert outcomes[bad].error
            assert all(
                each.proof and not each.proof.survivors for ref, each in outcomes.items() if ref != bad
            )
            assert sorted(own.states()) == [State.CLOSED, State.CLOSED, State.STOPPING]

    asyncio.run(scenario())


def test_a_group_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No stop waits for another one: each of these goes on only when all have begun."""

    async def scenario() -> None:
        async with supervisor(tmp_path) as own:
            for _ in range(3):
                await own.ensure(group="g")
            stop_family, all_begun = stopping.stop_family, asyncio.Event()
            begun: list[str] = []

            async def stop_together(record, *rest):
                begun.append(record.lease_ref)
                if len(begun) == 3:
                    all_begun.set()
                await all_begun.wait()
                return await stop_family(record, *rest)

            monkeypatch.setattr(stopping, "stop_family", stop_together)
            try:
                async with asyncio.timeout(WAIT_S):
                    ended = await own.service.release_all(Selection(caller=ADMIN, group="g"))
            finally:
                all_begun.set()
            assert {each.lease_ref for each in ended} == set(begun)
            assert all(each.released for each in ended)

    asyncio.run(scenario())


def test_an_identitys_own_bound_is_its_own(tmp_path: Path):
    """Others lease on; a lease of its own that ends makes room."""

    async def scenario() -> None:
        async with supervisor(tmp_path) as own:
            alice = own.caller("alice", max_leases=1)
            mine = await own.ensure(alice)
            with pytest.raises(WorkerError, match="this token's 1 leases are open") as refused:
                await own.ensure(alice)
            assert refused.value.headers()["retry-after"] == "7"  # 5 s and 0.4 of it
            await own.ensure(own.caller("bob", max_leases=1))
            await own.ensure()
            await own.service.release(mine.endpoint.lease_ref, alice)
            await own.ensure(alice)
            assert own.states().count(State.READY) == 3

    asyncio.run(scenario())


def test_a_failing_journal_does_not_tell_anothers_lease_from_none(tmp_path: Path):
    """Neither can be looked up then; whose it is, and the admin, see it all the same."""

    async def scenario() -> None:
        async with supervisor(tmp_path) as own:
            alice, bob = own.caller("alice"), own.caller("bob")
            lease_ref = (await own.ensure(alice)).endpoint.lease_ref
            own.database.close()
            for ref in (lease_ref, "lease_unknown"):
                with pytest.raises(WorkerError) as failed:
                    own.service.catalogue.show(ref, bob)
                assert failed.value.code == "journal_unavailable"
            assert (
                own.service.catalogue.show(lease_ref, alice).state
                == own.service.catalogue.show(lease_ref, ADMIN).state
                == "ready"
            )
            proof = (await own.service.release(lease_ref, alice)).proof
            assert proof is not None
            assert not proof.survivors

    asyncio.run(scenario())
