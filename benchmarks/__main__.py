"""`python -m benchmarks`: every row, one after the other, each in a process of its own; then tables and pictures."""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def scripts() -> list[Path]:
    """The rows, in the order of their numbers."""
    return sorted(HERE.glob("row*.py"), key=lambda path: int("".join(filter(str.isdigit, path.stem.split("_")[0]))))


def main() -> int:
    """The number of rows that could not be measured. A goal that is not reached is a result, no error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", type=int, help="only these rows")
    chosen = parser.parse_args().rows
    failed = 0
    for script in scripts():
        if not chosen or int(script.stem.split("_")[0].removeprefix("row")) in chosen:
            failed += subprocess.run([sys.executable, script], check=False).returncode != 0
    if importlib.util.find_spec("matplotlib") is None:
        print(
            "no tables and pictures: matplotlib is not installed (`pip install 'tea-spool[bench]'`)", file=sys.stderr
        )
    else:
        failed += subprocess.run([sys.executable, HERE / "report.py"], check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
