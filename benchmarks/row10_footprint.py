"""Row 10: what a job that does nothing leaves on the disk.

Files: the names in its directory. Bytes: what is in its files; and, beside it, the blocks that the file system gave
for that, which on most disks are 4 KiB at least for each file and folder. Files that jobs share by links count once.
"""

from __future__ import annotations

import os
import stat
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import harness

FILES, BYTES, PACKED = 7, 8 * 1024, 300


def main() -> None:
    args = harness.options(__doc__, jobs=1_000, repeat=1)
    row = harness.row(10, "files and bytes of a no-op job", args)
    with harness.places(args) as places:
        for place, folder in places.items():
            measure(row, args, place, folder)
    row.finish()


def measure(row: harness.Row, args: Namespace, place: str, folder: Path) -> None:
    workflow = Path(__file__).with_name("noop.yaml")
    with harness.scratch(folder) as root:
        harness.tea("run", workflow, "--input", f'{{"jobs": {args.jobs}}}', "--spool", "spool", cwd=root)
        (fanout,) = root.glob("spool/runs/*/fanouts/*")
        job = next((fanout / "jobs").iterdir())
        names = sorted(os.listdir(job))
        files, size, blocks = len(names), _bytes(fanout) / args.jobs, _blocks(fanout) / args.jobs
        row.add("names in a job directory", files, "files", place=place, goal=f"<= {FILES}", ok=files <= FILES)
        row.add("bytes in its files", size, "bytes", place=place, goal=f"<= {BYTES:,} bytes", ok=size <= BYTES)
        row.add("blocks on the disk", blocks, "bytes", place=place)
        row.note(f"{place}: {', '.join(names)}")
        _packed(row, args, place, root)


def _bytes(folder: Path) -> int:
    """What is in the files below, and in the texts of symbolic links; each inode once."""
    files = (status for status in _statuses(folder) if not stat.S_ISDIR(status.st_mode))
    return sum({status.st_ino: status.st_size for status in files}.values())


def _blocks(folder: Path) -> int:
    """What files and folders below take on the disk, each inode once."""
    return sum({status.st_ino: status.st_blocks * 512 for status in _statuses(folder)}.values())


def _statuses(folder: Path) -> Iterator[os.stat_result]:
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            yield os.lstat(os.path.join(parent, name))


def _packed(row: harness.Row, args: Namespace, place: str, root: Path) -> None:
    harness.tea("spool", "pack", "--spool", "spool", cwd=root)
    (pack,) = root.glob("spool/packed/*.zip")
    size = pack.stat().st_size / args.jobs
    row.add("bytes of a job, packed", size, "bytes", place=place, goal=f"<= {PACKED} bytes", ok=size <= PACKED)


if __name__ == "__main__":
    main()
