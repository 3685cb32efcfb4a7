"""A program that used processes, with a record of each of its calls: only the executor is another one.

    python executor.py

A log is cut into chunks, and each chunk is counted in another process. One line is broken, so one chunk fails: see
`tea spool list --state failed`, and what it read with `tea spool show 7`.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import as_completed

from tea import SpoolExecutor  # was: from concurrent.futures import ProcessPoolExecutor

LOG = [f"{('GET', 'PUT')[number % 2]} /page/{number % 7} {200 + number % 3}" for number in range(1000)]
LOG[777] = "GET"


def count(lines: list[str]) -> dict[str, int]:
    """How often each status occurs."""
    return dict(Counter(line.split()[2] for line in lines))


def main() -> None:
    chunks = [LOG[start : start + 100] for start in range(0, len(LOG), 100)]
    total: Counter[str] = Counter()
    with SpoolExecutor(max_workers=2) as executor:  # was: ProcessPoolExecutor(max_workers=2)
        futures = {executor.submit(count, chunk): number for number, chunk in enumerate(chunks)}
        for future in as_completed(futures):
            try:
                total.update(future.result())
            except IndexError as error:
                print(f"chunk {futures[future]} failed: {error}; see {future.job.name}")
    print(dict(sorted(total.items())))

    (job,) = executor.run.jobs(state="failed")
    fixed = [line for line in job.input["args"][0] if len(line.split()) == 3]
    again = job.replay(set={"args": [fixed]})  # apart from the record, with another input
    print("without the broken line:", dict(sorted(again.result["state"]["result"].items())))


if __name__ == "__main__":
    main()
