"""How files come into a spool, and how they are read: the only writer and the only reader.

A published file appears under its name complete, or not at all, and never replaces another: unique temporary name,
write, (fsync), link to the final name, unlink the temporary one. Where links are refused (EMLINK, EPERM, ENOSPC and
others, see docs/spool-format.md) an exclusively created reservation takes the place of the exclusive
link, and a rename publishes: also then nobody reads half a file.

Readers open without following links and without blocking on a fifo, take only regular files of this user, and
bound what they read.
"""

from __future__ import annotations

import errno
import itertools
import os
import secrets
import stat
from typing import Any, NoReturn

from spool import jsonio
from spool.errors import CorruptFileError, ForeignFileError
from spool.layout import TEMPORARY

MAX_JSON = 256 * 1024 * 1024
"""Bytes of the largest JSON file that is read."""

_REFUSED = frozenset(
    {errno.EMLINK, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EACCES}
)
"""What file systems answer to a link that they do not make; none of them says that the name is taken."""

_serial = itertools.count()
_token = [os.getpid(), secrets.token_hex(4)]


def unique() -> str:
    """A name part that no other process or thread uses, also after a fork and on another host."""
    if _token[0] != os.getpid():
        _token[:] = [os.getpid(), secrets.token_hex(4)]
    return f"{_token[0]}-{_token[1]}-{next(_serial)}"


def is_there(path: str) -> bool:
    """Whether a name is in its folder, as a listing tells: for what other machines make and remove.

    Over NFS a name that was once found, or not, is believed in for up to a minute; a listing asks the server.
    """
    folder, name = os.path.split(path)
    try:
        return name in os.listdir(folder)
    except OSError:
        return False


def write_exclusive(path: str, data: bytes, *, sync: bool = False, mode: int = 0o600) -> None:
    """Create a file that nobody reads yet. Raises FileExistsError, or OSError after removing what was written."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        try:
            view = data
            while True:
                done = os.write(fd, view)
                if done == len(view):
                    break
                view = view[done:]
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)  # network file systems tell here that the disk or the quota is full
    except BaseException:
        _discard(path)
        raise


def sync_folder(path: str) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def publish(path: str, data: bytes, *, sync: bool = False) -> None:
    """Publish a file under a name that must be free.

    Raises FileExistsError when the name is taken, OSError when the disk refuses (nothing is left behind then).
    """
    folder = path.rpartition("/")[0]
    temporary = f"{folder}/.tmp-{unique()}"
    write_exclusive(temporary, data, sync=sync)
    try:
        _link_exclusive(temporary, path)
    finally:
        _discard(temporary)
    if sync:
        sync_folder(folder)


def _link_exclusive(temporary: str, path: str) -> None:
    """Give a temporary file its name, which must be free. Raises FileExistsError when the name is taken."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        if not _same_file(temporary, path):  # a retransmitted request over NFS meets its own success
            raise
    except OSError as error:
        if _same_file(temporary, path):
            return
        if error.errno not in _REFUSED:
            raise
        _rename_exclusive(temporary, path)


def _rename_exclusive(temporary: str, path: str) -> None:
    """Publish without a link: who creates the reservation may rename onto the name. The reservation stays."""
    folder, name = os.path.split(path)
    reservation = f"{folder}/.reserved-{name}"
    _reserve(reservation)
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
    try:
        os.rename(temporary, path)
    except BaseException:
        _discard(reservation)
        raise


def _reserve(path: str) -> None:
    """Create a reservation, or take over that of a process of this host that died before it could publish.

    Several may find a dead one's at once: who takes it over reserves that first, and looks again.
    Raises FileExistsError when somebody else has it.
    """
    mine = f"{os.uname().nodename}:{os.getpid()}".encode()
    try:
        return write_exclusive(path, mine)
    except FileExistsError:
        if not _is_abandoned(path):
            raise
    folder, name = os.path.split(path)
    takeover = f"{folder}/.reserved-{name}"
    _reserve(takeover)
    try:
        if not _is_abandoned(path):  # another process took it over since we looked
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        replace(path, mine)
    finally:
        _discard(takeover)


def _is_abandoned(path: str) -> bool:
    """Whether a reservation is that of a process of this host that is dead."""
    try:
        host, _, pid = read_bytes(path, 4096).decode("utf-8", "replace").rpartition(":")
    except FileNotFoundError:  # given up at this moment: who had it was refused by the disk
        return False
    return host == os.uname().nodename and pid.isdecimal() and not process_exists(int(pid))


def process_exists(pid: int) -> bool:
    """Whether there is such a process on this host, whoever's."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's; or no number of a process, which is nothing to act on
        return True
    return True


def replace(path: str, data: bytes, *, sync: bool = False) -> None:
    """Write a file that has one writer and changes: a run's outcome, a worker's record."""
    temporary = f"{os.path.dirname(path)}/.tmp-{unique()}"
    write_exclusive(temporary, data, sync=sync)
    try:
        os.rename(temporary, path)
    except BaseException:
        _discard(temporary)
        raise


class Linker:
    """Gives one content many names cheaply: links to a source, a new source when its links are used up, copies last.

    Names are made exclusively and nobody may read them before the job's ticket is there.

    Args:
        data: None for a source that is there, and is read again where links are refused.
    """

    def __init__(self, source: str, data: bytes | None = None) -> None:
        self._source, self._data = source, data
        self._copies = False
        self._generation = 0
        self._current = source
        if data is not None and not os.path.lexists(source):
            publish(source, data)

    def _content(self) -> bytes:
        return read_bytes(self._source) if self._data is None else self._data

    def link(self, path: str) -> None:
        """Make `path`. Raises FileExistsError when it is taken."""
        if self._copies:
            return write_exclusive(path, self._content())
        try:
            os.link(self._current, path)
        except FileExistsError:
            raise
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
            self._refused(error)
            self.link(path)
        return None

    def _refused(self, error: OSError) -> None:
        """EMLINK: this source has all the links it may have, take a new one. Anything else: copy from now on.

        A source that was refused its first link tells that the next would be, too.
        """
        if error.errno != errno.EMLINK or os.lstat(self._current).st_nlink == 1:
            self._copies = True
            return
        self._generation += 1
        self._current = f"{self._source}.{self._generation}"
        try:
            publish(self._current, self._content())
        except FileExistsError:
            pass  # an earlier coordinator of this run got here: use what it made


def read_bytes(path: str, limit: int = MAX_JSON) -> bytes:
    """Read a file of ours.

    Raises FileNotFoundError when it does not exist, ForeignFileError when it is not a regular file of this user, not
    readable, or larger than `limit` bytes.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ForeignFileError(path, "a symbolic link where a file belongs") from None
        if error.errno == errno.ENXIO:
            raise ForeignFileError(path, "a socket or device where a file belongs") from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise ForeignFileError(path, "you may not read it; `chmod u+r` it if it is yours") from None
        raise
    try:
        status = os.fstat(fd)
        size = status.st_size
        # One comparison each for what is nearly always so; `_refuse` finds out what was not.
        if status.st_mode & _MODE != stat.S_IFREG or status.st_uid != os.geteuid() or size > limit:
            _refuse(path, status, limit)
        data = os.read(fd, size + 1)
        return data if len(data) == size else _read_rest(fd, data, size)
    finally:
        os.close(fd)


_MODE = 0o170022
"""File type and the bits that let others write."""


def _refuse(path: str, status: os.stat_result, limit: int) -> NoReturn:
    if not stat.S_ISREG(status.st_mode):
        raise ForeignFileError(path, "not a regular file")
    if status.st_uid != os.geteuid():
        raise ForeignFileError(path, f"it belongs to user {status.st_uid}, not to you ({os.geteuid()})")
    if status.st_mode & 0o022:
        raise ForeignFileError(path, "others may write to it; `chmod go-w` it if it is yours")
    raise ForeignFileError(path, f"{status.st_size} bytes are more than the {limit} that are read")


def _read_rest(fd: int, data: bytes, size: int) -> bytes:
    parts = [data]
    while data and sum(map(len, parts)) <= size:  # a signal or a network file system may split a read
        data = os.read(fd, 1 << 20)
        parts.append(data)
    return b"".join(parts)


def read_json(path: str, limit: int = MAX_JSON) -> dict[str, Any]:
    """Read a JSON object of ours.

    Raises what `read_bytes` raises, and CorruptFileError when it does not parse or is not an object.
    """
    data = read_bytes(path, limit)
    try:
        value = jsonio.loads(data)
    except ValueError as error:
        raise CorruptFileError(path, f"not JSON ({error})" if data else "empty") from None
    if type(value) is not dict:
        raise CorruptFileError(path, f"a JSON {type(value).__name__} where an object belongs")
    return value


def read_quietly(path: str) -> dict[str, Any]:
    """A JSON object of ours; what is wrong with it under `$unreadable`; empty where there is no file."""
    try:
        return read_json(path)
    except FileNotFoundError:
        return {}
    except (CorruptFileError, ForeignFileError) as error:
        return {"$unreadable": error.why}
    except OSError as error:
        return {"$unreadable": str(error.strerror)}


def quarantine(path: str) -> str:
    """Move a file that cannot be trusted out of the way, to `*.corrupt`; from then on it counts as absent.

    Returns the new name, or "" when somebody else was faster.
    """
    for number in itertools.count():
        aside = f"{path}.corrupt" + (f".{number}" if number else "")
        if os.path.lexists(aside):
            continue
        try:
            os.rename(path, aside)
        except FileNotFoundError:
            return ""
        return aside
    return ""


def sweep(folder: str, pid: int | None = None) -> None:
    """Remove temporary files that a process left in a folder when it was killed; without its number, everybody's.

    Only for a folder in which nobody else publishes now; who does so after all finds that its name was not given.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    for name in names:
        if (match := TEMPORARY.fullmatch(name)) and pid in (None, int(match[1])):
            _discard(f"{folder}/{name}")


def _same_file(a: str, b: str) -> bool:
    try:
        return os.path.samestat(os.lstat(a), os.lstat(b))
    except FileNotFoundError:
        return False


def _discard(path: str) -> None:
    """Remove a file of ours that nobody reads; on a disk that refuses even that, it stays and harms nobody."""
    try:
        os.unlink(path)
    except OSError:
        pass
