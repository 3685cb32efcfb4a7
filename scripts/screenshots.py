"""Make the pictures of the documentation anew: `python scripts/screenshots.py` writes docs/images/.

Runs a workflow on three hosts, with failures, retries, timeouts and a host that dies, and takes pictures of its
report in a real browser and of what the terminal shows. The hosts are this machine under other names, and the folder
of the run is one that only this program sees (`unshare`, so it has to be run by root); everything else is real.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from PIL import Image  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.text import Text  # noqa: E402

from tests.browser import Browser, Page, program  # noqa: E402
from tests.support import wait_until  # noqa: E402

IMAGES = ROOT / "docs" / "images"

FOLDER = Path("/srv/survey")
"""Where the run is, on a file system that is gone when this program ends."""

WORKFLOW = """\
name: survey
description: Count the trees on aerial photographs.
settings:
  spool: {lease_duration: 2}
  parallel: {strategy: workers, timeout_seconds: 1.2, retry: {max_retries: 2, base_delay: 0.1}}
nodes:
  - name: list_photos
    run: 'return {"photos": [f"photo-{n:04d}.tif" for n in range(480)]}'
  - name: count_trees
    type: dynamic_parallel
    items: "{{ state.photos }}"
    fan_in: total
    action:
      run: |
        import random, sys, time
        number = int(state["item"][6:10])
        chance = random.Random(number)
        print(f"reading {state['item']}")
        seconds = chance.lognormvariate(-2.1, 0.55)
        print(f"{1000 + chance.randrange(9000)} contours, threshold 0.{chance.randrange(40, 60)}")
        if number % 97 == 13:
            print("waiting for the lens profile server", file=sys.stderr)
            time.sleep(30)
        time.sleep(seconds)
        if number % 41 == 7:
            raise ValueError(f"{state['item']}: not a TIFF file, or cut short after {chance.randrange(9000)} bytes")
        if number % 89 == 31:
            raise MemoryError(f"cannot hold {chance.randrange(3, 9)} layers of {state['item']}")
        if chance.random() < 0.05 and random.random() < 0.6:
            raise ConnectionError("lens profile server: connection reset by peer")
        print(f"done after {seconds:.2f} s")
        return {"trees": chance.randrange(20, 900)}
  - name: total
    fan_in: true
    run: |
      return {"trees": sum(r.state["trees"] for r in parallel_results if r.success), "photos": None}
  - {name: chart, run: 'import time; time.sleep(0.8); return {"chart": "trees.svg"}'}
  - {name: table, run: 'import time; time.sleep(0.3); return {"table": "trees.csv"}'}
  - {name: map, run: 'import time; time.sleep(0.5); raise OSError(28, "No space left on device: trees.geojson")'}
  - {name: publish, fan_in: true, run: 'return {"files": sum(r.success for r in parallel_results)}'}
edges:
  - {from: __start__, to: list_photos}
  - {from: list_photos, to: count_trees}
  - {from: total, to: [chart, table, map], parallel: true, fan_in: publish, parallel_strategy: process}
  - {from: publish, to: __end__}
"""

ENVIRONMENT = {**os.environ, "LOGNAME": "alice", "COLUMNS": "110"}
HOSTS = {"birch": 5, "maple": 5, "willow": 4}
"""Hosts and their slots; the last one dies."""


def on(host: str, *words: str, **options: object) -> subprocess.Popen[bytes]:
    """Start `tea` on a host."""
    script = f'hostname {host}; exec "$@"'
    argv = ["unshare", "--uts", "sh", "-c", script, "sh", sys.executable, "-m", "tea", *words]
    return subprocess.Popen(argv, env=ENVIRONMENT, start_new_session=True, **options)  # type: ignore[call-overload, no-any-return]


def run_demo() -> None:
    """Run the workflow; one host dies in the middle."""
    FOLDER.mkdir(mode=0o700)
    (FOLDER / "survey.yaml").write_text(WORKFLOW)
    jobs = ".tea/spool/runs/*/fanouts/*"
    quiet = {"cwd": FOLDER, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    driver = on("birch", "run", "survey.yaml", "--progress", "none", **quiet)
    wait_until(lambda: any(FOLDER.glob(f"{jobs}/todo/*")), what="jobs")
    workers = [on(host, "worker", "--slots", str(n), "--follow", **quiet) for host, n in HOSTS.items()]
    wait_until(lambda: len(list(FOLDER.glob(f"{jobs}/done/*"))) > 200, what="200 jobs to end")
    os.killpg(workers[-1].pid, signal.SIGKILL)
    driver.wait(timeout=300)
    for worker in workers:
        if worker.poll() is None:
            os.killpg(worker.pid, signal.SIGTERM)
        worker.wait(timeout=60)


def tea(*words: str) -> str:
    """What `tea` prints."""
    done = on("birch", *words, cwd=FOLDER, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = done.communicate(timeout=120)
    if done.returncode:
        raise SystemExit(f"tea {' '.join(words)}: {err.decode()}")
    return out.decode()


def terminal(path: Path, command: str, text: str) -> None:
    """A picture of a terminal."""
    console = Console(width=124, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(Text(f"$ {command}\n", style="bold"), Text(text.rstrip()), soft_wrap=False, sep="")
    path.write_text(console.export_svg(title=command, clear=False))


def smaller(path: Path, colours: int = 255) -> None:
    """Fewer colours: a picture of text needs no more."""
    picture = Image.open(path).convert("RGB").quantize(colours, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)


def pictures(browser: Browser, report: Path) -> None:
    """The report, light and dark, on a screen and on a phone."""
    page = browser.page(report, 1280, 1190)
    page.picture(IMAGES / "report.png")
    page.look(1280, 860)
    show(page, "#timeline", "report-timeline.png")
    show(page, "#failures", "report-failures.png")
    page.close()

    page = browser.page(report, 1280, 860, dark=True)
    page.click("#filters [value=failed]")
    show(page, "#jobs", "report-jobs.png")
    page.click("#table tbody tr:nth-child(2) a")
    page.picture(IMAGES / "report-job.png")
    page.close()

    page = browser.page(report, 390, 800, touch=True, scale=2)
    page.picture(IMAGES / "report-phone.png")
    page.close()


def show(page: Page, selector: str, name: str) -> None:
    page.js(f"document.querySelector('{selector}').scrollIntoView(); scrollBy(0, 8)")
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    page.picture(IMAGES / name)


def main() -> None:
    path = program()
    if path is None or os.geteuid() != 0:
        raise SystemExit("needs Chromium, and root (for `unshare`)")
    if "--inside" not in sys.argv:
        os.execvp("unshare", ["unshare", "--mount", sys.executable, __file__, "--inside"])
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(FOLDER.parent)], check=True)
    IMAGES.mkdir(exist_ok=True)
    run_demo()
    tea("spool", "report")
    with Browser(path) as browser:
        pictures(browser, FOLDER / "report.html")
    for name in IMAGES.glob("report*.png"):
        smaller(name)
    jobs = json.loads(tea("spool", "report", "--json"))["jobs"]
    lost = next(job["job"] for job in jobs if any(one["outcome"] == "lost" for one in job["attempts"]))
    for verb, *words in (["status"], ["explain", lost]):
        command = ["spool", verb, *words]
        terminal(IMAGES / f"{verb}.svg", " ".join(["tea", *command]), tea(*command))
    if keep := os.environ.get("KEEP"):
        shutil.copytree(FOLDER, keep, symlinks=True, dirs_exist_ok=True)


if __name__ == "__main__":
    main()
