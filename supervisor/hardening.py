"""The locks that ``serve --harden`` asks for: read from words, and refused where this machine or user has none."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable
from pathlib import Path

import msgspec

from shared import isolation, landlock
from shared.errors import ProviderError, RequestError, WorkerError
from shared.hardening import Hardening
from shared.installation import program_files
from shared.permissions import closed_to
from shared.provider import Command

NOBODY = 65534
MAX_UID = 2**32 - 2
"""The one above says "no change" to the kernel."""
KNOWN = "landlock, uid, uid:NAME, uid:NUMBER"


class _User(msgspec.Struct, frozen=True, kw_only=True):
    """Whom command lines run as; ``title`` is what to call them."""

    uid: int
    gids: frozenset[int]
    title: str


def read_hardening(words: Iterable[str]) -> Hardening:
    """The locks by their names. Raises RequestError ``invalid_request``."""
    hardening = Hardening()
    for word in words:
        lock, colon, user = word.partition(":")
        if lock == "uid" and bool(colon) == bool(user):
            uid, gid = _user(user) if user else (NOBODY, NOBODY)
            hardening = msgspec.structs.replace(hardening, uid=uid, gid=gid)
        elif word == "landlock":
            hardening = msgspec.structs.replace(hardening, landlock=True)
        else:
            raise RequestError("invalid_request", f"cannot harden with {word!r}: known are {KNOWN}")
    return hardening


def _user(text: str) -> tuple[int, int]:
    """The user's id, and its group's; a number without a name is its own group."""
    try:
        entry = pwd.getpwuid(int(text)) if text.isdecimal() else pwd.getpwnam(text)
        uid, gid = entry.pw_uid, entry.pw_gid
    except (KeyError, OverflowError) as error:
        if not text.isdecimal() or int(text) > MAX_UID:
            raise RequestError(
                "invalid_request", f"cannot harden with user {text!r}: there is none"
            ) from error
        uid = gid = int(text)
    if uid == 0:
        raise RequestError("invalid_request", "cannot harden with user root: it may do everything")
    return uid, gid


def require_available(hardening: Hardening, home: Path) -> None:
    """Do nothing when every lock can be had, with the state folder ``home``.

    Raises WorkerError ``hardening_unavailable``.
    """
    if hardening.landlock and (version := landlock.abi()) < landlock.LEAST_ABI:
        has = f"only version {version}" if version else "none, or it is switched off"
        raise _unavailable("landlock", f"it needs Linux 6.2 with Landlock, and this kernel has {has}")
    if (
        hardening.uid is not None
        and hardening.gid is not None
        and not _can_become(hardening.uid, hardening.gid)
    ):
        raise _unavailable(f"uid:{hardening.uid}", "only root may run command lines as another user")
    user = _runs_as(hardening)
    if user and (closed := closed_to(user.uid, user.gids, str(home.parent), os.X_OK)):
        raise _unavailable(
            "+".join(hardening.locks),
            f"as {user.title}: {closed} is closed to it, and the state folder is below; "
            "choose another one with --home",
        )


def require_reach(hardening: Hardening, command: Command) -> None:
    """Do nothing when whom command lines run as gets at the program and the user's files of this one.

    Raises ProviderError ``cli_not_found`` or ``not_logged_in``, with the place that is closed.
    """
    user = _runs_as(hardening)
    if user is None:
        return
    programs = program_files(command.argv[0], command.env.get("PATH") or os.defpath)
    files = filter(os.path.lexists, (*command.reads, *command.writes, *command.links.values()))
    wanted = [
        *(("cli_not_found", path, os.R_OK | os.X_OK) for path in programs),
        *(("not_logged_in", path, os.R_OK) for path in files),
    ]
    for code, path, bits in wanted:
        if closed := closed_to(user.uid, user.gids, path, bits):
            raise ProviderError(
                code,
                f"cannot run {command.argv[0]} as {user.title}: {closed} is closed to it",
                should_retry=False,
            )


def _runs_as(hardening: Hardening) -> _User | None:
    """Who may be kept out where we are not: another user, or root behind a lock, which takes its privileges away."""
    if hardening.uid is not None and hardening.gid is not None:
        return _User(uid=hardening.uid, gids=frozenset({hardening.gid}), title=f"user {hardening.uid}")
    if hardening.locks and os.geteuid() == 0:
        gids = frozenset({os.getegid(), *os.getgroups()})
        return _User(uid=0, gids=gids, title="root without its privileges")
    return None


def _can_become(uid: int, gid: int) -> bool:
    """Tried out in a process of its own, because root in a container need not be allowed to."""
    if os.geteuid() != 0:
        return False
    if (pid := os.fork()) == 0:
        try:
            isolation.become(uid, gid)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


def _unavailable(lock: str, cause: str) -> WorkerError:
    return WorkerError("hardening_unavailable", f"cannot harden with {lock}: {cause}")
