"""Comparing what is told of leases with what was done to them, and what is left with what may be left."""

from __future__ import annotations

import os
import time

from shared import processes
from supervisor import SupervisorClient
from supervisor.lease import State
from supervisor.views import LeaseView
from tests.chaos import leaks, victims
from tests.chaos.clients import Clients
from tests.chaos.ledger import Story, objections
from tests.chaos.toll import Toll
from tests.process.serving import WAIT_S, Serving

SETTLED_STATES = frozenset({State.READY, State.CLOSED})
POLL_S = 0.01
SERVE_LOG = "serve.log"


class Judge:
    """Writes into the toll all that should not be."""

    def __init__(self, held: Serving, clients: Clients, toll: Toll, *, has_namespaces: bool) -> None:
        self._held = held
        self._clients = clients
        self._toll = toll
        self._has_namespaces = has_namespaces
        self._strangers = {
            row.id.pid
            for row in processes.table().values()
            if row.ppid == os.getpid() and row.id.pid != held.pid
        }
        self._stock = {name: leaks.steady(pid) for name, pid in self._pids().items()}

    def hear_all(self, *, again: bool = False) -> None:
        """Ask what became of every lease; with ``again``, of those too whose end was told before."""
        with self._held.client() as client:
            told = self._settled_views(client)
            for story in self._clients.stories if again else self._clients.unsettled:
                self._hear(story, told.pop(story.name, None), client)
            if again:
                self._toll.wrong_ends += [f"nobody asked for {view.lease_ref}" for view in told.values()]
            open_leases = {view.lease_ref for view in told.values() if view.state != State.CLOSED}
        self.look_for_survivors(open_leases | {lease.descriptor.lease_ref for lease in self._clients.leases})

    def look_for_survivors(self, open_leases: set[str]) -> None:
        """Processes of no open lease are written down, and ended."""
        for pid in self._left_behind(open_leases):
            if victims.is_hidden(pid) and not self._has_namespaces:
                self._toll.holes += 1
            else:
                self._toll.survivors.append(f"{pid}: {victims.command_line(pid)!r}")
            if process := processes.identify(pid):
                victims.kill(process)

    def look_for_leaks(self, *, is_served: bool = True) -> None:
        """With no lease open."""
        home = self._held.home
        self._toll.leaks += leaks.stays(lambda: leaks.workspaces(home))
        self._toll.leaks += leaks.stays(lambda: leaks.listening(self._clients.ports))
        self._toll.leaks += leaks.unknown_files(home, is_served=is_served, others={SERVE_LOG})
        if is_served:
            self._toll.leaks += leaks.stays(lambda: leaks.more(self._stock, self._pids()))
        self._clients.ports.clear()

    def hear_streams(self) -> None:
        """Wait for the end of all streams, and look at it."""
        for stream in self._clients.streams:
            outcome = stream.outcome(WAIT_S)
            self._toll.streams[outcome] += 1
            if objection := stream.objection(outcome):
                self._toll.wrong_streams.append(objection)
        self._clients.streams.clear()

    def _settled_views(self, client: SupervisorClient) -> dict[str, LeaseView]:
        """Of every lease by its name, once none is on its way to somewhere."""
        mortal = {story.name for story in self._clients.unsettled if story.is_mortal}
        deadline = time.monotonic() + WAIT_S
        while True:
            views = {str(view.group): view for view in client.endpoints(ended=True)}
            waiting = [
                view
                for name, view in views.items()
                if view.state not in SETTLED_STATES or (name in mortal and view.state != State.CLOSED)
            ]
            if not waiting or time.monotonic() > deadline:
                return views
            time.sleep(POLL_S)

    def _hear(self, story: Story, view: LeaseView | None, client: SupervisorClient) -> None:
        if view is None:
            if story.lease_ref is not None or not story.hits:
                self._toll.wrong_ends.append(f"{story.name} is not known ({story.refusal})")
            story.is_over = True
            self._clients.forget(story)
            return
        self._toll.wrong_ends += [f"{story.name}: {each}" for each in objections(story, view)]
        if view.state == State.CLOSED and not story.is_over:
            story.is_over, story.told = True, view
            self._toll.causes[str(view.cause)] += 1
            self._clients.forget(story)
        elif view.state != State.CLOSED and story.lease_ref is None:
            story.is_released = True  # nobody has its token
            client.release_endpoint(view.lease_ref)

    def _left_behind(self, open_leases: set[str]) -> list[int]:
        servers = set()
        zygote = None
        if self._held.process is not None and self._held.process.poll() is None:
            rows = processes.table().values()
            servers = {row.id.pid for row in rows if self._held.pid in {row.id.pid, row.ppid}}
            zygote = self._held.find_zygote()
        return victims.left_behind(os.getpid(), servers | self._strangers, open_leases, zygote)

    def _pids(self) -> dict[str, int]:
        return {
            "supervisor": self._held.pid,
            "supervisor's worker": self._held.inner.pid,
            "zygote": self._held.zygote.pid,
        }
