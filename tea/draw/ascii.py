"""A workflow as text for the terminal.

Single lines go from node to node, double ones begin branches; a condition stands in its arrow. Between two layers
every group of arrows that share an end has a row (track) of its own, so that no two are mistaken for each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tea.draw.canvas import Canvas
from tea.draw.layers import Cell, Layout, layout
from tea.draw.picture import Box, Picture

GAP = 3
"""Columns between neighbours."""


def ascii_text(drawn: Picture, plain: bool = False) -> str:
    """The workflow as lines of text. plain: only letters of ASCII, for terminals without box drawing."""
    sizes = {box.name: _size(_lines(box)) for box in drawn.boxes.values()}
    labels = {n: (_odd(len(arrow.label)), 1) for n, arrow in enumerate(drawn.arrows) if arrow.label}
    placed = layout(sizes, [(arrow.source, arrow.target) for arrow in drawn.arrows], labels, GAP)
    return _Drawing(drawn, placed).text(plain)


def _lines(box: Box) -> list[str]:
    return [box.title, *box.details]


def _size(lines: Sequence[str]) -> tuple[float, float]:
    return _odd(max(map(len, lines)) + 4), len(lines) + 2


def _odd(width: int) -> int:
    """An odd width has a middle column."""
    return width + 1 - width % 2


@dataclass(slots=True)
class _Track:
    """Arrows between two layers that share a row: where they come from and go to, as columns."""

    sources: set[int] = field(default_factory=set)
    targets: set[int] = field(default_factory=set)
    pieces: list[tuple[int, str, str]] = field(default_factory=list)
    double: bool = False
    row: int = 0

    @property
    def left(self) -> int:
        return min(self.sources | self.targets)

    @property
    def right(self) -> int:
        return max(self.sources | self.targets)

    @property
    def straight(self) -> bool:
        return self.left == self.right


class _Drawing:
    """One drawing under way."""

    def __init__(self, drawn: Picture, placed: Layout) -> None:
        self.drawn, self.placed = drawn, placed
        self.canvas = Canvas()
        self.bands = [self._tracks(layer) for layer in range(len(placed.layers))]
        self.tops = self._rows()

    def text(self, plain: bool) -> str:
        for cell in self.placed.cells.values():
            self._draw_cell(cell)
        for layer, band in enumerate(self.bands):
            for track in band:
                self._draw_track(layer, track)
        return self.canvas.text(plain)

    # -- places ---------------------------------------------------------------------------------------------

    def _left(self, cell: Cell) -> int:
        return int(cell.x - cell.width / 2 + 0.5)

    def _port(self, arrow: int, cell: Cell) -> int:
        """The column in which an arrow touches a cell: the middle; arrows back up keep to the right of boxes."""
        width = int(cell.width)
        return self._left(cell) + (width - 2 if cell.is_box and arrow in self.placed.turned else width // 2)

    def _rows(self) -> list[int]:
        """The first row of each layer."""
        tops, row = [], 0
        for layer, keys in enumerate(self.placed.layers):
            tops.append(row)
            row += int(max(self.placed.cells[key].height for key in keys)) + self._band_height(layer)
        return tops

    def _band_height(self, layer: int) -> int:
        rows = max((track.row + 1 for track in self.bands[layer]), default=0)
        return self._head_room(layer) + max(rows, 1) + 1

    def _head_room(self, layer: int) -> int:
        """A row for the heads of arrows that come back up to a box of this layer."""
        pieces = self.placed.segments(layer)
        return int(any(arrow in self.placed.turned and self.placed.cells[a].is_box for arrow, a, _ in pieces))

    # -- tracks ---------------------------------------------------------------------------------------------

    def _tracks(self, layer: int) -> list[_Track]:
        pieces = self.placed.segments(layer)
        ports = [(self._end(arrow, a), self._end(arrow, b)) for arrow, a, b in pieces]
        tracks = [self._track([pieces[n] for n in group]) for group in _groups(ports)]
        _give_rows(tracks)
        return tracks

    def _end(self, arrow: int, key: str) -> tuple[str, int]:
        """A cell and the column in which an arrow touches it."""
        return key, self._port(arrow, self.placed.cells[key])

    def _track(self, pieces: list[tuple[int, str, str]]) -> _Track:
        track = _Track(pieces=pieces)
        for arrow, a, b in pieces:
            track.sources.add(self._port(arrow, self.placed.cells[a]))
            track.targets.add(self._port(arrow, self.placed.cells[b]))
        track.double = all(self.drawn.arrows[arrow].kind == "parallel" for arrow, _, _ in pieces)
        return track

    # -- drawing --------------------------------------------------------------------------------------------

    def _draw_cell(self, cell: Cell) -> None:
        row, left = self.tops[cell.layer], self._left(cell)
        if cell.is_label:
            self.canvas.write(row, left, self.drawn.arrows[cell.arrow or 0].label)
        elif cell.is_box:
            box = self.drawn.boxes[cell.key]
            heavy, soft = box.kind in ("fan_out", "each"), box.kind in ("start", "end")
            self.canvas.box(row, left, int(cell.width), int(cell.height), double=heavy, round=soft)
            for n, line in enumerate(_lines(box)):
                self.canvas.write(row + 1 + n, left + 2, line)

    def _draw_track(self, layer: int, track: _Track) -> None:
        band = self.tops[layer + 1] - self._band_height(layer)
        row = band + self._head_room(layer) + track.row
        if not track.straight:
            self.canvas.horizontal(row, track.left, track.right, track.double)
        for arrow, a, b in track.pieces:
            self._draw_piece(arrow, self.placed.cells[a], self.placed.cells[b], row, track.double)

    def _draw_piece(self, arrow: int, upper: Cell, lower: Cell, row: int, double: bool) -> None:
        turned = arrow in self.placed.turned
        start, end = self._port(arrow, upper), self._port(arrow, lower)
        top, bottom = self.tops[upper.layer], self.tops[lower.layer]
        if upper.is_box:
            top += int(upper.height) - 1
        if turned and upper.is_box:
            top += 1
            self.canvas.write(top, start, "▲")
        if lower.is_box and not turned:
            bottom -= 1
            self.canvas.write(bottom, end, "▼")
        self.canvas.vertical(start, top, row, double)
        self.canvas.vertical(end, row, bottom, double)


_End = tuple[str, int]


def _groups(ends: Sequence[tuple[_End, _End]]) -> list[list[int]]:
    """Arrows that may share a row: all that leave one place, or all that arrive at one and come from nowhere else."""
    leaving = Counter(a for a, _ in ends)
    arriving = Counter(b for _, b in ends)
    alone = {b: all(leaving[a] == 1 for a, other in ends if other == b) for b in arriving}
    groups: dict[tuple[str, _End], list[int]] = {}
    for n, (a, b) in enumerate(ends):
        key = ("to", b) if arriving[b] > 1 and alone[b] else ("from", a)
        groups.setdefault(key, []).append(n)
    return list(groups.values())


def _give_rows(tracks: list[_Track]) -> None:
    """Give each track the first row in which it meets no other, and no line of another lies on one of its own.

    Where one track leaves in the column in which another arrives, the first must lie above the second.
    """
    waiting = sorted((track for track in tracks if not track.straight), key=lambda track: (track.left, track.right))
    done: list[_Track] = []
    while waiting:
        track = next((one for one in waiting if not _must_wait(one, waiting)), waiting[0])
        waiting.remove(track)
        below = [other.row + 1 for other in done if _is_above(other, track)]
        track.row = max(below, default=0)
        while any(other.row == track.row and _meet(other, track) for other in done):
            track.row += 1
        done.append(track)


def _is_above(one: _Track, other: _Track) -> bool:
    return not one.sources.isdisjoint(other.targets)


def _must_wait(one: _Track, waiting: list[_Track]) -> bool:
    return any(other is not one and _is_above(other, one) for other in waiting)


def _meet(one: _Track, other: _Track) -> bool:
    return one.left <= other.right + 1 and other.left <= one.right + 1
