"""The start of the worker on a host: the server that its slots are forked from begins first, to import meanwhile."""

from __future__ import annotations

import os

from executors.bundle import running_bundle
from executors.server import warm_up


def main(version: str, session: str, runner: str = "") -> int:
    """Serve one session; the exit code. runner: of the jobs that will come; nothing when none will.

    What jobs find in their environment is what was there before: `fed` gets that.
    """
    environment = dict(os.environ)
    program = running_bundle()
    if program is not None:  # servers that are started now, or in the place of one that was killed, find tea there
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [program, os.environ.get("PYTHONPATH")]))
    if runner:
        warm_up(runner.partition(":")[0])
    from executors.remote import fed

    return fed.main(session, version, environment)
