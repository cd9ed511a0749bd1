"""What every command line of a lease is held by, from between its fork and its exec: rlimits, user, Landlock.

The order is the kernel's: a change of user forgets the parent-death signal, so that comes after it, and Landlock
comes last, because it would refuse what comes before; but for root's privileges, which go as soon as nothing needs
them. A process with locks writes its own home, as itself: the folder belongs to a program that the locks are there
for, and could lead whoever else writes into it astray. Without a lock root keeps its privileges: as the owner of
nearly everything it would have lost little by them, and logins and programs of other users would be closed to it.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import resource
import subprocess
from collections.abc import Callable, Iterator, Sequence

from shared import isolation
from shared.contracts import LeaseLimits
from shared.errors import ProviderError
from shared.hardening import Hardening
from shared.installation import program_files
from shared.landlock import READ, RUN, WRITE, Ruleset
from shared.provider import Command

PROGRAMS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store")
FILES = (
    "/etc/ca-certificates",
    "/etc/crypto-policies",
    "/etc/gai.conf",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/locale.alias",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/pki/ca-trust",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/openssl.cnf",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/version",
    "/run/systemd/resolve",
    "/sys/devices/system/cpu",
)
"""What libc, TLS, name resolution and language runtimes read; no folder of keys, and of no process anything."""
ITSELF = ("/proc/self",)
"""Who opens it is who is meant. Runtimes look up there where their stack is; amp's aborts when it may not."""
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
FSIZE_MARGIN_BYTES = 4096
"""A file as large as a process may write is over the lease's limit, so that the supervisor sees it."""
CPU_MARGIN = 1.1
"""The kernel ends a process by the clock's ticks, which is less exact than the sum that the supervisor sees."""
CPU_GRACE_S = 1
"""What comes on top of that; and from SIGXCPU to SIGKILL."""
MAX_RLIMIT = 2**63 - 1
MAX_CAUSE_BYTES = 4096
Step = Callable[[], None]


class Confinement:
    """Hardening and limits of one lease, for each of its command lines. ``folders`` are the lease's own."""

    def __init__(
        self,
        *,
        hardening: Hardening | None = None,
        limits: LeaseLimits | None = None,
        folders: Sequence[str] = (),
        dies_with_parent: bool = True,
    ) -> None:
        self._hardening = hardening or Hardening()
        self._rlimits = rlimits(limits or LeaseLimits())
        self._folders = folders
        self._dies_with_parent = dies_with_parent

    @contextlib.contextmanager
    def entrance(self, command: Command, furnish: Callable[[], None]) -> Iterator[Step | None]:
        """What a new process of ``command`` calls before it executes; None for nothing.

        ``furnish`` is called there, or at once when there are no locks. Raises what it raises, and ProviderError
        ``provider_crashed`` for a lock that cannot be made or, out of the block, not be entered.
        """
        with contextlib.ExitStack() as stack:
            steps = self._limiting()
            if self._hardening.landlock:
                ruleset = stack.enter_context(contextlib.closing(self._ruleset(command)))
                steps += (functools.partial(ruleset.allow, ITSELF, READ), ruleset.enter)
            if self._hardening.locks:
                steps += (isolation.drop_capabilities, furnish)
            else:
                furnish()
            yield stack.enter_context(_reported(command, steps)) if steps else None

    def _limiting(self) -> list[Step]:
        steps: list[Step] = [
            functools.partial(resource.setrlimit, number, values) for number, values in self._rlimits.items()
        ]
        if self._hardening.locks:
            steps.append(isolation.bound_capabilities)
        if self._hardening.uid is not None and self._hardening.gid is not None:
            steps.append(functools.partial(isolation.become, self._hardening.uid, self._hardening.gid))
        if self._dies_with_parent:
            steps += (isolation.die_with_parent, isolation.forbid_new_privileges, isolation.forbid_core_dumps)
        return steps

    def _ruleset(self, command: Command) -> Ruleset:
        """What this one process may do with files."""
        ruleset = Ruleset()
        try:
            ruleset.allow((*PROGRAMS, *program_files(command.argv[0], command.env["PATH"])), RUN)
            ruleset.allow((*FILES, *command.reads), READ)
            ruleset.allow((*DEVICES, *self._folders, *command.links.values(), *command.writes), WRITE)
        except OSError as error:
            ruleset.close()
            raise ProviderError("provider_crashed", f"cannot lock {command.argv[0]}: {error}") from error
        return ruleset


def rlimits(limits: LeaseLimits) -> dict[int, tuple[int, int]]:
    """Those of a lease's limits that hold for a single process, soft and hard, never above what holds already."""
    wanted: dict[int, tuple[int, int]] = {}
    if limits.open_files is not None:
        wanted[resource.RLIMIT_NOFILE] = (limits.open_files, limits.open_files)
    if limits.cpu_s is not None:
        soft = math.ceil(limits.cpu_s * CPU_MARGIN) + CPU_GRACE_S
        wanted[resource.RLIMIT_CPU] = (soft, soft + CPU_GRACE_S)
    if limits.workspace_bytes is not None:
        most = limits.workspace_bytes + FSIZE_MARGIN_BYTES
        wanted[resource.RLIMIT_FSIZE] = (most, most)
    return {number: _bounded(number, *values) for number, values in wanted.items()}


def _bounded(number: int, soft: int, hard: int) -> tuple[int, int]:
    most = resource.getrlimit(number)[1]
    most = MAX_RLIMIT if most == resource.RLIM_INFINITY else most
    return min(soft, most), min(hard, most)


@contextlib.contextmanager
def _reported(command: Command, steps: Sequence[Step]) -> Iterator[Step]:
    """All steps as one, which tells what went wrong; of an error before an exec, Popen knows only that it was."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def take() -> None:
        try:
            for step in steps:
                step()
        except BaseException as error:
            os.write(writer, str(error).encode()[:MAX_CAUSE_BYTES])
            raise

    try:
        yield take
    except subprocess.SubprocessError as error:
        cause = os.read(reader, MAX_CAUSE_BYTES).decode(errors="replace")
        raise ProviderError("provider_crashed", f"cannot start {command.argv[0]}: {cause}") from error
    finally:
        os.close(reader)
        os.close(writer)
