"""Places for boxes and arrows: a layered layout, top to bottom.

After Sugiyama, Tagawa and Toda (1981): arrows that close a cycle are turned round, boxes get layers by their longest
way from the start, long arrows get a point in every layer that they pass, layers are ordered by barycentres, and
x coordinates follow from their neighbours' (least squares under the order, by pooling adjacent violators). A label is
a cell of its own in the middle of its arrow, so that no text lies on another.

Knows only names and sizes; what units they are in is the caller's business.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

SWEEPS = 8


@dataclass(slots=True)
class Cell:
    """A box, a label (`arrow` set) or a point that a long arrow passes (`arrow` set, no size). x: its centre."""

    key: str
    width: float
    height: float
    arrow: int | None = None
    is_label: bool = False
    layer: int = 0
    x: float = 0.0

    @property
    def is_box(self) -> bool:
        return self.arrow is None


@dataclass(slots=True)
class Layout:
    """cells by key. layers: keys from left to right. paths: of each arrow the cells from its upper to its lower end.

    turned: arrows whose lower end is their source.
    """

    cells: dict[str, Cell] = field(default_factory=dict)
    layers: list[list[str]] = field(default_factory=list)
    paths: dict[int, list[str]] = field(default_factory=dict)
    turned: set[int] = field(default_factory=set)

    def segments(self, layer: int) -> list[tuple[int, str, str]]:
        """The pieces of arrows between a layer and the next: arrow, upper cell, lower cell."""
        return [
            (arrow, a, b)
            for arrow, path in self.paths.items()
            for a, b in itertools.pairwise(path)
            if self.cells[a].layer == layer
        ]

    @property
    def width(self) -> float:
        return max((cell.x + cell.width / 2 for cell in self.cells.values()), default=0.0)


def layout(
    sizes: Mapping[str, tuple[float, float]],
    arrows: Sequence[tuple[str, str]],
    labels: Mapping[int, tuple[float, float]],
    gap: float,
) -> Layout:
    """Lay out boxes and arrows.

    Args:
        sizes: width and height of each box, in the order in which they are best drawn.
        arrows: source and target of each; never the same box.
        labels: width and height of the labels that arrows have.
        gap: least room between neighbours in a layer.
    """
    result = Layout({key: Cell(key, *size) for key, size in sizes.items()})
    result.turned = _turned(sizes, arrows)
    ways = [(b, a) if n in result.turned else (a, b) for n, (a, b) in enumerate(arrows)]
    _rank(result, ways, labels)
    _insert_points(result, ways, labels)
    _order(result)
    _place(result, gap)
    return result


def _turned(sizes: Iterable[str], arrows: Sequence[tuple[str, str]]) -> set[int]:
    """The arrows that close a cycle, found by a walk in depth, in the order of the boxes."""
    out: dict[str, list[int]] = {}
    for n, (a, _) in enumerate(arrows):
        out.setdefault(a, []).append(n)
    turned: set[int] = set()
    state: dict[str, int] = {}
    for root in sizes:
        stack = [(root, iter(out.get(root, ())))] if root not in state else []
        state.setdefault(root, 1)
        while stack:
            key, rest = stack[-1]
            arrow = next(rest, None)
            if arrow is None:
                state[key] = 2
                stack.pop()
                continue
            target = arrows[arrow][1]
            if state.get(target) == 1:
                turned.add(arrow)
            elif target not in state:
                state[target] = 1
                stack.append((target, iter(out.get(target, ()))))
    return turned


def _rank(result: Layout, ways: Sequence[tuple[str, str]], labels: Mapping[int, object]) -> None:
    """Longest way from the top; a label takes a layer of its own."""
    arriving: dict[str, list[tuple[str, int]]] = {}
    for n, (a, b) in enumerate(ways):
        arriving.setdefault(b, []).append((a, 2 if n in labels else 1))
    known: dict[str, int] = {}

    def rank(key: str) -> int:
        if key not in known:
            known[key] = max((rank(above) + step for above, step in arriving.get(key, ())), default=0)
        return known[key]

    for key, cell in result.cells.items():
        cell.layer = rank(key)


def _insert_points(
    result: Layout, ways: Sequence[tuple[str, str]], labels: Mapping[int, tuple[float, float]]
) -> None:
    for n, (a, b) in enumerate(ways):
        top, bottom = result.cells[a].layer, result.cells[b].layer
        middle = (top + bottom) // 2 if n in result.turned else top + 1
        path = [a]
        for layer in range(top + 1, bottom):
            is_label = n in labels and layer == middle
            size = labels[n] if is_label else (1.0, 0.0)
            cell = Cell(f"{n}.{layer}", *size, arrow=n, is_label=is_label, layer=layer)
            result.cells[cell.key] = cell
            path.append(cell.key)
        result.paths[n] = [*path, b]


# -- order in a layer -------------------------------------------------------------------------------------------


def _order(result: Layout) -> None:
    depth = max((cell.layer for cell in result.cells.values()), default=-1) + 1
    result.layers = [[] for _ in range(depth)]
    for key in _as_reached(result):
        result.layers[result.cells[key].layer].append(key)
    above, below = _neighbours(result)
    best, fewest = [list(layer) for layer in result.layers], _crossings(result, below)
    for sweep in range(SWEEPS):
        if fewest == 0:
            break
        down = sweep % 2 == 0
        for layer in range(1, depth) if down else range(depth - 2, -1, -1):
            _by_barycentre(result.layers, layer, layer - 1 if down else layer + 1, above if down else below)
        crossings = _crossings(result, below)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in result.layers], crossings
    result.layers = best


def _as_reached(result: Layout) -> list[str]:
    """All cells in the order in which a walk in depth meets them: neighbours begin next to each other."""
    _, below = _neighbours(result)
    seen: dict[str, None] = {}
    for root in result.cells:
        waiting = [root]
        while waiting:
            key = waiting.pop()
            if key not in seen:
                seen[key] = None
                waiting.extend(reversed(below.get(key, [])))
    return list(seen)


def _neighbours(result: Layout) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    above: dict[str, list[str]] = {}
    below: dict[str, list[str]] = {}
    for path in result.paths.values():
        for a, b in itertools.pairwise(path):
            below.setdefault(a, []).append(b)
            above.setdefault(b, []).append(a)
    return above, below


def _by_barycentre(layers: list[list[str]], layer: int, fixed: int, near: Mapping[str, list[str]]) -> None:
    place = {key: n for n, key in enumerate(layers[fixed])}
    here = {key: n for n, key in enumerate(layers[layer])}

    def weight(key: str) -> tuple[float, int]:
        known = [place[other] for other in near.get(key, ()) if other in place]
        return (sum(known) / len(known) if known else here[key], here[key])

    layers[layer].sort(key=weight)


def _crossings(result: Layout, below: Mapping[str, list[str]]) -> int:
    count = 0
    for upper, lower in itertools.pairwise(result.layers):
        place = {key: n for n, key in enumerate(lower)}
        ends = [(n, place[other]) for n, key in enumerate(upper) for other in below.get(key, ()) if other in place]
        count += sum((a[0] - b[0]) * (a[1] - b[1]) < 0 for a, b in itertools.combinations(ends, 2))
    return count


# -- x coordinates ----------------------------------------------------------------------------------------------


def _place(result: Layout, gap: float) -> None:
    above, below = _neighbours(result)
    for layer in result.layers:
        _settle(result, layer, {}, gap)
    for sweep in range(SWEEPS):
        near = above if sweep % 2 == 0 else below
        order = result.layers if sweep % 2 == 0 else list(reversed(result.layers))
        for layer in order:
            _settle(result, layer, near, gap)
    for near, order in ((above, result.layers), (below, list(reversed(result.layers)))):
        for layer in order:
            _straighten(result, layer, near, gap)
    left = min((cell.x - cell.width / 2 for cell in result.cells.values()), default=0.0)
    for cell in result.cells.values():
        cell.x -= left


def _settle(result: Layout, layer: Sequence[str], near: Mapping[str, list[str]], gap: float) -> None:
    """Move the cells of a layer as close to their neighbours' centres as order and gaps allow."""
    cells = [result.cells[key] for key in layer]
    wanted = [_mean([result.cells[other].x for other in near.get(cell.key, ())], cell.x) for cell in cells]
    offsets, total = [], 0.0
    for before, cell in zip([None, *cells], cells, strict=False):
        total += _apart(before, cell, gap) if before is not None else 0.0
        offsets.append(total)
    places = _isotonic([want - offset for want, offset in zip(wanted, offsets, strict=True)])
    for cell, place, offset in zip(cells, places, offsets, strict=True):
        cell.x = place + offset


def _apart(left: Cell, right: Cell, gap: float) -> float:
    """The least distance of two neighbours' centres; lines alone may be closer to each other than boxes."""
    lines = not (left.is_box or left.is_label or right.is_box or right.is_label)
    return (left.width + right.width) / 2 + (gap / 2 if lines else gap)


def _straighten(result: Layout, layer: Sequence[str], near: Mapping[str, list[str]], gap: float) -> None:
    """Put cells with one neighbour exactly below (or above) it where there is room: no line is bent a little."""
    cells = [result.cells[key] for key in layer]
    for n, cell in enumerate(cells):
        others = near.get(cell.key, ())
        if len(others) != 1:
            continue
        wanted = result.cells[others[0]].x
        if n and wanted - cells[n - 1].x < _apart(cells[n - 1], cell, gap):
            continue
        if n + 1 < len(cells) and cells[n + 1].x - wanted < _apart(cell, cells[n + 1], gap):
            continue
        cell.x = wanted


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default


def _isotonic(values: Sequence[float]) -> list[float]:
    """The nearest sequence that never falls (least squares): pool adjacent violators."""
    pools: list[tuple[float, int]] = []
    for value in values:
        pools.append((value, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (b, n), (a, m) = pools.pop(), pools.pop()
            pools.append(((a * m + b * n) / (m + n), m + n))
    return [value for value, count in pools for _ in range(count)]
