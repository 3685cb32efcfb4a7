"""Drawing workflows: everything is in the picture, and nothing lies on anything else."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tea.dialect import load_text
from tea.draw import ascii_text, dot_text, mermaid_text, picture, svg_text
from tea.draw.canvas import Canvas
from tea.draw.layers import Layout, layout
from tea.draw.picture import Picture

FULL = """\
name: full
settings: {parallel: {strategy: process}}
nodes:
  - {name: load, run: 'return {}'}
  - {name: fix, run: 'return {}'}
  - {name: split, run: 'return {}'}
  - {name: branch_a, run: 'return {}'}
  - {name: branch_b, run: 'return {}'}
  - {name: inner_x, run: 'return {}'}
  - {name: inner_y, run: 'return {}'}
  - {name: inner_merge, fan_in: true, run: 'return {}'}
  - {name: merge, fan_in: true, run: 'return {}'}
  - name: each
    type: dynamic_parallel
    items: "{{ state.files }}"
    chunk_size: 10
    parallel_strategy: thread
    fan_in: collect
    action: {run: 'return {}'}
  - {name: collect, fan_in: true, run: 'return {}'}
  - name: poll
    type: while_loop
    condition: "state.left > 0"
    max_iterations: 5
    body: [{name: step, run: 'return {}'}]
    goto: [{if: "state.again < 1", to: poll}, {to: __end__}]
edges:
  - {from: __start__, to: load}
  - {from: load, to: fix, when: 'state.name == "x"'}
  - {from: load, to: split}
  - {from: fix, to: load}
  - {from: split, to: [branch_a, branch_b], parallel: true, fan_in: merge, parallel_strategy: thread}
  - {from: branch_a, to: merge}
  - {from: branch_b, to: [inner_x, inner_y], parallel: true, fan_in: inner_merge}
  - {from: inner_x, to: inner_merge}
  - {from: inner_y, to: inner_merge}
  - {from: inner_merge, to: merge}
  - {from: merge, to: each}
  - {from: collect, to: poll}
"""


@pytest.fixture(scope="module")
def full() -> Picture:
    return picture(load_text(FULL))


def test_every_part_is_in_the_picture(full: Picture) -> None:
    assert list(full.boxes) == [
        "__start__", "load", "fix", "split", "branch_a", "branch_b", "inner_x", "inner_y", "inner_merge", "merge",
        "each", "collect", "poll", "__end__",
    ]  # fmt: skip
    kinds = {name: box.kind for name, box in full.boxes.items()}
    assert (kinds["split"], kinds["merge"], kinds["each"], kinds["poll"]) == ("fan_out", "fan_in", "each", "loop")
    assert full.boxes["each"].details == ("for each of state.files", "thread, 10 items a job")
    assert full.boxes["split"].details == ("fans out: thread",)
    assert full.boxes["branch_b"].details == ("fans out: process",)
    assert full.boxes["poll"].details == ("while state.left > 0", "again if state.again < 1")
    arrows = {(arrow.source, arrow.target): (arrow.kind, arrow.label) for arrow in full.arrows}
    assert arrows["load", "fix"] == ("when", 'state.name == "x"')
    assert arrows["load", "split"] == ("when", "else")
    assert arrows["split", "branch_a"] == ("parallel", "")
    assert arrows["each", "collect"] == ("plain", "")


class TestAscii:
    def test_a_chain(self) -> None:
        drawn = picture(load_text("nodes:\n  - {name: one, run: 'return {}'}\n"))
        assert ascii_text(drawn).splitlines() == [
            "╭───────╮",
            "│ start │",
            "╰───┬───╯",
            "    │",
            "    ▼",
            " ┌─────┐",
            " │ one │",
            " └──┬──┘",
            "    │",
            "    ▼",
            " ╭─────╮",
            " │ end │",
            " ╰─────╯",
        ]

    def test_a_fan_out(self) -> None:
        drawn = picture(load_text(FULL))
        text = ascii_text(drawn)
        assert "╔═" in text
        assert "╦" in text
        assert '\n state.name == "x"'.strip("\n ") in text
        assert "▲" in text  # the loop comes back up

    def test_every_box_and_label_is_whole(self, full: Picture) -> None:
        text = ascii_text(full)
        for box in full.boxes.values():
            for line in (box.title, *box.details):
                assert re.search(rf"[│║] {re.escape(line)} +[│║]", text), line
        for arrow in full.arrows:
            assert arrow.label in text

    def test_only_ascii_where_nothing_else_is_wanted(self, full: Picture) -> None:
        text = ascii_text(full, plain=True)
        assert text.isascii()
        assert "| load  |" in text
        assert "?" not in text

    def test_lines_meet_in_the_right_character(self) -> None:
        canvas = Canvas()
        canvas.horizontal(1, 0, 4)
        canvas.vertical(2, 0, 2, double=True)
        assert canvas.text() == "  ║\n──╫──\n  ║\n"


class TestSvg:
    def test_is_xml_with_every_word(self, full: Picture) -> None:
        root = ElementTree.fromstring(svg_text(full))
        words = {element.text for element in root.iter() if element.tag.endswith("}text")}
        for box in full.boxes.values():
            assert {box.title, *box.details} <= words
        assert {arrow.label for arrow in full.arrows if arrow.label} <= words
        heads = [element for element in root.iter() if element.get("class") == "head"]
        assert len(heads) == len(full.arrows)

    def test_needs_nothing_else(self, full: Picture) -> None:
        assert "http" not in svg_text(full).replace("http://www.w3.org/2000/svg", "")


def test_mermaid(full: Picture) -> None:
    text = mermaid_text(full)
    assert text.startswith("flowchart TD\n")
    assert '-.->|"state.name == #quot;x#quot;"|' in text
    assert '[["each<br>for each of state.files<br>thread, 10 items a job"]]' in text
    assert text.count("==>") == 4
    assert "again if state.again #lt; 1" in text


def test_dot(full: Picture) -> None:
    text = dot_text(full)
    assert text.startswith('digraph "full" {\n')
    assert text.endswith("}\n")
    assert 'label="state.name == \\"x\\""' in text
    assert text.count("penwidth") == 4


# -- the layout of any graph ------------------------------------------------------------------------------------


@st.composite
def graphs(draw: st.DrawFn) -> tuple[dict[str, tuple[float, float]], list[tuple[str, str]], dict[int, Any]]:
    names = [f"n{n}" for n in range(draw(st.integers(1, 9)))]
    sizes = {name: (float(draw(st.sampled_from([5, 9, 21]))), float(draw(st.integers(3, 5)))) for name in names}
    pairs = [(a, b) for a, b in itertools.product(names, names) if a != b]
    arrows = draw(st.lists(st.sampled_from(pairs), max_size=16)) if pairs else []
    labels = {n: (7.0, 1.0) for n in range(len(arrows)) if draw(st.booleans())}
    return sizes, arrows, labels


@given(graphs())
def test_nothing_lies_on_anything_else(graph: tuple[Any, Any, Any]) -> None:
    sizes, arrows, labels = graph
    placed = layout(sizes, arrows, labels, gap=3)
    check_layers(placed)
    for n, (a, b) in enumerate(arrows):
        path = placed.paths[n]
        assert {path[0], path[-1]} == {a, b}
        assert [placed.cells[key].layer for key in path] == list(
            range(placed.cells[path[0]].layer, placed.cells[path[-1]].layer + 1)
        )
        assert sum(placed.cells[key].is_label for key in path) == (n in labels)


def check_layers(placed: Layout) -> None:
    for layer in placed.layers:
        cells = [placed.cells[key] for key in layer]
        for left, right in itertools.pairwise(cells):
            assert left.x + left.width / 2 < right.x - right.width / 2
        assert all(cell.x - cell.width / 2 >= -1e-6 for cell in cells)


@given(st.integers(1, 40))
def test_a_wide_fan_out_is_not_tangled(width: int) -> None:
    sizes = dict.fromkeys(["top", *(f"b{n}" for n in range(width)), "bottom"], (5.0, 3.0))
    arrows = [("top", f"b{n}") for n in range(width)] + [(f"b{n}", "bottom") for n in range(width)]
    placed = layout(sizes, arrows, {}, gap=3)
    assert placed.layers[1] == [f"b{n}" for n in range(width)]
