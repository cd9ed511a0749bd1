"""Secrets leave texts, known ones and unknown ones; what people need to read stays."""

from __future__ import annotations

import base64
import json
import random
import time
import urllib.parse

import pytest

from shared import redaction
from shared.redaction import MASK, redacted, secret_values

OF_32_BYTES = [random.Random(seed).randbytes(32) for seed in range(200)]
KNOWN = 'pass"word with spaces/and ünïcode'


@pytest.mark.parametrize(
    "text",
    [
        "Invalid API key sk-ant-api03-abcDEF_123-xyz provided",
        "key sk_live_abcdefgh1234",
        "AIzaSyA-1234567890abcdefghijklmnopqrst",
        "token ghp_abcdefghijklmnop1234 expired",
        "sgamp_user_01ABC_secretsecret",
        "authorization: Bearer abc.def-ghi",
        '{"Authorization": "Bearer abcdefgh"}',
        "Authorization: Basic dXNlcjpwYXNz",
        "curl -H 'x-api-key: hunter2hunter2'",
        '{"api_key":"hunter2hunter2"}',
        '"{\\"api_key\\": \\"hunter2hunter2\\"}"',
        "ANTHROPIC_API_KEY=hunter2hunter2",
        "OPENAI_API_KEY_2 = hunter2hunter2",
        "GET https://host/v1?key=hunter2hunter2&alt=sse",
        '{"token": "hunter2hunter2"}',
        "Password: hunter2hunter2",
        "access_token='hunter2hunter2'",
        "proxy http://user:hunter2hunter2@proxy.example:3128 refused",
        "Cookie: session=hunter2hunter2; other=hunter2hunter2",
        "-----BEGIN RSA PRIVATE KEY-----\nhunter2hunter2\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nhunter2hunter2\n(cut off here)",
        "jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    ],
)
def test_what_looks_like_a_secret_goes(text: str):
    """And nothing of it stays, nor does a second look find more."""
    clean = redacted(text)
    assert MASK in clean
    for word in (
        "hunter2",
        "abcDEF_123",
        "abcdefgh",
        "1234567890abc",
        "secretsecret",
        "dXNlcjpwYXNz",
        "abc.def",
    ):
        assert word not in clean
    assert redacted(clean) == clean


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode, base64.b16encode, bytes.hex])
def test_random_texts_go(encode):
    """Tokens of 256 bits, however they are written; one with slashes does not pass for a path."""
    for raw in OF_32_BYTES:
        secret = encode(raw)
        secret = secret.decode() if isinstance(secret, bytes) else secret
        assert redacted(f"cannot open {secret.rstrip('=')}, sorry") == f"cannot open {MASK}, sorry"


@pytest.mark.parametrize(
    "text",
    [
        "cannot open /usr/lib/node_modules/@anthropic-ai/claude-code/node_modules/some-package2/index.js",
        "cannot read /opt/ContinuousIntegration/buildAgents/agent12/workspace/inference-service/leases",
        "lease lease_01K9ZQ4T6P8X2V3B5N7M1C4D6F: ready -> stopping (released)",
        "req_0123456789abcdef0123456789abcdef POST /v1/endpoints 201 3.2ms",
        "session 0199a2b4-7c1d-7e3f-8a5b-0123456789ab resumed",
        "0199a2b4-7c1d-7e3f-8a5b-0123456789ab-0199a2b4-7c1d-7e3f-8a5b-0123456789ac",
        "SyntaxError: Unexpected token: identifier at position 17",
        '{"usage": {"prompt_tokens": 12345678, "max_tokens": 12345678}}',
        "AbstractSingletonProxyFactoryBeanConfigurationException",
        "------------------------------------------------------------",
        "https://docs.example/errors#authentication",
        "risk-assessment, disk_partition-something and task-list-entry",
    ],
)
def test_what_people_need_stays(text: str):
    """Paths, names, identifiers, numbers."""
    assert redacted(text) == text


@pytest.mark.parametrize(
    "written", [KNOWN, json.dumps(KNOWN), json.dumps(KNOWN, ensure_ascii=False), urllib.parse.quote(KNOWN)]
)
def test_known_secrets_go_in_every_spelling(written: str):
    """Also one that looks like nothing; the control shows that it does."""
    assert redacted(written) == written
    clean = redacted(f"<{written}>", [KNOWN])
    assert MASK in clean
    assert "word" not in clean


def test_a_secret_that_holds_another_goes_whole():
    """The longest first, and an empty or tiny one hides nothing."""
    assert redacted("a-secret-more b", ["a-secret", "a-secret-more", "", "b"]) == f"{MASK} b"


def test_only_variables_with_telling_names_are_secret():
    """A path or a URL in the environment may be shown."""
    variables = {
        "ANTHROPIC_API_KEY": "k",
        "X_AUTH_TOKEN": "t",
        "OPENAI_API_KEY_2": "k2",
        "MYAPIKEY": "k3",
        "PATH": "/bin",
        "GNOME_KEYRING": "g",
        "BASE_URL": "u",
        "EMPTY_KEY": "",
    }
    assert set(secret_values(variables)) == {"k", "t", "k2", "k3"}


@pytest.mark.parametrize(
    "unit",
    ["a", "://", "api_key", "api_key=", "cookie: ", "-----BEGIN ", "bearer ", "eyJa.", 'key"', "sk-", "\\"],
)
def test_time_grows_with_the_text_and_not_faster(unit: str):
    """A hostile text of ten times the length takes about ten times as long, not a hundred times."""

    def best_of_three_s(chars: int) -> float:
        text = unit * (chars // len(unit))
        times = []
        for _ in range(3):
            started = time.process_time()
            redacted(text)
            times.append(time.process_time() - started)
        return min(times)

    assert best_of_three_s(200_000) < 40 * best_of_three_s(20_000) + 0.05


@pytest.mark.parametrize(
    "sample",
    [
        "-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----",
        "https://user:word@host",
        "Cookie: a=b",
        "Bearer abcdefgh",
        "password=x",
        '"token": "abcdefgh"',
    ],
)
def test_no_pattern_matches_without_a_mark(sample: str):
    """So texts without one may pass these patterns by; each sample is of one of them."""
    matching = [pattern for pattern in redaction._PATTERNS if pattern.search(sample)]
    assert matching
    bare = redaction._MARK.sub("", sample)
    assert not [pattern for pattern in redaction._PATTERNS if pattern.search(bare)]


def test_every_pattern_has_such_a_sample():
    """A further pattern needs one above."""
    assert len(redaction._PATTERNS) == 6
