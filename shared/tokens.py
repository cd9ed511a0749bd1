"""Lease bearer tokens: made once, shown once, afterwards known only by their SHA-256.

A token for an ensure call with an idempotency key is derived (HMAC-SHA256 under an in-memory secret of that
key), so that a repeated call can be answered without the token having been kept anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

TOKEN_BYTES = 32
"""256 bits of entropy."""


def new_secret() -> bytes:
    """A fresh secret for :func:`derive`."""
    return secrets.token_bytes(TOKEN_BYTES)


def mint() -> str:
    """A fresh random token, 43 characters of url-safe base64."""
    return _text(secrets.token_bytes(TOKEN_BYTES))


def derive(secret: bytes, *parts: str) -> str:
    """The same token for the same secret and parts, and no other way to come by it."""
    message = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
    return _text(hmac.digest(secret, message, "sha256"))


def fingerprint(token: str) -> str:
    """The SHA-256 of a token, as hex: the only form that is stored or sent."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def matches(presented: str, expected_fingerprint: str) -> bool:
    """Whether the presented token is the one with that fingerprint; takes the same time either way."""
    return hmac.compare_digest(fingerprint(presented), expected_fingerprint)


def bearer_token(header: str | None) -> str | None:
    """The token of an ``Authorization: Bearer`` header (any case of the scheme, RFC 9110 11.1), else None."""
    scheme, _, token = (header or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
