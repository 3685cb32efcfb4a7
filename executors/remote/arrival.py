"""What comes to a host before its first job: the user's files, the subset of the workflow, the state that jobs share.

Large things come in pieces, compressed, and go to the disk as they come.
"""

from __future__ import annotations

import os
import tarfile
import zlib
from typing import Any, BinaryIO

from executors.remote.folder import Folder
from executors.remote.frames import Frame
from executors.remote.relocate import relocated
from spool.layout import FanOutFiles, JobFiles
from spool.publish import Linker

_FILTER = getattr(tarfile, "data_filter", None)
"""No file lands elsewhere, by mistake. Python before 3.11.4 has no filters; who sends files sends programs, too."""


class Arrival:
    """What one session has been sent."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._path = self._there = ""
        self._coming: BinaryIO | None = None
        self._inflate = zlib.decompressobj()
        self._workflows: dict[str, Linker] = {}
        self._base: Linker | None = None

    def files(self, frame: Frame) -> None:
        """A piece of the archive of the user's files; the last one unpacks it."""
        path = self._take(frame.payload)
        if frame.header["last"]:
            self._close()
            with tarfile.open(path, mode="r:gz") as archive:
                archive.extraction_filter = _FILTER
                archive.extractall(self._folder.files)
            os.unlink(path)

    def workflow(self, frame: Frame, fanout: FanOutFiles) -> None:
        """A subset, with paths that lead into the user's files."""
        key, self._there = str(frame.header["key"]), str(frame.header["folder"])
        text = relocated(frame.payload, self._there, self._folder.files)
        self._workflows[key] = Linker(fanout.workflow(key), text)

    def sent_back(self, text: bytes) -> bytes:
        """A subset made here, with paths that lead into the workflow's folder on the coordinator's machine."""
        return relocated(text, self._folder.files, self._there)

    def base(self, frame: Frame, fanout: FanOutFiles) -> None:
        """A piece of the shared state."""
        path = self._take(self._inflate.decompress(frame.payload))
        if frame.header["last"]:
            self._take(self._inflate.flush())
            self._close()
            os.rename(path, fanout.state)
            self._base = Linker(fanout.state)

    def link(self, header: dict[str, Any], job: JobFiles) -> None:
        """Give a job what it shares with others."""
        if header["base"] and self._base is not None:
            self._base.link(job.base)
        if header["workflow"] is not None:
            self._workflows[header["workflow"]].link(job.workflow)

    def _take(self, data: bytes) -> str:
        """Add to the file that is coming; its path."""
        if self._coming is None:
            self._path = self._folder.aside()
            self._coming = os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        self._coming.write(data)
        return self._path

    def _close(self) -> None:
        if self._coming is not None:
            self._coming.close()
        self._coming = None
