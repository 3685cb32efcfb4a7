"""Writes the tables in `README.md` and `docs/benchmarks.md`, and draws the pictures, from `benchmarks/results/`.

No figure in the documentation is typed by hand.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS, IMAGES = ROOT / "benchmarks" / "results", ROOT / "docs" / "img"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
OURS, RECORDED, MEMORY = "#0b6e99", "#7b8794", "#cbd2d9"

Results = dict[int, dict[str, Any]]


def main() -> None:
    rows = results()
    replace(ROOT / "docs" / "benchmarks.md", "\n\n".join(section(row) for row in rows.values()))
    if 2 in rows:
        replace(ROOT / "README.md", short_table(rows[2]))
        draw_rates(rows[2])
    if 1 in rows:
        draw_phases(rows[1])


def results() -> Results:
    """What was measured, by the number of the row."""
    found = [json.loads(path.read_text()) for path in RESULTS.glob("row*.json")]
    return {row["number"]: row for row in sorted(found, key=lambda row: row["number"])}


def replace(path: Path, text: str) -> None:
    """Put a text between the markers of a page."""
    page = path.read_text(encoding="utf-8")
    inside = f"{BEGIN}\n\n{text}\n\n{END}"
    path.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: inside, page, flags=re.DOTALL), encoding="utf-8")


# -- tables ---------------------------------------------------------------------------------------------------------


def section(row: dict[str, Any]) -> str:
    """A row with all its lines."""
    machine = row["machine"]
    lines = [
        f"## Row {row['number']}: {row['title']}",
        "",
        "| | on | measured | beside | goal | reached |",
        "|---|---|---|---|---|---|",
        *(_table_row(line) for line in row["lines"]),
        "",
        *(f"{note}.\n" for note in row["notes"]),
        f"Measured {machine['when'][:10]} {conditions(machine)}",
    ]
    if row["number"] in PICTURES:
        lines += ["", f"![{row['title']}](img/{PICTURES[row['number']]})"]
    return "\n".join(lines)


def conditions(machine: dict[str, Any]) -> str:
    """What the machine was, and whether others used it."""
    text = f"on {machine['cpus']} CPUs, Python {machine['python']}, load average {machine['load']:.1f}"
    busy = "; other programs used the same CPUs meanwhile, so look at ratios" if machine["load"] > 3 else ""
    return f"{text}{busy}."


PICTURES = {1: "protocol.svg", 2: "rates.svg"}


def _table_row(line: dict[str, Any]) -> str:
    beside = f"{line['ratio']:.2f} x {line['peer']}" if line["ratio"] is not None else ""
    reached = {True: "yes", False: "**no**", None: ""}[line["ok"]]
    cells = (line["what"].strip(), line["place"], f"{number(line['value'])} {line['unit']}", beside, line["goal"])
    return "| " + " | ".join((*(cell.strip().replace("<", "&lt;") for cell in cells), reached)) + " |"


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def short_table(row: dict[str, Any]) -> str:
    """The rates on tmpfs, for the README."""
    machine = row["machine"]
    lines = rates(row)
    return "\n".join(
        [
            "| no-op jobs, 2 workers, tmpfs | jobs a second, with start-up | keeps a record | tea beside it |",
            "|---|---|---|---|",
            *(_short_row(line) for line in lines),
            "",
            f"Measured {conditions(machine)} A record of each job is what tea is for; "
            "what keeps none shows what that costs.",
        ]
    )


def rates(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The medians on tmpfs; lines that are indented say more about the one before."""
    return [line for line in row["lines"] if line["place"] != "disk" and not line["what"].startswith(" ")]


def _short_row(line: dict[str, Any]) -> str:
    ratio = f"{line['ratio']:.2g} x" if line["ratio"] is not None else ""
    return f"| {line['what'].split(',')[0]} | {number(line['value'])} | {_records(line['what'])} | {ratio} |"


def _records(name: str) -> str:
    return "no" if name.startswith(("ProcessPool", "executorlib")) else "yes"


# -- pictures -------------------------------------------------------------------------------------------------------


def _axes(bars: int) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"font.size": 10, "svg.hashsalt": "tea", "svg.fonttype": "none"})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 0.8 + 0.42 * bars), layout="constrained")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    return figure, axes


def _save(figure: Any, name: str) -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    figure.savefig(IMAGES / f"{name}.svg", metadata={"Date": None}, facecolor="white")


def draw_rates(row: dict[str, Any]) -> None:
    """Jobs a second, ours beside the peers', on tmpfs."""
    lines = sorted(rates(row), key=lambda line: -line["value"])
    names = [line["what"].split(",")[0] for line in lines]
    colours = [OURS if name == "tea run" else MEMORY if _records(name) == "no" else RECORDED for name in names]
    figure, axes = _axes(len(lines))
    bars = axes.barh(names, [line["value"] for line in lines], color=colours, height=0.65)
    axes.bar_label(bars, [number(line["value"]) for line in lines], padding=4)
    axes.margins(x=0.12)
    axes.set_xlabel("no-op jobs a second, start-up included; light: keeps no record")
    _save(figure, "rates")


def draw_phases(row: dict[str, Any]) -> None:
    """The protocol's phases beside the floor."""
    ratios = {line["place"]: line["ratio"] for line in row["lines"] if line["what"] == "protocol"}
    figure, axes = _axes(2 * len(ratios))
    for place, ratio in ratios.items():
        axes.barh(f"floor, {place}", 1.0, color=MEMORY, height=0.65)
        phases = [line for line in row["lines"] if line["place"] == place and line["what"].startswith(" ")]
        whole, left = sum(line["value"] for line in phases), 0.0
        for line, colour in zip(phases, (OURS, "#3d9dc4", "#9ccfe3"), strict=True):
            width = line["value"] / whole * ratio
            bar = axes.barh(f"protocol, {place}", width, left=left, color=colour, height=0.65)
            axes.bar_label(bar, [line["what"].strip() if width > 0.12 else ""], label_type="center", color="white")
            left += width
    axes.axvline(1.5, color="#52606d", linestyle="--", linewidth=1)
    axes.set_xlabel("time for a job, as a multiple of the floor; dashed: the goal")
    _save(figure, "protocol")


if __name__ == "__main__":
    main()
