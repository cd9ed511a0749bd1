"""The clients of a run: who leases, streams and releases, and remembers in the ledger's stories what was asked."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec

from shared.errors import EndpointError
from supervisor import EndpointDescriptor
from tests.chaos.ledger import Story
from tests.chaos.streams import Stream
from tests.process.serving import ECHO, Serving, until

OPEN_LEASES = 4
STREAMING_SHARE = 0.7
"""How many of the new leases get a stream at once, about."""
HIDING_SHARE = 0.3
"""How many streams leave a grandchild that nobody can find without namespaces."""
MIN_WORDS, MAX_WORDS, PAUSE_S = 20, 120, 0.03


class Lease(msgspec.Struct, kw_only=True, eq=False):
    """An open lease, and the last stream on it."""

    story: Story
    descriptor: EndpointDescriptor
    stream: Stream | None = None

    @property
    def is_streaming(self) -> bool:
        """Whether a stream runs on it."""
        return self.stream is not None and self.stream.is_alive()


class Call(threading.Thread):
    """A call to the supervisor that is under way while something is killed; a typed error is an outcome."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self.start()

    def run(self) -> None:
        """Call."""
        try:
            self._call()
        except EndpointError:
            return


class Clients:
    """Everybody who asks something of one state folder's supervisor."""

    def __init__(self, held: Serving, rng: random.Random) -> None:
        self._held = held
        self._rng = rng
        self._made = 0
        self.stories: list[Story] = []
        """Of every lease that was asked for, in order."""
        self.leases: list[Lease] = []
        """Those that were handed out and are not known to have ended."""
        self.streams: list[Stream] = []
        """Those whose outcome nobody has looked at."""
        self.ports: set[int] = set()
        """Where leases were served."""

    @property
    def unsettled(self) -> list[Story]:
        """Of the leases that are not known to have ended."""
        return [story for story in self.stories if not story.is_over]

    def new_story(self) -> Story:
        """Of a lease that is about to be asked for."""
        self._made += 1
        story = Story(name=f"chaos-{self._made}")
        self.stories.append(story)
        return story

    def ensure(self, story: Story) -> Lease | None:
        """Lease; the story tells of a refusal."""
        try:
            with self._held.client() as client:
                options = {"standby": 1, "group": story.name}
                descriptor, _ = client.ensure_endpoint(ECHO, lease=options)
        except EndpointError as error:
            story.refusal = f"{error.code}: {error.message}"
            return None
        story.lease_ref = descriptor.lease_ref
        self.ports.add(urlsplit(descriptor.base_url).port or 0)
        lease = Lease(story=story, descriptor=descriptor)
        self.leases.append(lease)
        return lease

    def fill_up(self) -> None:
        """Have as many leases as usual."""
        for _ in range(OPEN_LEASES - len(self.leases)):
            lease = self.ensure(self.new_story())
            if lease is not None and self._rng.random() < STREAMING_SHARE:
                self.stream(lease)

    def choose(self, *, is_streaming: bool) -> Lease | None:
        """An open lease that streams now, or one that does not; None when there is none to be had."""
        fitting = [lease for lease in self.leases if lease.is_streaming is is_streaming]
        lease = self._rng.choice(fitting) if fitting else self.ensure(self.new_story())
        if lease is not None and is_streaming:
            stream = lease.stream if lease.stream and lease.is_streaming else self.stream(lease)
            until(lambda: stream.has_begun)
        return lease

    def stream(self, lease: Lease) -> Stream:
        """Begin a turn on it that ignores signals, and leaves one grandchild behind, or two."""
        hide = "[[hide]] " if self._rng.random() < HIDING_SHARE else ""
        markers = f"[[ignore-term]] [[daemonise]] {hide}[[pause:{PAUSE_S}]]"
        words = self._rng.randint(MIN_WORDS, MAX_WORDS)
        lease.stream = Stream(lease.story, lease.descriptor, markers, words)
        self.streams.append(lease.stream)
        return lease.stream

    def mark_released(self, lease: Lease) -> None:
        """Its end will be asked for."""
        lease.story.is_released = True
        if lease.stream is not None:
            lease.stream.is_hit = True

    def forget(self, story: Story) -> None:
        """It has ended."""
        self.leases = [lease for lease in self.leases if lease.story is not story]
