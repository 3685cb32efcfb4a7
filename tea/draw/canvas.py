"""A sheet of characters on which lines meet in the right corner or crossing."""

from __future__ import annotations

from dataclasses import dataclass

UP, RIGHT, DOWN, LEFT = 1, 2, 4, 8

# The characters by the directions in which lines leave, each for the weights (across, down) thin-thin, double-thin,
# thin-double, double-double.
_LINES = {
    UP: "││║║",
    DOWN: "││║║",
    UP | DOWN: "││║║",
    LEFT: "─═─═",
    RIGHT: "─═─═",
    LEFT | RIGHT: "─═─═",
    DOWN | RIGHT: "┌╒╓╔",
    DOWN | LEFT: "┐╕╖╗",
    UP | RIGHT: "└╘╙╚",
    UP | LEFT: "┘╛╜╝",
    UP | DOWN | RIGHT: "├╞╟╠",
    UP | DOWN | LEFT: "┤╡╢╣",
    DOWN | LEFT | RIGHT: "┬╤╥╦",
    UP | LEFT | RIGHT: "┴╧╨╩",
    UP | DOWN | LEFT | RIGHT: "┼╪╫╬",
}

_PLAIN = str.maketrans(
    {
        **dict.fromkeys("│", "|"),
        **dict.fromkeys("║", "#"),
        **dict.fromkeys("─", "-"),
        **dict.fromkeys("═", "="),
        **dict.fromkeys("┌┐└┘├┤┬┴┼╒╓╔╕╖╗╘╙╚╛╜╝╞╟╠╡╢╣╤╥╦╧╨╩╪╫╬╭╮╰╯", "+"),
        "▼": "v",
        "▲": "^",
    }
)


@dataclass(slots=True)
class _Spot:
    directions: int = 0
    across: bool = False
    down: bool = False

    @property
    def letter(self) -> str:
        return _LINES[self.directions][self.across + 2 * self.down]


class Canvas:
    """Lines and text by row and column. Text covers lines."""

    def __init__(self) -> None:
        self._spots: dict[tuple[int, int], _Spot] = {}
        self._text: dict[tuple[int, int], str] = {}

    def vertical(self, column: int, top: int, bottom: int, double: bool = False) -> None:
        """A line between the middles of two rows."""
        for row in range(top, bottom):
            self._join(row, column, DOWN, double)
            self._join(row + 1, column, UP, double)

    def horizontal(self, row: int, left: int, right: int, double: bool = False) -> None:
        """A line between the middles of two columns."""
        for column in range(left, right):
            self._join(row, column, RIGHT, double)
            self._join(row, column + 1, LEFT, double)

    def _join(self, row: int, column: int, direction: int, double: bool) -> None:
        spot = self._spots.setdefault((row, column), _Spot())
        spot.directions |= direction
        if direction in (LEFT, RIGHT):
            spot.across = spot.across or double
        else:
            spot.down = spot.down or double

    def box(self, row: int, column: int, width: int, height: int, double: bool = False, round: bool = False) -> None:
        """The border of a box with its upper left corner there."""
        bottom, right = row + height - 1, column + width - 1
        for edge in (row, bottom):
            self.horizontal(edge, column, right, double)
        for edge in (column, right):
            self.vertical(edge, row, bottom, double)
        if round:
            for letter, at in zip(
                "╭╮╰╯", ((row, column), (row, right), (bottom, column), (bottom, right)), strict=True
            ):
                self._text[at] = letter

    def write(self, row: int, column: int, text: str) -> None:
        """Text that begins there."""
        for n, letter in enumerate(text):
            self._text[row, column + n] = letter

    def text(self, plain: bool = False) -> str:
        """All of it. plain: with letters of ASCII only."""
        spots = {**{at: spot.letter for at, spot in self._spots.items()}, **self._text}
        height = max((row for row, _ in spots), default=-1) + 1
        width = max((column for _, column in spots), default=-1) + 1
        rows = ["".join(spots.get((row, column), " ") for column in range(width)).rstrip() for row in range(height)]
        drawn = "\n".join(rows) + "\n"
        return drawn.translate(_PLAIN).encode("ascii", "replace").decode() if plain else drawn
