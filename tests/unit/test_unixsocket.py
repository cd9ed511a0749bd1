"""Receiving packets: what came, that nothing has come, and that nothing will come any more are three things."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from shared.unixsocket import receive

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Both ends of a connection; the first does not block."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


def test_a_packet_comes_whole_with_its_descriptors(pair: Pair):
    """Which no program that we start inherits."""
    ours, theirs = pair
    socket.send_fds(theirs, [b"first"], [theirs.fileno()])
    theirs.send(b"second")
    packet, (fd,) = receive(ours, max_bytes=64, max_fds=1)
    try:
        assert (packet, os.get_inheritable(fd)) == (b"first", False)
        assert os.path.sameopenfile(fd, theirs.fileno())
    finally:
        os.close(fd)
    assert receive(ours, max_bytes=64, max_fds=1) == (b"second", [])


def test_no_packet_yet_is_not_the_end(pair: Pair):
    """Nor is the end an error, however it came about."""
    ours, theirs = pair
    with pytest.raises(BlockingIOError):
        receive(ours, max_bytes=64, max_fds=1)
    theirs.close()
    assert receive(ours, max_bytes=64, max_fds=1) == (b"", [])


def test_a_connection_that_broke_has_ended(pair: Pair):
    """A peer that leaves what we sent unread resets it."""
    ours, theirs = pair
    ours.send(b"unread")
    theirs.close()
    assert receive(ours, max_bytes=64, max_fds=1) == (b"", [])
