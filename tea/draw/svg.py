"""A workflow as SVG: one file that needs nothing else, readable on light and dark ground."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from html import escape

from tea.draw.layers import Cell, Layout, layout
from tea.draw.picture import Arrow, Box, Picture

CHAR, LINE, PAD = 7.2, 17.0, 12.0
"""Width of a letter, height of a line, room around the text of a box; in pixels."""

GAP, BAND, MARGIN = 28.0, 46.0, 16.0

PILE = 8.0
"""How far the lowest card of a fan-out over data stands out."""

STYLE = """
  svg { background: #ffffff; }
  text { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #1f2933; }
  .detail { fill: #52606d; font-size: 12px; }
  .label { fill: #9a5b00; font-size: 12px; }
  .ground { fill: #ffffff; }
  .box { fill: #f5f7fa; stroke: #7b8794; stroke-width: 1.2; }
  .start, .end { fill: #e4e7eb; }
  .fan_out, .each { fill: #dff3fa; stroke: #0b6e99; }
  .fan_in { fill: #e6f6ec; stroke: #1b7f4b; }
  .loop { fill: #fdf3d8; stroke: #b7791f; }
  .arrow { fill: none; stroke: #7b8794; stroke-width: 1.3; }
  .when { stroke: #9a5b00; stroke-dasharray: 5 3; }
  .parallel { stroke: #0b6e99; stroke-width: 2.4; }
  .head { fill: #52606d; }
"""


def svg_text(drawn: Picture, style: str = STYLE) -> str:
    """The workflow as an SVG document. style: its CSS; none of its own for a page that brings one."""
    sizes = {box.name: _size(box) for box in drawn.boxes.values()}
    labels = {n: (len(arrow.label) * CHAR, LINE) for n, arrow in enumerate(drawn.arrows) if arrow.label}
    placed = layout(sizes, [(arrow.source, arrow.target) for arrow in drawn.arrows], labels, GAP)
    return "\n".join(_Drawing(drawn, placed).lines(style)) + "\n"


def _size(box: Box) -> tuple[float, float]:
    longest = max(len(box.title), *(len(line) for line in box.details), 3)
    return longest * CHAR + 2 * PAD + (8 if box.kind in ("fan_in", "fan_out", "loop") else 0), _height(box)


def _height(box: Box) -> float:
    return LINE * (1 + len(box.details)) + PAD


class _Drawing:
    """One drawing under way."""

    def __init__(self, drawn: Picture, placed: Layout) -> None:
        self.drawn, self.placed = drawn, placed
        self.tops: list[float] = []
        self.heights: list[float] = []
        y = MARGIN
        for keys in placed.layers:
            self.tops.append(y)
            self.heights.append(max(placed.cells[key].height for key in keys))
            labels_only = all(not placed.cells[key].is_box for key in keys)
            y += self.heights[-1] + (BAND * 0.6 if labels_only else BAND)
        self.height = (self.tops[-1] + self.heights[-1] if self.tops else 0.0) + MARGIN

    def lines(self, style: str) -> Iterator[str]:
        width = self.placed.width + 2 * MARGIN + 8
        size = f'width="{width:.0f}" height="{self.height:.0f}" viewBox="0 0 {width:.0f} {self.height:.0f}"'
        yield f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
        yield f"<title>{escape(self.drawn.title)}</title>"
        if style:
            yield f"<style>{style}</style>"
        for n, arrow in enumerate(self.drawn.arrows):
            yield from self._arrow(n, arrow)
        for cell in self.placed.cells.values():
            if cell.is_box:
                yield from self._box(cell, self.drawn.boxes[cell.key])
            elif cell.is_label:
                yield from self._label(cell)
        yield "</svg>"

    # -- boxes ----------------------------------------------------------------------------------------------

    def _middle(self, cell: Cell) -> float:
        return self.tops[cell.layer] + self.heights[cell.layer] / 2

    def _x(self, cell: Cell) -> float:
        return MARGIN + cell.x

    def _box(self, cell: Cell, box: Box) -> Iterator[str]:
        left, top = self._x(cell) - cell.width / 2, self._middle(cell) - cell.height / 2
        if box.kind == "each":  # a pile of cards: one for each item
            for shift in (PILE, PILE / 2):
                yield _rectangle(left + shift, top - shift, cell.width, cell.height, "box each", 4)
        yield _shape(box.kind, left, top, cell.width, cell.height)
        for n, line in enumerate((box.title, *box.details)):
            kind = "detail" if n else "title"
            y = top + PAD / 2 + LINE * (n + 0.75)
            at = f'x="{self._x(cell):.1f}" y="{y:.1f}" text-anchor="middle"'
            yield f'<text class="{kind}" {at}>{escape(line)}</text>'

    def _label(self, cell: Cell) -> Iterator[str]:
        text = escape(self.drawn.arrows[cell.arrow or 0].label)
        at = f'x="{self._x(cell):.1f}" y="{self._middle(cell) + 4:.1f}" text-anchor="middle"'
        left, top = self._x(cell) - cell.width / 2 - 3, self._middle(cell) - cell.height / 2
        yield _rectangle(left, top, cell.width + 6, cell.height, "ground", 3)
        yield f'<text class="label" {at}>{text}</text>'

    # -- arrows ---------------------------------------------------------------------------------------------

    def _arrow(self, n: int, arrow: Arrow) -> Iterator[str]:
        turned = n in self.placed.turned
        cells = [self.placed.cells[key] for key in self.placed.paths[n]]
        points = self._points(n, cells)
        path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
        for (x1, y1), (x2, y2) in itertools.pairwise(points):
            bend = (y2 - y1) / 2
            path += f" C{x1:.1f} {y1 + bend:.1f} {x2:.1f} {y2 - bend:.1f} {x2:.1f} {y2:.1f}"
        yield f'<path class="arrow {arrow.kind}" d="{path}"/>'
        (x, y), down = (points[0], -1) if turned else (points[-1], 1)
        yield f'<path class="head" d="M{x:.1f} {y:.1f} l-4.5 {-8 * down} h9 z"/>'

    def _points(self, n: int, cells: list[Cell]) -> list[tuple[float, float]]:
        """Where an arrow goes: from the lower edge of its upper box, through its cells, to the lower box."""
        upper, *between, lower = cells
        side = 14.0 if n in self.placed.turned else 0.0
        points = [(self._x(upper) + side, self._middle(upper) + upper.height / 2)]
        for cell in between:
            half = self.heights[cell.layer] / 2
            points += [(self._x(cell), self._middle(cell) - half), (self._x(cell), self._middle(cell) + half)]
        pile = PILE if not side and self.drawn.boxes[lower.key].kind == "each" else 0.0
        return [*points, (self._x(lower) + side, self._middle(lower) - lower.height / 2 - pile)]


def _rectangle(left: float, top: float, width: float, height: float, kind: str, radius: float) -> str:
    place = f'x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect class="{kind}" {place} rx="{radius:g}"/>'


def _shape(kind: str, left: float, top: float, width: float, height: float) -> str:
    """The outline of a box: branches leave a fan-out wider than they came, and enter a fan-in the other way."""
    right, bottom, cut = left + width, top + height, 8.0
    middle = (top + bottom) / 2
    corners = {
        "fan_out": ((left + cut, top), (right - cut, top), (right, bottom), (left, bottom)),
        "fan_in": ((left, top), (right, top), (right - cut, bottom), (left + cut, bottom)),
        "loop": (
            (left + cut, top),
            (right - cut, top),
            (right, middle),
            (right - cut, bottom),
            (left + cut, bottom),
            (left, middle),
        ),
    }.get(kind)
    if corners is None:
        return _rectangle(left, top, width, height, f"box {kind}", height / 2 if kind in ("start", "end") else 4)
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    return f'<polygon class="box {kind}" points="{points}"/>'
