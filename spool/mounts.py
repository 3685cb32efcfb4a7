"""Which file system a folder is on, and what that means for a spool.

The table of the kernel (`/proc/self/mounts`) tells; where there is none, nothing is known.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

_OCTAL = re.compile(r"\\([0-7]{3})")

_NFS = (
    "mount it `hard` and without `nocto` on every machine: then listings and beats are seen at once, though what was "
    "removed is seen up to `acdirmax` (60 s) late; keep `lease_duration` at 30 or more"
)
_CIFS = "mount with `mfsymlinks` so that claims can be made, and without `nobrl` so that locks are shared"
_GLUSTER = "a file may have some 45 links only, and copies take their place; keep `lease_duration` at 30 or more"
_OBJECTS = "no links and no locks: use another file system, or the strategy `remote`"
_SLOW = "keep `lease_duration` at 30 or more"

NETWORK = {
    "nfs": _NFS,
    "nfs4": _NFS,
    "cifs": _CIFS,
    "smb3": _CIFS,
    "fuse.sshfs": "locks are not shared with other machines: drive each run from one machine only, or use the "
    "strategy `remote`, which needs no shared file system",
    "glusterfs": _GLUSTER,
    "fuse.glusterfs": _GLUSTER,
    "lustre": "mount with `flock`, as `localflock` is not shared with other machines; set `lease_duration` to 60 or "
    "more",
    "ceph": _SLOW,
    "fuse.ceph-fuse": _SLOW,
    "gpfs": _SLOW,
    "beegfs": "set `tuneUseGlobalFileLocks = true` on every client, else locks are not shared",
    "9p": "locks may not be shared with other machines: drive each run from one machine only",
    "afs": "links across folders are refused: use another file system, or the strategy `remote`",
    "fuse.rclone": _OBJECTS,
    "fuse.s3fs": _OBJECTS,
}
"""Network file systems, and what to know of each."""

_LOCAL_LOCKS = {
    "nfs": re.compile(r"^(nolock|local_lock=(flock|all))$"),
    "nfs4": re.compile(r"^local_lock=(flock|all)$"),
    "cifs": re.compile(r"^nobrl$"),
    "smb3": re.compile(r"^nobrl$"),
    "lustre": re.compile(r"^localflock$"),
}
_NEVER_SHARED = frozenset({"fuse.sshfs", "fuse.rclone", "fuse.s3fs"})


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of the mount table."""

    source: str
    point: str
    type: str
    options: tuple[str, ...]

    @property
    def network(self) -> bool:
        return self.type in NETWORK

    @property
    def advice(self) -> str:
        return NETWORK.get(self.type, "")

    @property
    def read_only(self) -> bool:
        return "ro" in self.options

    @property
    def local_locks(self) -> str:
        """Why locks that are taken here are not seen by other machines; empty when they are, or nobody is there."""
        if self.type in _NEVER_SHARED:
            return self.type
        pattern = _LOCAL_LOCKS.get(self.type)
        return next((option for option in self.options if pattern and pattern.match(option)), "")


def parse(table: str) -> list[Mount]:
    """The lines of a mount table; those that are none are passed over."""
    lines = (line.split(" ") for line in table.splitlines())
    return [Mount(_plain(f[0]), _plain(f[1]), f[2], tuple(f[3].split(","))) for f in lines if len(f) >= 4]


def _plain(text: str) -> str:
    """Blanks and others are written in octal."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)


def containing(mounts: list[Mount], path: str) -> Mount | None:
    """The mount on which a real path lies: the deepest one around it, of several on one point the last."""
    best: Mount | None = None
    for mount in mounts:
        around = path == mount.point or path.startswith(mount.point.rstrip("/") + "/")
        if around and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def mount_of(path: str) -> Mount | None:
    """The mount on which a folder lies; None where the system does not tell."""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
            table = file.read()
    except OSError:
        return None
    return containing(parse(table), os.path.realpath(path))
