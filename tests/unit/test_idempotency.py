"""Idempotency keys: what one stands for, and that nobody can take another's away."""

from __future__ import annotations

import asyncio

import pytest

from shared.contracts import ConsumerManifest, ExecutionContext, InferenceRequest, LeaseOptions
from shared.errors import RequestError
from supervisor.decision import Decision, make_decision
from supervisor.idempotency import KEYS_KEPT, Entry, IdempotencyKeys
from supervisor.publication import consumer_manifest

MODES = ("jido_managed",)


def decision(model: str = "any") -> Decision:
    """One to lease echo."""
    request = InferenceRequest(model_preference={"provider": "echo", "id": model})
    manifest: ConsumerManifest = consumer_manifest(MODES)
    return make_decision(request, manifest, ExecutionContext(), LeaseOptions(), MODES)


def entries(*calls: tuple[str, str]) -> list[Entry]:
    """What those keys stand for, by owner and key, asked for one after the other."""

    async def ask() -> list[Entry]:
        keys, wanted, found = IdempotencyKeys(), decision(), []
        for owner, key in calls:
            async with keys.exclusive(owner, key, wanted) as entry:
                found.append(entry)
        return found

    return asyncio.run(ask())


def test_a_repeated_key_is_the_same_one_with_the_same_token():
    """Until it stands for another lease."""
    first, again = entries(("one", "key"), ("one", "key"))
    assert first is again
    before = first.next_token()
    assert first.token() == before
    assert first.next_token() != before


def test_a_key_with_another_request_is_refused():
    """Rather than answered with what was not asked for."""

    async def ask() -> None:
        keys = IdempotencyKeys()
        async with keys.exclusive("one", "key", decision()):
            pass
        async with keys.exclusive("one", "key", decision("other")):
            pass

    with pytest.raises(RequestError) as refused:
        asyncio.run(ask())
    assert refused.value.code == "idempotency_key_reused"


def test_nobody_pushes_anothers_keys_out():
    """However many keys one has, which cost nothing even when every lease is refused. One's own go, see below."""
    others = [("other", str(number)) for number in range(KEYS_KEPT + 1)]
    first, *_, again = entries(("one", "key"), *others, ("one", "key"))
    assert first is again


def test_a_forgotten_key_gives_another_token():
    """The lease that it stood for may still be there."""
    first, *_, anew = entries(*[("one", str(number)) for number in range(KEYS_KEPT + 1)], ("one", "0"))
    assert first is not anew
    assert first.next_token() != anew.next_token()
