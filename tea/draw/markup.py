"""A workflow in the languages of Mermaid and Graphviz, which do their own layout."""

from __future__ import annotations

from tea.draw.picture import Box, Picture

_MERMAID_SHAPES = {
    "start": ("([", "])"),
    "end": ("([", "])"),
    "fan_in": ("[/", "\\]"),
    "fan_out": ("[\\", "/]"),
    "each": ("[[", "]]"),
    "loop": ("{{", "}}"),
}
_MERMAID_ARROWS = {"plain": "-->", "when": "-.->", "parallel": "==>"}
_MERMAID_ENTITIES = {"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "&": "#amp;"}
_DOT_SHAPES = {
    "start": "oval",
    "end": "oval",
    "fan_in": "trapezium",
    "fan_out": "invtrapezium",
    "each": "box3d",
    "loop": "hexagon",
}
_DOT_ARROWS = {"plain": "", "when": "style=dashed", "parallel": 'color="#0b6e99", penwidth=2'}


def mermaid_text(drawn: Picture) -> str:
    """The workflow as a Mermaid flowchart."""
    ids = _ids(drawn)
    lines = ["flowchart TD"]
    for box in drawn.boxes.values():
        before, after = _MERMAID_SHAPES.get(box.kind, ("[", "]"))
        lines.append(f'    {ids[box.name]}{before}"{"<br>".join(map(_mermaid, _text(box)))}"{after}')
    for arrow in drawn.arrows:
        label = f'|"{_mermaid(arrow.label)}"|' if arrow.label else ""
        lines.append(f"    {ids[arrow.source]} {_MERMAID_ARROWS[arrow.kind]}{label} {ids[arrow.target]}")
    return "\n".join(lines) + "\n"


def dot_text(drawn: Picture) -> str:
    """The workflow for Graphviz."""
    ids = _ids(drawn)
    lines = [
        f"digraph {_dot(drawn.title)} {{",
        '    node [shape=box, style=rounded, fontname="sans-serif", fontsize=11]',
        '    edge [fontname="sans-serif", fontsize=10]',
    ]
    for box in drawn.boxes.values():
        shape = _DOT_SHAPES.get(box.kind, "box")
        lines.append(f"    {ids[box.name]} [shape={shape}, label={_dot(chr(10).join(_text(box)))}]")
    for arrow in drawn.arrows:
        label = f"label={_dot(arrow.label)}" if arrow.label else ""
        attributes = ", ".join(part for part in (_DOT_ARROWS[arrow.kind], label) if part)
        lines.append(f"    {ids[arrow.source]} -> {ids[arrow.target]}" + (f" [{attributes}]" if attributes else ""))
    return "\n".join([*lines, "}"]) + "\n"


def _ids(drawn: Picture) -> dict[str, str]:
    """Names that both languages take: node names may be anything, keywords included."""
    return {name: f"n{number}" for number, name in enumerate(drawn.boxes)}


def _text(box: Box) -> list[str]:
    return [box.title, *box.details]


def _mermaid(text: str) -> str:
    """Mermaid has no escapes; it takes entities, written with `#` instead of `&`."""
    return "".join(_MERMAID_ENTITIES.get(letter, letter) for letter in text)


def _dot(text: str) -> str:
    """A quoted string; backslashes are doubled, line breaks become `\\n`."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
