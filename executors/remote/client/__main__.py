"""The program. What goes wrong in paramiko is ours and not the host's: it ends with 255, as `ssh` does."""

from __future__ import annotations

import os
import sys


def run(argv: list[str]) -> int:
    """`program.main`, whatever happens."""
    try:
        from executors.remote.client.program import main

        return main(argv)
    except Exception as error:  # somebody else's code, from its import on
        print(f"tea's own client failed: {type(error).__name__}: {error}", file=sys.stderr)
        return 255


if __name__ == "__main__":
    code = run(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)  # paramiko's threads may wait for a host that is gone
