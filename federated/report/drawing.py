"""Figures as inline SVG: scales, axes, marks, and a text in place of the picture.

Colours are classes, which the page's style sheet gives a value for light, dark and print. No
series is told by its colour alone: each has a dash pattern and a mark of its own too.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

from markupsafe import Markup

from federated.errors import printable

LONGEST_TEXT = 2000
# Below it a difference of two numbers is none that a drawing could show.
SMALLEST = 1e-300
# The part of the range of what is drawn that is left free at both ends of an axis.
MARGIN = 0.03
# How many series have a look of their own; those beyond begin anew.
LOOKS = 8


def clean(text: object) -> str:
    """A text that may be a site's: without characters that command, and not without end."""
    return printable(str(text), LONGEST_TEXT)


@dataclass(frozen=True)
class Scale:
    """Where on an axis from ``start`` to ``end`` a value from ``low`` to ``high`` is."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value, in the units of the drawing; values outside are at an end."""
        value = min(max(value, self.low), self.high)
        low, high = (log10(self.low), log10(self.high)) if self.log else (self.low, self.high)
        part = ((log10(value) if self.log else value) - low) / ((high - low) or 1)
        return round(self.start + part * (self.end - self.start), 1)

    def ticks(self, most: int = 5) -> list[float]:
        """Round numbers along the axis, at most about ``most``."""
        if self.log:
            tens = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
            found = [m * 10.0**t for t in tens for m in (1, 2, 5)]
            found = [value for value in found if self.low <= value <= self.high]
            return found[:: max(1, ceil(len(found) / most))]
        step = step_of(self.low, self.high, most)
        if step < SMALLEST:
            return [self.low]
        # Wider ones where both ends are ticks of these, and of the narrower ones are not.
        wider = (step_of(self.low, self.high, number) for number in range(most, 0, -1))
        step = next((each for each in wider if self._ends_on(each)), step)
        first, last = ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9)
        return [float(f"{number * step:.12g}") for number in range(first, last + 1)]

    def _ends_on(self, step: float) -> bool:
        """Whether both ends are multiples of a step."""
        return all(abs(end / step - round(end / step)) < 1e-6 for end in (self.low, self.high))


def step_of(low: float, high: float, most: int) -> float:
    """The round number by which ticks are apart, at most about ``most``; 0 where there is none."""
    raw = (high - low) / max(most, 1)
    if raw < SMALLEST:
        return 0.0
    ten = 10.0 ** floor(log10(raw))
    return next(m * ten for m in (1, 2, 5, 10) if m * ten >= raw * 0.999)


def room_for(
    values: Iterable[float],
    least: float | None = None,
    most: float | None = None,
    ticks: int = 5,
) -> tuple[float, float]:
    """Ends of an axis that are ticks of it, so that every value is between two of these.

    A value is not drawn on an end, unless that is ``least`` or ``most``, or 0 of values none of
    which is negative. Values that are no finite number take no room.

    Args:
        values: what is drawn.
        least: the axis does not go below it.
        most: the axis does not go above it.
        ticks: about how many the axis has.
    """
    known = [value for value in values if isfinite(value)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    if least is None and low >= 0:
        least = 0.0
    if high - low <= 1e-9 * max(abs(low), abs(high), SMALLEST):
        low, high = low - (abs(low) * 0.1 or 0.5), high + (abs(high) * 0.1 or 0.5)
    ends, step = (low, high), step_of(low, high, ticks)
    while step:
        margin = MARGIN * (high - low)
        down = floor((low - margin) / step + 1e-9) * step
        up = ceil((high + margin) / step - 1e-9) * step
        ends = down if least is None else max(down, least), up if most is None else min(up, most)
        wider = step_of(*ends, ticks)
        if wider <= step * 1.001:
            break
        step = wider
    return ends


def told(value: float) -> str:
    """A number of an axis."""
    return f"{value:.10g}" if 1e-3 <= abs(value) < 1e5 or not value else f"{value:.3g}"


@dataclass(frozen=True)
class Text:
    """What a figure is called, and what stands in its place for who does not see it."""

    name: str
    title: str
    description: str


def svg(text: Text, width: float, height: float, parts: Iterable[Markup], kind: str = "") -> Markup:
    """A figure with its text.

    Args:
        text: what it is called; its name is that of no other figure on the page.
        width: of the drawing, in its own units.
        height: of the drawing.
        parts: what is drawn, in order.
        kind: its classes.
    """
    return Markup(
        '<svg class="chart {kind}" viewBox="0 0 {width:g} {height:g}" role="img" '
        'aria-labelledby="{name}-title {name}-desc" xmlns="http://www.w3.org/2000/svg">'
        '<title id="{name}-title">{title}</title><desc id="{name}-desc">{description}</desc>'
        "{parts}</svg>"
    ).format(
        kind=kind,
        width=width,
        height=height,
        name=text.name,
        title=clean(text.title),
        description=printable(text.description, 4000),
        parts=Markup("").join(parts),
    )


def label(
    x: float, y: float, text: object, kind: str = "", anchor: str = "start", cut: int = 40
) -> Markup:
    """A text at a place.

    Args:
        x: where it begins, ends or has its middle, as ``anchor`` says.
        y: its base line.
        text: the text.
        kind: its classes.
        anchor: ``start``, ``middle`` or ``end``.
        cut: the most characters of it.
    """
    said = clean(text)
    said = said if len(said) <= cut else said[: cut - 1] + "…"
    return Markup('<text x="{:g}" y="{:g}" text-anchor="{}" class="{}">{}</text>').format(
        x, y, anchor, kind, said
    )


def line(x: float, y: float, to_x: float, to_y: float, kind: str) -> Markup:
    """A straight line.

    Args:
        x: where it begins.
        y: the same.
        to_x: where it ends.
        to_y: the same.
        kind: its classes.
    """
    return Markup('<line x1="{:g}" y1="{:g}" x2="{:g}" y2="{:g}" class="{}"/>').format(
        x, y, to_x, to_y, kind
    )


def box(x: float, y: float, width: float, height: float, kind: str) -> Markup:
    """A rectangle.

    Args:
        x: its left side.
        y: its upper side.
        width: one below 0 counts as 0.
        height: its height.
        kind: its classes.
    """
    return Markup('<rect x="{:g}" y="{:g}" width="{:g}" height="{:g}" class="{}"/>').format(
        x, y, max(width, 0), height, kind
    )


def polyline(points: Sequence[tuple[float, float]], kind: str) -> Markup:
    """A line through points."""
    path = " ".join(f"{x:g},{y:g}" for x, y in points)
    return Markup('<polyline points="{}" class="{}"/>').format(path, kind)


def band(
    upper: Sequence[tuple[float, float]], lower: Sequence[tuple[float, float]], kind: str
) -> Markup:
    """The area between two lines of the same direction."""
    path = " ".join(f"{x:g},{y:g}" for x, y in [*upper, *reversed(lower)])
    return Markup('<polygon points="{}" class="{}"/>').format(path, kind)


# Circle, square, triangle, diamond, plus, cross, bar, ring: one for each look.
_MARKS = (
    "M-3.5,0a3.5,3.5 0 1,0 7,0a3.5,3.5 0 1,0 -7,0z",
    "M-3,-3h6v6h-6z",
    "M0,-4L4,3H-4z",
    "M0,-4.5L4,0L0,4.5L-4,0z",
    "M-1.2,-4h2.4v2.8h2.8v2.4h-2.8v2.8h-2.4v-2.8h-2.8v-2.4h2.8z",
    "M-3.6,-2.2L-2.2,-3.6L0,-1.4L2.2,-3.6L3.6,-2.2L1.4,0L3.6,2.2L2.2,3.6L0,1.4L-2.2,3.6"
    "L-3.6,2.2L-1.4,0z",
    "M-4,-1.5h8v3h-8z",
    "M0,4L4,-3H-4z",
)


def mark(x: float, y: float, look: int) -> Markup:
    """The mark of a look at a place."""
    return Markup('<path d="{}" transform="translate({:g} {:g})" class="mark m{}"/>').format(
        _MARKS[look % LOOKS], x, y, look % LOOKS
    )


def swatch(look: int) -> Markup:
    """What a look is like, for a legend."""
    parts = line(1, 7, 27, 7, f"line s{look % LOOKS}") + mark(14, 7, look)
    return Markup(
        '<svg class="swatch" viewBox="0 0 28 14" aria-hidden="true" focusable="false">{}</svg>'
    ).format(parts)
