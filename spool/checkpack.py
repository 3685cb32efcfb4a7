"""Packed runs: can they be read, and what have those left who packed, unpacked or removed runs and were killed?"""

from __future__ import annotations

import os
import re
import shlex

from spool.errors import CorruptFileError, ForeignFileError, SpoolError
from spool.examination import Examination
from spool.layout import REMOVED, UNPACKING, is_name
from spool.pack import Pack
from spool.packing import alone

_PACK = re.compile(r"(.+)\.zip")


def check_packs(exam: Examination) -> None:
    """All packs of a spool: quickly what they say of themselves, thoroughly all that is in them."""
    folder = exam.spool.packed
    for name, status in sorted(exam.entries(folder, exam.findings, live=True).items()):
        match, path = _PACK.fullmatch(name), f"{folder}/{name}"
        if path == exam.spool.packing_lock:
            continue
        if match is None or not is_name(match[1]):
            exam.name_is_wrong(path)
        elif exam.must_be(exam.findings, "file", path, status):
            exam.findings.counts["packs"] += 1
            _pack(exam, path, match[1])


def _pack(exam: Examination, path: str, run: str) -> None:
    try:
        with Pack(path) as pack:
            if pack.name != run:
                remedy = f"mv {shlex.quote(path)} {shlex.quote(exam.spool.pack(pack.name))}"
                exam.findings.error("pack", path, f"it is the pack of another run, {pack.name}", remedy)
            elif not exam.quick:
                for number in pack.numbers:
                    pack.seal(number)
                    pack.briefs(number)
    except (CorruptFileError, ForeignFileError) as error:
        remedy = "put back a copy, if there is one"
        if os.path.lexists(exam.spool.run(run).path):
            remedy = f"remove it: the run's folder is there, and `tea spool pack {run}` makes another"
        exam.findings.error("pack", path, error.why, remedy)
    except (SpoolError, OSError) as error:
        exam.findings.error("pack", path, str(error), f"ls -l {shlex.quote(path)}")


def is_leftover(exam: Examination, name: str, status: os.stat_result) -> bool:
    """Whether this stands among the runs while one is unpacked or removed; a finding when nobody is at it now."""
    if not REMOVED.fullmatch(name) and not UNPACKING.fullmatch(name):
        return False
    if not exam.is_young(status):
        text = "left by who unpacked or removed a run and was killed; nobody reads it"
        exam.findings.warning("leftover", f"{exam.spool.runs}/{name}", text, "", lambda: _clear_up(exam))
    return True


def _clear_up(exam: Examination) -> bool:
    with alone(exam.spool):
        return True
