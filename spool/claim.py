"""Who has an attempt: a claim is a symbolic link whose text is the claimant.

`symlink()` is exclusive and complete in one call, also over NFS, and `ls -l` shows the owner. The link points
nowhere and is never followed. No claim is ever removed: attempt numbers only grow, and the number fences results
that come late.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
from dataclasses import dataclass
from functools import lru_cache

from spool.layout import JobFiles, safe_name

_CLAIMANT = re.compile(r"([^@/]{1,64})@([A-Za-z0-9][A-Za-z0-9._-]{0,59}):([0-9]{1,10}):([0-9a-f]{8,32})")


@dataclass(frozen=True, slots=True)
class Claimant:
    """A worker process: `user@host:pid:token`."""

    user: str
    host: str
    pid: int
    token: str

    def __str__(self) -> str:
        return f"{self.user}@{self.host}:{self.pid}:{self.token}"

    @property
    def worker(self) -> str:
        """The name of its folder in `workers/`."""
        return f"{self.host}-{self.pid}-{self.token}"

    @classmethod
    def parse(cls, text: str) -> Claimant | None:
        """The claimant that a claim names; None for a text that is no claim of ours."""
        match = _CLAIMANT.fullmatch(text)
        return cls(match[1], match[2], int(match[3]), match[4]) if match else None


@lru_cache(maxsize=1)
def host_name() -> str:
    """This host's name, as a safe name."""
    return safe_name(socket.gethostname() or "localhost", 52)


@lru_cache(maxsize=1)
def user_name() -> str:
    """This user's name, or the number where the system does not know one."""
    try:
        return getpass.getuser().replace("/", "_").replace("@", "_")[:64] or str(os.geteuid())
    except (KeyError, OSError):
        return str(os.geteuid())


def try_claim(job: JobFiles, attempt: int, claimant: str, *, anew: bool = False) -> bool:
    """Claim an attempt for `claimant`; False when somebody else has it, with `anew` also when `claimant` has it.

    Raises OSError when the claim could not be made and nobody has it: a full or read-only disk, a vanished job.
    """
    path = job.claim(attempt)
    try:
        os.symlink(claimant, path)
    except OSError:
        # Not only EEXIST: sshfs answers EPERM for a taken name, and a request that NFS sent twice meets its own
        # success. Who stands in the link decides.
        owner = claimed_by(job, attempt)
        if owner is None:
            raise
        return owner == claimant and not anew
    return True


def claimed_by(job: JobFiles, attempt: int) -> str | None:
    """Who claimed an attempt; None when nobody did."""
    try:
        return os.readlink(job.claim(attempt))
    except FileNotFoundError:
        return None
    except OSError as error:  # something that is no link stands there: nobody's, and never free
        return f"?{error.strerror}"
