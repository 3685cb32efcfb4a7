"""What runs on a host before tea is there: sent on stdin, nothing but the standard library, any Python from 3.6 on.

    the coordinator                             the host
    this text, {"op": "probe", ...}   ------->  looks at Python and the work folder
                                      <-------  MARK {"python": ..., "have": ...}
    {"op": "program"} and its bytes   ------->  written under its hash, when it was not there
    {"op": "start"}                   ------->  becomes the worker, with the same stdin and stdout

    or, instead: {"op": "run"}, text  ------->  runs that text, which uses what is here (`sweep`)

No file is left but the program. It reads byte by byte where a line ends, so that nothing is lost that is meant for
the worker.
"""

import hashlib
import json
import os
import pwd
import stat
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # without importing `typing`: each session waits for this program
    from typing import Any

OLDEST = (3, 11)


class Refusal(Exception):
    """This host cannot be used. kind: see `failures.of_refusal`."""

    def __init__(self, kind: str, text: str) -> None:
        Exception.__init__(self, text)
        self.kind = kind


def read_line() -> "dict[str, Any]":
    """The next message's line."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            sys.exit(0)
        line += byte
    message: dict[str, Any] = json.loads(line.decode())
    return message


def read_payload(size: int) -> bytes:
    """The bytes that follow a line."""
    parts, left = [], size
    while left:
        part = os.read(0, min(left, 1 << 20))
        if not part:
            sys.exit(0)
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def say(mark: str, answer: "dict[str, Any]") -> None:
    """Answer, on a line of its own."""
    data = f"\n{mark}{json.dumps(answer)}\n".encode()
    while data:
        data = data[os.write(1, data) :]


def place(wanted: "str | None") -> str:
    """Where the work folder is."""
    return os.path.abspath(os.path.expanduser(wanted or f"/tmp/tea-jobs-{os.geteuid()}"))


def folder(path: str) -> str:
    """The work folder, made where there is none: this user's alone, and writable. Raises Refusal."""
    try:
        try:
            os.makedirs(path, 0o700)
        except FileExistsError:
            pass  # also when another session has made it just now
        status = os.lstat(path)
    except OSError as error:
        raise Refusal("workdir", f"cannot make its workdir {path}: {error.strerror}") from None
    if not stat.S_ISDIR(status.st_mode):
        raise Refusal("workdir", f"its workdir {path} is not a folder")
    if status.st_uid != os.geteuid():
        raise Refusal("workdir", f"its workdir {path} belongs to user {status.st_uid}")
    if status.st_mode & 0o022:
        raise Refusal("workdir", f"others may write to its workdir {path}")
    return path


def check_python() -> None:
    """Raises Refusal for a Python that is too old."""
    if sys.version_info < OLDEST:
        raise Refusal("python", f"its Python is {sys.version.split()[0]}")


def user() -> str:
    """Who we are here."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def installed(programs: "list[str]") -> "list[str]":
    """Those of some programs that are here."""
    if not programs:
        return []
    import shutil  # which most sessions can do without

    return [name for name in programs if shutil.which(name)]


def probe(asked: "dict[str, Any]") -> "tuple[str, dict[str, Any]]":
    """Where the program belongs, and what the coordinator wants to know. Raises Refusal."""
    check_python()
    path = folder(place(asked.get("workdir")))
    missing = sorted(set(asked.get("programs", ())) - set(installed(asked.get("programs", ()))))
    if missing:
        raise Refusal("program", f"there is no {missing[0]}")
    status = os.statvfs(path)
    free = status.f_bavail * status.f_frsize
    if free < asked["need"]:
        raise Refusal("disk", f"its disk is full: {free} bytes are free in {path}")
    program = os.path.join(path, asked["program"])
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    answer = {
        "python": sys.version.split()[0],
        "host": os.uname().nodename,
        "user": user(),
        "clock": time.time(),
        "cpus": cpus,
        "workdir": path,
        "free": free,
        "have": has(program, asked["sha256"]),
        "found": installed(asked.get("look_for", ())),
    }
    return program, answer


def has(program: str, sha256: str) -> bool:
    """Whether this very program is there, and nobody else can have written it."""
    try:
        status = os.lstat(program)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            return False
        with open(program, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest() == sha256
    except OSError:
        return False


def keep(program: str, sha256: str, data: bytes) -> None:
    """Write the program, complete or not at all. Raises Refusal."""
    if hashlib.sha256(data).hexdigest() != sha256:
        raise Refusal("transfer", "the program was damaged on the way")
    temporary = f"{program}.{os.urandom(4).hex()}"  # not the process id: hosts may share the folder
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        os.rename(temporary, program)
    except OSError as error:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise Refusal("disk", f"cannot write {program}: {error.strerror}") from None


def main() -> int:
    """One session, up to where the worker takes over; the exit code."""
    asked = read_line()
    mark = asked["mark"]
    try:
        if asked["op"] == "run":
            check_python()
            exec(read_payload(asked["size"]), globals())
            return 0
        program, answer = probe(asked)
        say(mark, answer)
        message = read_line()
        if message["op"] == "program":
            keep(program, asked["sha256"], read_payload(message["size"]))
            message = read_line()
    except Refusal as refusal:
        say(mark, {"refused": refusal.kind, "text": str(refusal)})
        return 1
    if message["op"] == "start":
        os.chdir(os.path.dirname(program))
        os.environ.update(message["env"])
        os.execv(sys.executable, [sys.executable, program, *message["argv"]])
    return 0


if __name__ == "__main__":
    sys.exit(main())
