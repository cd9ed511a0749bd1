"""Taking secrets out of texts that others wrote: stderr tails, error messages, log lines. Pure.

Two nets. Secrets that the caller knows are found wherever they stand. Unknown ones are found by their look: what
follows a name such as ``api_key`` or ``Authorization``, well-known prefixes, and long runs whose characters change
class as often as random ones do, which words and paths do not. Redact before cutting a text: half a secret may not be
recognised. Every pattern takes linear time.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
import urllib.parse
from collections.abc import Iterable, Mapping

MASK = "[redacted]"
MIN_SECRET_CHARS = 4
"""A known secret shorter than this is a word, and hiding it would only show where it stands."""
MIN_RANDOM_CHARS = 32
"""Lease tokens have 43 characters, keys without a prefix of their own 32 and more."""
RANDOM_CHANGES = 0.25
"""Share of neighbours of different class (lower, upper, digit); of random base64 0.64, hex 0.47, paths below 0.15."""

_QUOTE = r"\\*[\"']"
_VALUE = r"[^\s\"'\\,;&}]"
_NAMES = (
    r"api[_-]?key|access[_-]?key|private[_-]?key|(?:auth|access|refresh|id|session|api)[_-]?token(?!s)"
    r"|client[_-]?secret|password|passwd|passphrase|authorization"
)
_PATTERNS = tuple(
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        # PEM blocks, also those without an end
        r"()-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)",
        # the user part of a URL
        r"(://)[^\s/@\"']+(?=@)",
        # cookies, to the end of the header
        rf"((?:set-)?cookie(?:{_QUOTE})?\s{{0,4}}[:=]\s{{0,4}}(?:{_QUOTE})?)[^\n\"'\\]+",
        # schemes of Authorization, also outside it
        r"(\b(?:bearer|basic)\s{1,4})[\w.~+/=-]{8,}",
        # names that say it, with : or =
        rf"((?:{_NAMES})[\w-]{{0,16}}(?:{_QUOTE})?\s{{0,4}}[:=]\s{{0,4}}(?:{_QUOTE})?(?:(?:bearer|basic)\s{{1,4}})?){_VALUE}+",
        # names that may say it: only as name=value or "name": "value"
        rf"((?:token(?!s)|secret|key)(?:=|{_QUOTE}\s{{0,4}}:\s{{0,4}}{_QUOTE})){_VALUE}{{8,}}",
    )
)
_MARK = re.compile(r"[:=\s]")
"""None of these patterns matches a text that has none of these, as most of what is logged."""
_PREFIXED = re.compile(
    r"\b(?:[sr]k[-_][\w-]{8,}|AIza[\w-]{20,}|ya29\.[\w.-]{8,}|gh[pousr]_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}"
    r"|xox[a-z]-[\w-]{8,}|(?:AKIA|ASIA)[A-Z0-9]{16}|sg(?:amp|p)_[\w-]{8,}|hf_\w{16,}|gsk_\w{16,}|xai-[\w-]{16,}"
    r"|eyJ[\w-]{8,}(?:\.[\w-]+){0,4})"
)
_RUN = re.compile(rf"[A-Za-z0-9+/_=-]{{{MIN_RANDOM_CHARS},}}")
_IDENTIFIER = re.compile(
    r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"
    r"|(?:lease|endpoint|req|turn|chatcmpl)[_-](?:[0-9A-Z]{26}|[0-9a-f]{32})\b"
)
"""UUIDs and names that this product gives; they open nothing, and logs are read by them."""
_SECRET_NAME = re.compile(
    r"(?:\b|_)(?:\w*?API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|HEADER|COOKIE)S?(?:_|\b)",
    re.IGNORECASE,
)


def redacted(text: str, secrets: Iterable[str] = (), *, is_identifier: bool = False) -> str:
    """``text`` with the ``secrets`` and everything that looks like one replaced by ``[redacted]``.

    An identifier may look random: in it, that alone makes no secret.
    """
    text = _without_known(text, secrets)
    if _MARK.search(text):
        for pattern in _PATTERNS:
            text = pattern.sub(_keep_name, text)
    text = _PREFIXED.sub(MASK, text)
    return text if is_identifier else _RUN.sub(_without_random, text)


def _without_known(text: str, secrets: Iterable[str]) -> str:
    forms = {form for secret in secrets if len(secret) >= MIN_SECRET_CHARS for form in _written_forms(secret)}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, MASK)
    return text


def secret_values(variables: Mapping[str, str]) -> tuple[str, ...]:
    """The values of those environment variables whose names say that they are secret."""
    return tuple(value for name, value in variables.items() if value and _SECRET_NAME.search(name))


@functools.lru_cache(maxsize=64)
def _written_forms(secret: str) -> frozenset[str]:
    """As it is, and as JSON and URLs write it."""
    spellings = (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1])
    return frozenset((secret, *spellings, urllib.parse.quote(secret)))


def _keep_name(found: re.Match[str]) -> str:
    return found[1] + MASK


def _without_random(found: re.Match[str]) -> str:
    run = found[0]
    rest = _IDENTIFIER.sub("", run)
    return MASK if len(rest) >= MIN_RANDOM_CHARS and _changes(rest) >= RANDOM_CHANGES else run


def _changes(run: str) -> float:
    classes = ["d" if char.isdigit() else "u" if char.isupper() else "l" for char in run if char.isalnum()]
    changes = sum(one != other for one, other in itertools.pairwise(classes))
    return changes / max(1, len(classes) - 1)
