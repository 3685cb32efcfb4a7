"""What the rows share: where to measure, medians, tables, results as JSON, and running `tea` from start to end."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

os.environ.pop(
    "PYTHONDONTWRITEBYTECODE", None
)  # installed programs have compiled modules; so shall all that run here

RESULTS = Path(__file__).resolve().parent / "results"
TMPFS = Path("/dev/shm")


@dataclass(frozen=True)
class Line:
    """One measured figure.

    place: the file system. goal: in words. ratio: to `peer`, in the same run. ok: None where there is no goal.
    """

    what: str
    value: float
    unit: str
    place: str = ""
    goal: str = ""
    peer: str = ""
    ratio: float | None = None
    ok: bool | None = None


@dataclass
class Row:
    """One row of the table: its lines, and all single measurements behind them."""

    number: int
    title: str
    results: Path
    options: dict[str, Any]
    lines: list[Line] = field(default_factory=list)
    samples: dict[str, list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, what: str, value: float, unit: str, **more: Any) -> None:
        self.lines.append(Line(what, value, unit, **more))
        print(_text(self.lines[-1]), file=sys.stderr)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def finish(self) -> None:
        """Print the table, and keep it."""
        self.results.mkdir(parents=True, exist_ok=True)
        members = {key: value for key, value in asdict(self).items() if key != "results"}
        path = self.results / f"row{self.number}.json"
        path.write_text(json.dumps({**members, "machine": machine()}, indent=1) + "\n")
        print(self.table())

    def table(self) -> str:
        head = f"Row {self.number}: {self.title}"
        return "\n".join(["", head, "-" * len(head), *map(_text, self.lines), *map("  {}".format, self.notes)])


def _text(line: Line) -> str:
    ratio = f"{line.ratio:.2f} x {line.peer}" if line.ratio is not None else ""
    verdict = {True: "ok", False: "NOT REACHED", None: ""}[line.ok]
    value = f"{line.value:,.0f}" if line.value >= 100 else f"{line.value:.3g}"
    return f"  {line.what:44} {line.place:6} {value:>9} {line.unit:10} {ratio:28} {line.goal:32} {verdict}".rstrip()


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "python": f"{platform.python_version()} of {sys.base_prefix}",  # builds of one version differ by a fifth
        "system": platform.platform(),
        "load": os.getloadavg()[0],
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


# -- options and places ---------------------------------------------------------------------------------------------


def options(doc: str | None, *, jobs: int, repeat: int = 5) -> argparse.Namespace:
    """The options that every row has."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=jobs, help="how many (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=repeat, help="medians of so many runs (default: %(default)s)")
    parser.add_argument("--dir", type=Path, help="measure in this folder only, instead of on tmpfs and on disk")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the JSON goes (default: %(default)s)")
    return parser.parse_args()


def row(number: int, title: str, args: argparse.Namespace) -> Row:
    print(f"\nRow {number}: {title}", file=sys.stderr)
    chosen = {"jobs": args.jobs, "repeat": args.repeat, **({"dir": str(args.dir)} if args.dir else {})}
    return Row(number, title, args.results, chosen)


@contextlib.contextmanager
def places(args: argparse.Namespace) -> Iterator[dict[str, Path]]:
    """Fresh folders to measure in, by the name of their file system; removed afterwards."""
    parents = {"dir": args.dir} if args.dir else {"tmpfs": TMPFS, "disk": Path(tempfile.gettempdir())}
    with contextlib.ExitStack() as stack:
        yield {
            name: Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tea-bench-", dir=parent)))
            for name, parent in parents.items()
            if parent.is_dir() and os.access(parent, os.W_OK)
        }


def jobs_on(place: str, jobs: int) -> int:
    """Disks are slower, and get slower the more they have just removed: a tenth of the jobs there."""
    return max(jobs // 10, 1) if place == "disk" else jobs


@contextlib.contextmanager
def scratch(place: Path) -> Iterator[Path]:
    """A folder in a place, removed outside what is measured."""
    folder = Path(tempfile.mkdtemp(dir=place))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# -- measuring ------------------------------------------------------------------------------------------------------


def interleaved(row: Row, repeat: int, contenders: dict[str, Callable[[], float]]) -> dict[str, float]:
    """The median of each contender. They take turns, so that whoever else uses the machine disturbs all alike."""
    for _ in range(repeat):
        for name, measure in contenders.items():
            row.samples.setdefault(name, []).append(measure())
    return {name: statistics.median(row.samples[name]) for name in contenders}


def spread(row: Row, name: str) -> float:
    """The largest sample over the smallest: how noisy the machine was."""
    values = row.samples[name]
    return max(values) / min(values)


def seconds(action: Callable[[], Any]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def tea(
    *args: str | Path, cwd: Path, env: Mapping[str, str] | None = None, **more: Any
) -> subprocess.CompletedProcess[str]:
    """Run `tea ARGS` to its end, with more in its environment. Raises RuntimeError when it fails."""
    argv, env = [sys.executable, "-m", "tea", *map(str, args)], {**clean_env(), **(env or {})}
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False, env=env, **more)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: exit code {done.returncode}\n{done.stderr}")
    return done


def clean_env() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("TEA_")}


def run_peak(argv: list[str], cwd: Path) -> tuple[float, float]:
    """Seconds that a program took, and the most memory it had itself at any time, in MB (VmHWM of Linux)."""
    began = time.perf_counter()
    process = subprocess.Popen(
        argv, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=clean_env()
    )
    peak = 0.0
    while not _ended(process, 0.2):
        peak = max(peak, _high_water(process.pid))
    taken = time.perf_counter() - began
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: exit code {process.returncode}\n{process.communicate()[1]}")
    return taken, peak


def _ended(process: subprocess.Popen[str], patience: float) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    return process.returncode is not None


def _high_water(pid: int) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1000
    return 0.0
