"""A histogram of durations as SVG, coloured by the style of the page."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape

from tools.reporting.record import STATES
from tools.reporting.spans import span
from tools.reporting.totals import Bucket, Histogram

WIDTH, HEIGHT = 560.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 12.0, 14.0, 26.0
"""Room around the bars, in units of the drawing."""

LINES = 5
"""Lines of the scale at most."""


def bars(found: Histogram, title: str, fanout: int) -> str:
    """The drawing; each bar knows the durations that it stands for, so that a click can filter by them."""
    total = sum(bucket.total for bucket in found.buckets)
    label = f"Durations of {total:,} jobs of {title}; the same figures are in the table below"
    size = f'viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{escape(label)}"'
    parts = [*_scale(found.highest), *_bars(found, fanout), *_edges(found)]
    return f'<svg class="histogram" xmlns="http://www.w3.org/2000/svg" {size}>{"".join(parts)}</svg>'


def _y(number: float, highest: int) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * number / max(highest, 1)


def _scale(highest: int) -> Iterator[str]:
    step = next(
        factor * 10**power for power in range(12) for factor in (1, 2, 5) if highest / (factor * 10**power) <= LINES
    )
    for number in range(0, highest + 1, step):
        y = _y(number, highest)
        yield f'<line class="grid" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="tick" x="{LEFT - 6:g}" y="{y + 3.5:.1f}" text-anchor="end">{number:,}</text>'


def _bars(found: Histogram, fanout: int) -> Iterator[str]:
    width = (WIDTH - LEFT - RIGHT) / max(1, len(found.buckets))
    for place, bucket in enumerate(found.buckets):
        x = LEFT + place * width
        yield f'<g class="slot" data-low="{bucket.low!r}" data-high="{bucket.high!r}" data-fanout="{fanout}">'
        yield f"<title>{escape(_told(bucket))}</title>"
        whole = f'x="{x:.1f}" y="{TOP:g}" width="{width:.1f}" height="{HEIGHT - TOP - BOTTOM:.1f}"'
        yield f'<rect class="ground" {whole}/>'
        below = 0
        for state in STATES:
            if number := bucket.counts.get(state, 0):
                top, bottom = _y(below + number, found.highest), _y(below, found.highest)
                place_ = f'x="{x + 1:.1f}" y="{top:.1f}" width="{max(1.0, width - 2):.1f}"'
                yield f'<rect class="is-{state}" {place_} height="{max(0.8, bottom - top):.1f}"/>'
                below += number
        yield "</g>"


def _told(bucket: Bucket) -> str:
    parts = ", ".join(f"{number:,} {state.replace('_', ' ')}" for state, number in bucket.counts.items())
    return f"{span(bucket.low)} to {span(bucket.high)}: {parts or 'no jobs'}"


def _edges(found: Histogram) -> Iterator[str]:
    """The durations under the bars, as many as there is room for."""
    if not found.buckets:
        return
    width = (WIDTH - LEFT - RIGHT) / len(found.buckets)
    edges = [bucket.low for bucket in found.buckets] + [found.buckets[-1].high]
    every = math.ceil(58 / width)
    for place in range(0, len(edges), every):
        x = LEFT + place * width
        anchor = "end" if x > WIDTH - RIGHT - 20 else "middle"
        at = f'x="{x:.1f}" y="{HEIGHT - 8:g}" text-anchor="{anchor}"'
        yield f'<text class="tick" {at}>{escape(span(edges[place]))}</text>'
