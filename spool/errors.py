"""The errors of a spool: each says what happened, to which file, and what to do."""

from __future__ import annotations


class SpoolError(Exception):
    """Something about a spool is not as it must be."""


class ForeignFileError(SpoolError):
    """A file that is not ours to trust: another user's, a link or device where a file belongs, too large."""

    def __init__(self, path: str, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(f"{path}: refused, {why}")


class CorruptFileError(SpoolError):
    """A file of ours that does not parse, or that speaks of another job, attempt or input."""

    def __init__(self, path: str, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(f"{path}: unreadable, {why}")


class TooLargeError(SpoolError):
    """What should be written is more than what is read."""

    def __init__(self, path: str, size: int, limit: int) -> None:
        self.path, self.size = path, size
        super().__init__(
            f"{path}: {size} bytes would be more than the {limit} that are read; write large results to files, and "
            "return their names"
        )


class RunBusyError(SpoolError):
    """Another coordinator drives this run."""

    def __init__(self, run: str, owner: str) -> None:
        self.run, self.owner = run, owner
        super().__init__(
            f"run {run} is driven by {owner or 'another process'}; wait for it, or stop that process and resume"
        )


class PackedRunError(SpoolError):
    """What is asked for changes a run, and the run is packed."""

    def __init__(self, run: str) -> None:
        self.run = run
        super().__init__(f"run {run} is packed, and can only be read so; unpack it first: tea spool unpack {run}")


class UnknownNameError(SpoolError):
    """No run, fan-out or job of this name, or more than one."""


class AmbiguousNameError(UnknownNameError):
    """More than one job of this name."""
