"""The peers, each run as its documentation says, from start to end with its start-up: a count of jobs to seconds.

The job is a function that gives back what it gets, or `true` where jobs are programs. A peer that is not installed is
reported as missing, never guessed.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import harness

Measure = Callable[[Path, int], float]


def _python(code: str, folder: Path, *args: object) -> float:
    """Seconds of a Python program, start-up included."""
    script = folder / "peer.py"
    script.write_text(textwrap.dedent(code))
    argv = [sys.executable, str(script), *map(str, args)]
    return harness.seconds(lambda: subprocess.run(argv, cwd=folder, check=True, stdout=subprocess.DEVNULL))


def pool_map(folder: Path, jobs: int) -> float:
    """`concurrent.futures.ProcessPoolExecutor.map`: no record."""
    code = """
        import sys
        from concurrent.futures import ProcessPoolExecutor

        def noop(i):
            return i

        if __name__ == "__main__":
            n = int(sys.argv[1])
            with ProcessPoolExecutor(2) as pool:
                assert list(pool.map(noop, range(n))) == list(range(n))
    """
    return _python(code, folder, jobs)


def executorlib(folder: Path, jobs: int) -> float:
    """executorlib in memory, two workers that stay: no record."""
    code = """
        import sys
        from executorlib import SingleNodeExecutor

        def noop(i):
            return i

        if __name__ == "__main__":
            n = int(sys.argv[1])
            with SingleNodeExecutor(max_workers=2, block_allocation=True) as pool:
                futures = [pool.submit(noop, i) for i in range(n)]
                assert [future.result() for future in futures] == list(range(n))
    """
    return _python(code, folder, jobs)


def jug(folder: Path, jobs: int) -> float:
    """jug with two workers on one file store: results on disk."""
    (folder / "jugfile.py").write_text(
        f"from jug import TaskGenerator\n\n@TaskGenerator\ndef noop(i):\n    return i\n\n"
        f"found = [noop(i) for i in range({jobs})]\n"
    )
    argv = [str(Path(sys.executable).with_name("jug")), "execute", "jugfile.py"]
    began = time.perf_counter()
    workers = [
        subprocess.Popen(argv, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)
    ]
    codes = [worker.wait() for worker in workers]
    taken = time.perf_counter() - began
    if any(codes):
        raise RuntimeError(f"jug ended with {codes}")
    return taken


def gnu_parallel(folder: Path, jobs: int) -> float:
    """GNU Parallel with `--joblog` and `--results`: output and log on disk; each job is a program, `true`."""
    argv = ["parallel", "--will-cite", "-j2", "--joblog", "log", "--results", "results", "true", ":::"]
    argv += map(str, range(jobs))
    return harness.seconds(lambda: subprocess.run(argv, cwd=folder, check=True, capture_output=True))


KNOWN: dict[str, tuple[Measure, float]] = {
    "ProcessPoolExecutor.map": (pool_map, 1.0),
    "executorlib in memory": (executorlib, 1.0),
    "jug": (jug, 1.0),
    "GNU Parallel": (gnu_parallel, 0.1),
}
"""Each peer, and the share of the jobs that it gets: GNU Parallel would take minutes. Rates are compared."""


def installed() -> dict[str, tuple[Measure, float]]:
    """The peers that are here."""
    here = {
        "executorlib in memory": importlib.util.find_spec("executorlib") is not None,
        "jug": importlib.util.find_spec("jug") is not None,
        "GNU Parallel": shutil.which("parallel") is not None,
    }
    return {name: peer for name, peer in KNOWN.items() if here.get(name, True)}
