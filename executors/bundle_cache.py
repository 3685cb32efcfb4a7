"""The bundle of this installation, kept in the user's cache folder, so that not each run has to make it.

    ~/.cache/tea/bundle-KEY-HASH.pyz     KEY: of what it was made from; HASH: of its bytes

Only a help: where nothing can be kept (no home, a full disk, a folder that others may write to), nothing is.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat

from spool.publish import replace

KEPT = 4
"""Bundles that stay, the newest: of several environments, or of tea while it is being changed."""


def folder() -> str:
    """Where bundles are kept."""
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "tea")


def kept(key: str) -> bytes | None:
    """The bundle that was kept under this key; None when there is none that is whole and this user's."""
    with contextlib.suppress(OSError):
        for name in _names():
            if name.startswith(f"bundle-{key}-"):
                with open(os.path.join(folder(), name), "rb") as file:
                    data = file.read()
                return data if name == _name(key, data) else None
    return None


def keep(key: str, data: bytes) -> None:
    """Keep a bundle, and no more old ones than `KEPT` in all."""
    with contextlib.suppress(OSError):
        os.makedirs(folder(), 0o700, exist_ok=True)
        names = _names()
        replace(os.path.join(folder(), _name(key, data)), data)
        for name in names[KEPT - 1 :]:
            os.unlink(os.path.join(folder(), name))


def _name(key: str, data: bytes) -> str:
    return f"bundle-{key}-{hashlib.sha256(data).hexdigest()[:32]}.pyz"


def _names() -> list[str]:
    """The bundles there, the newest first. Raises PermissionError for a folder that others may write to."""
    status = os.lstat(folder())
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PermissionError(f"{folder()} is not this user's alone")
    with os.scandir(folder()) as entries:
        found = [(entry.stat().st_mtime, entry.name) for entry in entries if entry.name.startswith("bundle-")]
    return [name for _, name in sorted(found, reverse=True)]
