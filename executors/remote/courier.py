"""What GNU Parallel runs on a host for each batch: hands it to the worker, and waits until its results are written.

    courier.py BATCH RESULT        names of files in the folder where it starts; see `transit`

Copied there as GNU Parallel's `--basefile`: nothing but the standard library. Exit codes: 0 the results are written,
75 the worker cannot take the batch or has ended, so another host may; GNU Parallel tries again (`--retries`).

It ends when the login ends that runs it: nobody would fetch the results.
"""

import hashlib
import os
import select
import socket
import sys

TRY_ELSEWHERE = 75


def door(host: str) -> str:
    """The name of the socket on which the worker for this host (`PARALLEL_SSHLOGIN`) takes batches."""
    return "door-" + hashlib.sha256(host.encode()).hexdigest()[:12]


def main(batch: str, result: str) -> int:
    """Serve one batch; the exit code."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as worker:
        try:
            worker.connect(door(os.environ.get("PARALLEL_SSHLOGIN", "")))
            worker.sendall(f"{batch} {result}\n".encode())
        except OSError as error:
            print(f"tea's worker on this host does not answer: {error.strerror}", file=sys.stderr)
            return TRY_ELSEWHERE
        login = select.poll()
        login.register(worker, select.POLLIN)
        login.register(1, 0)  # asks for nothing, and is told all the same when nobody reads stdout any more
        ready = dict(login.poll())
        done = worker.fileno() in ready and worker.recv(16) == b"done\n"
    if not done and 1 not in ready:
        print("tea's worker on this host has ended", file=sys.stderr)
    return 0 if done else TRY_ELSEWHERE


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main(*sys.argv[1:3]))
