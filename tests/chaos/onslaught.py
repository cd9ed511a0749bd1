"""Random kills against one state folder's supervisor, and after each the question whether all that is told is true.

:class:`Onslaught` is the orchestrator: it brings a lease into the phase that is drawn, kills what is drawn, lets the
supervisor recover, and asks the judge. Now and then everything is released, and what is left is counted.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from shared import processes
from shared.processes import ProcessId
from tests.chaos import victims
from tests.chaos.clients import Call, Clients, Lease
from tests.chaos.judge import Judge
from tests.chaos.ledger import (
    COMMAND_LINES,
    OF_A_FAMILY,
    WHOLE_FAMILY,
    WHOLE_SUPERVISOR,
    Hit,
    Phase,
    Story,
    Victim,
)
from tests.chaos.toll import Toll
from tests.process.serving import WAIT_S, Serving, ask

SETTLE_EVERY = 25
"""After so many kills everything is released and counted."""
MAX_START_S, MAX_RELEASE_S, MAX_DRAIN_S, MAX_ALONE_S, MAX_TAKE_OVER_S = 0.08, 0.03, 0.5, 0.5, 1.0
"""Longest times from the beginning of a phase to the kill."""
ALONE_SHARE = 0.6
"""How often something else is killed too before a killed supervisor is started again."""
SECOND_TRY_SHARE = 0.2
"""How often the next supervisor is killed too, while it takes over."""
FIND_S = 5.0
"""For what is to be killed to be there."""
POLL_S = 0.002


class Onslaught:
    """One run. ``has_keeper`` and ``has_namespaces`` say what its families look like."""

    def __init__(self, held: Serving, rng: random.Random, *, has_keeper: bool, has_namespaces: bool) -> None:
        self.toll = Toll()
        self._held = held
        self._rng = rng
        self._has_keeper = has_keeper
        self._clients = Clients(held, rng)
        self._warm_up()
        self._judge = Judge(held, self._clients, self.toll, has_namespaces=has_namespaces)
        self._victims = [victim for victim in Victim if has_keeper or victim is not Victim.KEEPER]
        self._choices = [
            (victim, phase)
            for victim in self._victims
            for phase in Phase
            if phase is not Phase.ALONE and (victim, phase) != (Victim.COMMAND_LINE, Phase.IDLE)
        ]

    def run(self, kills: int, until_s: float) -> Toll:
        """That many kills, or as many as there is time for; then the end, and what the next supervisor tells."""
        settled = 0
        while self.toll.kills.total() < kills and time.monotonic() < until_s:
            self._clients.fill_up()
            self._strike(*self._rng.choice(self._choices))
            self._judge.hear_all()
            if self.toll.kills.total() >= settled + SETTLE_EVERY:
                settled = self.toll.kills.total()
                self._settle()
        self._settle()
        self._end()
        return self.toll

    def _warm_up(self) -> None:
        """Once through everything, so that what is made once is there before it is counted."""
        lease = self._clients.ensure(self._clients.new_story())
        assert lease is not None
        assert ask(lease.descriptor, "hello").status_code == 200
        self._release_all()

    def _strike(self, victim: Victim, phase: Phase) -> None:
        """Bring a lease into that phase, and kill that."""
        match phase:
            case Phase.STARTING:
                is_killed = self._strike_starting(victim)
            case Phase.RELEASING:
                is_killed = self._strike_releasing(victim)
            case _:
                lease = self._clients.choose(is_streaming=phase is Phase.STREAMING)
                is_killed = lease is not None and self._kill(
                    self._await(lambda: self._find(victim, lease)), victim, phase, lease.story
                )
        if is_killed and victim is Victim.SUPERVISOR:
            self._start_again()

    def _strike_starting(self, victim: Victim) -> bool:
        known = {family.rows[0].id for family in self._families()}
        story = self._clients.new_story()
        call = Call(lambda: self._clients.ensure(story))
        time.sleep(self._rng.uniform(0, MAX_START_S))

        def find() -> ProcessId | None:
            if victim not in OF_A_FAMILY:
                return self._find(victim)
            new = [family for family in self._families() if family.rows[0].id not in known]
            return new[0].find(victim, has_keeper=self._has_keeper) if new else None

        process = self._await(find)
        phase = Phase.STARTING if call.is_alive() else Phase.IDLE
        is_killed = self._kill(process, victim, phase, story)
        call.join(WAIT_S)
        return is_killed

    def _strike_releasing(self, victim: Victim) -> bool:
        is_streaming = victim is Victim.COMMAND_LINE or self._rng.random() < 0.5
        lease = self._clients.choose(is_streaming=is_streaming)
        if lease is None:
            return False
        process = self._await(lambda: self._find(victim, lease))
        self._clients.mark_released(lease)
        with self._held.client() as client:
            call = Call(lambda: client.release_endpoint(lease.descriptor))
            time.sleep(self._rng.uniform(0, MAX_DRAIN_S if is_streaming else MAX_RELEASE_S))
            phase = Phase.RELEASING if call.is_alive() else Phase.IDLE
            is_killed = self._kill(process, victim, phase, lease.story)
            call.join(WAIT_S)
        return is_killed

    def _kill(self, process: ProcessId | None, victim: Victim, phase: Phase, story: Story) -> bool:
        """Kill it, and write down whom that concerns."""
        if process is None or not victims.kill(process):
            return False
        self.toll.kills[victim, phase] += 1
        at = time.monotonic()
        concerned = [story] if victim in OF_A_FAMILY else self._clients.unsettled
        for each in concerned:
            its_own = phase if each is story or phase is Phase.ALONE else Phase.IDLE
            each.hits.append(Hit(victim=victim, phase=its_own, at=at))
        for stream in self._clients.streams:
            if stream.story in concerned:
                stream.is_hit |= victim in WHOLE_FAMILY or victim is Victim.WORKER
                stream.is_crashed |= victim in COMMAND_LINES
        return True

    def _start_again(self) -> None:
        """Bring the supervisor back, perhaps after something that it does not see, perhaps at the second try."""
        self._held.wait()
        if self._rng.random() < ALONE_SHARE:
            time.sleep(self._rng.uniform(0, MAX_ALONE_S))
            if choices := self._unwatched():
                lease, victim = self._rng.choice(choices)
                self._kill(self._find(victim, lease), victim, Phase.ALONE, lease.story)
        if self._rng.random() < SECOND_TRY_SHARE and self._clients.leases:
            self._held.start(wait=False)
            time.sleep(self._rng.uniform(0, MAX_TAKE_OVER_S))
            story = self._clients.leases[0].story
            self._kill(self._find(Victim.SUPERVISOR), Victim.SUPERVISOR, Phase.ALONE, story)
            self._held.wait()
        self._held.start()

    def _unwatched(self) -> list[tuple[Lease, Victim]]:
        """Everything that can be killed while there is no supervisor."""
        return [
            (lease, victim)
            for lease in self._clients.leases
            for victim in self._victims
            if victim not in WHOLE_SUPERVISOR and self._find(victim, lease) is not None
        ]

    def _settle(self) -> None:
        """Everything ends as it should: streams, leases, folders, sockets, descriptors."""
        self._judge.hear_streams()
        for lease in self._clients.leases:
            answer = ask(lease.descriptor, "still here")
            if answer.status_code != 200:
                self.toll.wrong_ends.append(f"{lease.story.name} is open, and answers {answer.text}")
        self._release_all()
        self._judge.hear_all()
        self._judge.look_for_leaks()

    def _release_all(self) -> None:
        with self._held.client() as client:
            for lease in list(self._clients.leases):
                self._clients.mark_released(lease)
                client.release_endpoint(lease.descriptor)

    def _end(self) -> None:
        """SIGTERM with leases open; then another supervisor tells the story of every lease."""
        self._clients.fill_up()
        for lease in self._clients.leases:
            lease.story.is_shut_down = True
        for stream in self._clients.streams:
            stream.is_hit = True
        if (code := self._held.end()) != 0:
            self.toll.wrong_ends.append(f"the supervisor ended with {code}")
        self._judge.hear_streams()
        self._judge.look_for_survivors(set())
        self._judge.look_for_leaks(is_served=False)
        self._held.start()
        self._judge.hear_all(again=True)
        self._held.end()
        self._judge.look_for_survivors(set())
        self._judge.look_for_leaks(is_served=False)

    def _find(self, victim: Victim, lease: Lease | None = None) -> ProcessId | None:
        match victim:
            case Victim.SUPERVISOR:
                return processes.identify(self._held.pid)
            case Victim.SUPERVISOR_WORKER:
                return next(iter(self._held.workers()), None)
            case Victim.ZYGOTE:
                return self._held.find_zygote()
        if lease is None:
            return None
        is_streaming = lease.is_streaming
        its_own = [each for each in self._families() if each.lease_ref == lease.descriptor.lease_ref]
        return (
            its_own[0].find(victim, has_keeper=self._has_keeper, is_streaming=is_streaming)
            if its_own
            else None
        )

    def _families(self) -> list[victims.Family]:
        zygote = self._held.find_zygote()
        return [] if zygote is None else victims.families(zygote)

    def _await(self, find: Callable[[], ProcessId | None]) -> ProcessId | None:
        """What is to be killed, once it is there."""
        deadline = time.monotonic() + FIND_S
        while (found := find()) is None and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return found
