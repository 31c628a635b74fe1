"""A small plot as inline SVG: axes, lines, dots, bars and bands. No script, no font of its own, nothing to load.

    plot = Plot((0, 3), (0, 1.5))
    plot.line([(0, 1), (3, 1.2)], "good", "token '5'")
    plot.svg("what it shows")

Colours are classes that the page defines: `good`, `bad`, `soft`, `mark`.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TypeAlias

Span: TypeAlias = tuple[float, float]
Point: TypeAlias = tuple[float, float]

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 14, 36


class Plot:
    """Draws in the units of its axes."""

    def __init__(self, across: Span, up: Span, *, height: int = HEIGHT) -> None:
        self._across, self._up, self._height = across, up, height
        self._parts: list[str] = []

    def band(self, low: float, high: float) -> None:
        """A strip across the plot."""
        top, bottom = self._y(min(high, self._up[1])), self._y(max(low, self._up[0]))
        self._parts.append(
            f'<rect class="band" x="{LEFT}" y="{top:.1f}" width="{WIDTH - LEFT - RIGHT}" '
            f'height="{max(bottom - top, 0):.1f}"/>'
        )

    def level(self, value: float) -> None:
        """A thin line across the plot."""
        y = self._y(value)
        self._parts.append(f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')

    def line(self, points: Sequence[Point], kind: str, says: str = "") -> None:
        """A line through the points."""
        path = " ".join(f"{self._x(x):.1f},{self._y(y):.1f}" for x, y in points)
        self._parts.append(f'<polyline class="line {kind}" points="{path}">{_title(says)}</polyline>')

    def dot(self, x: float, y: float, kind: str, says: str = "") -> None:
        """A dot."""
        self._parts.append(
            f'<circle class="dot {kind}" cx="{self._x(x):.1f}" cy="{self._y(y):.1f}" r="4">{_title(says)}</circle>'
        )

    def bar(self, left: float, right: float, value: float, kind: str, says: str = "") -> None:
        """A bar from 0 to the value."""
        top, bottom = sorted((self._y(value), self._y(0)))
        self._parts.append(
            f'<rect class="bar {kind}" x="{self._x(left):.1f}" y="{top:.1f}" '
            f'width="{self._x(right) - self._x(left):.1f}" height="{max(bottom - top, 1):.1f}">{_title(says)}</rect>'
        )

    def text(self, x: float, y: float, words: str, *, lower: float = 0, kind: str = "") -> None:
        """Words, centred at the point; `lower` moves them down by pixels."""
        self._parts.append(
            f'<text class="{kind}" x="{self._x(x):.1f}" y="{self._y(y) + lower:.1f}" text-anchor="middle">'
            f"{escape(words)}</text>"
        )

    def below(self, x: float, words: str) -> None:
        """Words under the plot."""
        self._parts.append(
            f'<text x="{self._x(x):.1f}" y="{self._height - BOTTOM + 20}" text-anchor="middle">{escape(words)}</text>'
        )

    def beside(self, *values: float) -> None:
        """Numbers at the left, each with a thin line."""
        for value in values:
            self.level(value)
            self._parts.append(f'<text x="{LEFT - 8}" y="{self._y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')

    def svg(self, says: str) -> str:
        """The picture; what it says is read out to those who do not see it."""
        return (
            f'<svg viewBox="0 0 {WIDTH} {self._height}" role="img" aria-label="{escape(says)}" '
            f'xmlns="http://www.w3.org/2000/svg">{"".join(self._parts)}</svg>'
        )

    def _x(self, value: float) -> float:
        low, high = self._across
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def _y(self, value: float) -> float:
        low, high = self._up
        return self._height - BOTTOM - (value - low) / (high - low) * (self._height - TOP - BOTTOM)


def _title(says: str) -> str:
    return f"<title>{escape(says)}</title>" if says else ""
