"""Tokens: long, never stored, compared in constant time, and derived only with the secret."""

from __future__ import annotations

import base64

import pytest

from shared import tokens


def test_a_token_has_256_bits_and_is_new_each_time():
    """43 url-safe characters."""
    minted = {tokens.mint() for _ in range(100)}
    assert len(minted) == 100
    assert all(len(base64.urlsafe_b64decode(token + "=")) == 32 for token in minted)


def test_only_the_token_matches_its_fingerprint():
    """Not a prefix, not another one, not nothing."""
    token = tokens.mint()
    kept = tokens.fingerprint(token)
    assert token not in kept
    assert tokens.matches(token, kept)
    assert not any(
        tokens.matches(other, kept) for other in ("", token[:-1], token + "x", tokens.mint(), kept)
    )


def test_a_derived_token_needs_the_secret_and_every_part():
    """Parts cannot be shifted into one another."""
    secret = tokens.new_secret()
    token = tokens.derive(secret, "key", "hash", "1")
    assert token == tokens.derive(secret, "key", "hash", "1")
    others = [("keyhash", "1"), ("key", "hash1", ""), ("key", "hash", "2")]
    assert token not in [tokens.derive(secret, *other) for other in others]
    assert token != tokens.derive(tokens.new_secret(), "key", "hash", "1")


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer abc", "abc"),
        ("BEARER  abc ", "abc"),
        ("Basic abc", None),
        ("Bearer", None),
        ("Bearer ", None),
        ("abc", None),
        ("", None),
        (None, None),
    ],
)
def test_bearer_headers(header: str | None, token: str | None):
    """The scheme in any case, and nothing else."""
    assert tokens.bearer_token(header) == token
