"""The kinds of figures of a page: lines, ROC curves, reliability, bars, intervals, points."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from federated.report.curves import Reliability, RocCurve
from federated.report.drawing import (
    Scale,
    Text,
    band,
    box,
    label,
    line,
    mark,
    polyline,
    room_for,
    svg,
    told,
)

# Narrow enough for a telephone, where figures are shown at this size.
WIDTH, HEIGHT = 340.0, 230.0
SMALL_WIDTH, SMALL_HEIGHT = 168.0, 128.0
# About how many ticks an axis of values has, in figures and small ones, and in those of dots.
TICKS, X_TICKS, SMALL_TICKS, DOT_TICKS = 5, 6, 3, 4
# How far marks are apart at the least, so that none hides another.
APART = 9.0
# Lines of more points have a mark at their ends alone.
MOST_MARKS = 24


@dataclass(frozen=True)
class Line:
    """A series of points ``(x, y)`` with a look; ``muted`` is one that others are compared with."""

    name: str
    points: Sequence[tuple[float, float]]
    look: int = 0
    muted: bool = False


@dataclass(frozen=True)
class Frame:
    """The axes of a figure: their ends and names; ``small`` is one of many beside each other."""

    x: tuple[float, float]
    y: tuple[float, float]
    x_name: str = ""
    y_name: str = ""
    small: bool = False
    log_x: bool = False
    log_y: bool = False
    whole_x: bool = False

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the figure."""
        return (SMALL_WIDTH, SMALL_HEIGHT) if self.small else (WIDTH, HEIGHT)

    def scales(self) -> tuple[Scale, Scale]:
        """Where values are, along both axes."""
        width, height = self.size
        left, bottom = (30.0, 20.0) if self.small else (44.0, 38.0)
        top = 8.0 if self.small else 22.0
        return (
            Scale(*self.x, left, width - 10, self.log_x),
            Scale(*self.y, height - bottom, top, self.log_y),
        )

    def drawn(self) -> list[Markup]:
        """Grid, ticks and names."""
        x, y = self.scales()
        parts: list[Markup] = []
        for value in y.ticks(SMALL_TICKS if self.small else TICKS):
            parts.append(line(x.start, y(value), x.end, y(value), "grid"))
            parts.append(label(x.start - 5, y(value) + 3.5, told(value), "tick", "end"))
        for value in x.ticks(SMALL_TICKS if self.small else X_TICKS):
            if self.whole_x and value != int(value):
                continue
            parts.append(line(x(value), y.start, x(value), y.start + 3, "axis"))
            parts.append(label(x(value), y.start + 14, told(value), "tick", "middle"))
        parts.append(line(x.start, y.start, x.end, y.start, "axis"))
        if not self.small:
            parts.append(label((x.start + x.end) / 2, y.start + 31, self.x_name, "name", "middle"))
            parts.append(label(4, 9, self.y_name, "name"))
        return parts


def line_chart(
    text: Text, frame: Frame, lines: Sequence[Line], kept: float | None = None
) -> Markup:
    """Lines over common axes; ``kept`` is a place on the x axis that is marked."""
    x, y = frame.scales()
    parts = frame.drawn()
    if kept is not None:
        parts.append(line(x(kept), y.start, x(kept), y.end, "kept"))
        if not frame.small:
            at_end = x(kept) > (x.start + x.end) / 2
            place = x(kept) - 4 if at_end else x(kept) + 4
            # Where no line is: above one that is low there, below one that is high.
            heights = [y(b) for own in lines for a, b in own.points if a == kept]
            low = heights and sum(heights) / len(heights) > (y.start + y.end) / 2
            level = y.end + 9 if low else y.start - 5
            parts.append(label(place, level, "kept", "tick", "end" if at_end else "start"))
    for own in lines:
        points = [(x(a), y(b)) for a, b in own.points]
        kind = "line muted" if own.muted else f"line s{own.look}"
        parts.append(polyline(points, kind))
        if own.muted or not points:
            continue
        marked = points if len(points) <= MOST_MARKS and not frame.small else [points[-1]]
        parts += [mark(*point, own.look) for point in marked]
    return svg(text, *frame.size, parts, "small" if frame.small else "")


def roc_chart(text: Text, curve: RocCurve, small: bool) -> Markup:
    """A ROC curve with the band of its interval, and the line of chance."""
    frame = Frame((0, 1), (0, 1), "false positives' rate", "true positives' rate", small)
    x, y = frame.scales()
    over = list(zip(curve.false_positive.tolist(), strict=True))
    places = [x(value) for (value,) in over]
    upper = [(a, y(b)) for a, b in zip(places, curve.high.tolist(), strict=True)]
    lower = [(a, y(b)) for a, b in zip(places, curve.low.tolist(), strict=True)]
    parts = [
        *frame.drawn(),
        line(x(0), y(0), x(1), y(1), "chance"),
        band(upper, lower, "band b0"),
        polyline(
            [(a, y(b)) for a, b in zip(places, curve.true_positive.tolist(), strict=True)],
            "line s0",
        ),
    ]
    return svg(text, *frame.size, parts, "small" if small else "")


def reliability_chart(text: Text, found: Reliability, small: bool) -> Markup:
    """Shares that came true against mean probabilities, each with its interval."""
    frame = Frame((0, 1), (0, 1), "mean predicted probability", "share that came true", small)
    x, y = frame.scales()
    parts = [*frame.drawn(), line(x(0), y(0), x(1), y(1), "chance")]
    rows = zip(
        *(values.tolist() for values in (found.confidence, found.share, found.low, found.high)),
        strict=True,
    )
    for confidence, share, low, high in rows:
        parts.append(line(x(confidence), y(low), x(confidence), y(high), "whisker s0"))
        parts.append(mark(x(confidence), y(share), 0))
    return svg(text, *frame.size, parts, "small" if small else "")


@dataclass(frozen=True)
class Bar:
    """A row of a figure of bars: its name, its value, how that is written, and its look."""

    name: str
    value: float
    said: str
    look: int = 0


def bar_chart(text: Text, bars: Sequence[Bar], limit: float | None = None) -> Markup:
    """Horizontal bars from 0; ``limit`` is a line that is not to be passed."""
    row, left = 24.0, 130.0
    most = max([bar.value for bar in bars] + ([limit] if limit else []), default=0.0)
    scale = Scale(0, most or 1, left, WIDTH - 78)
    height = row * len(bars) + 6
    parts: list[Markup] = []
    for number, bar in enumerate(bars):
        y = 4 + row * number
        parts.append(label(left - 6, y + 14, bar.name, "row", "end", 21))
        parts.append(box(left, y + 3, scale(bar.value) - left, row - 9, f"bar f{bar.look}"))
        parts.append(label(scale(bar.value) + 5, y + 14, bar.said, "value", cut=16))
    parts.append(line(left, 2, left, height - 2, "axis"))
    if limit is not None:
        parts.append(line(scale(limit), 2, scale(limit), height - 2, "limit"))
    return svg(text, WIDTH, height, parts)


@dataclass(frozen=True)
class Dot:
    """A row of a figure of points: its name, its value with an interval, and how it is written."""

    name: str
    value: float
    said: str
    interval: tuple[float, float] | None = None


def dot_chart(
    text: Text, dots: Sequence[Dot], ends: tuple[float, float], of_all: float | None, x_name: str
) -> Markup:
    """Points in rows, and a line for the value of all together.

    Args:
        text: the figure's.
        dots: the rows.
        ends: of the axis.
        of_all: the value of all together, if it is known.
        x_name: what the axis is called.
    """
    row, left, top = 22.0, 108.0, 6.0
    scale = Scale(*ends, left, WIDTH - 58)
    bottom = top + row * len(dots)
    parts: list[Markup] = []
    for value in scale.ticks(DOT_TICKS):
        parts.append(line(scale(value), top, scale(value), bottom, "grid"))
        parts.append(label(scale(value), bottom + 14, told(value), "tick", "middle"))
    parts.append(line(left, bottom, scale.end, bottom, "axis"))
    if of_all is not None:
        parts.append(line(scale(of_all), top, scale(of_all), bottom, "limit"))
    for number, dot in enumerate(dots):
        y = top + row * (number + 0.5)
        parts.append(label(left - 8, y + 4, dot.name, "row", "end", 17))
        if dot.interval:
            low, high = (scale(end) for end in dot.interval)
            parts.append(line(low, y, high, y, "whisker s0"))
        parts.append(mark(scale(dot.value), y, 0))
        parts.append(label(WIDTH - 52, y + 4, dot.said, "value", cut=10))
    parts.append(label((left + scale.end) / 2, bottom + 29, x_name, "name", "middle"))
    return svg(text, WIDTH, bottom + 36, parts)


@dataclass(frozen=True)
class Point:
    """A point of a frontier: its look, its place, and half of an interval of its height."""

    name: str
    x: float
    y: float
    look: int
    spread: float = 0.0


def frontier_chart(
    text: Text, frame: Frame, points: Sequence[Point], level: float | None = None
) -> Markup:
    """Points of a cost and a gain, and the steps above which there is none of no more cost.

    Args:
        text: the figure's.
        frame: its axes.
        points: the points.
        level: a height that is marked by a dotted line.
    """
    x, y = frame.scales()
    parts = frame.drawn()
    if level is not None:
        parts.append(line(x.start, y(level), x.end, y(level), "chance"))
    best = [point for point in points if on_frontier(point, points)]
    best.sort(key=lambda point: point.x)
    corners: list[tuple[float, float]] = []
    for point in best:
        if corners:
            corners.append((x(point.x), corners[-1][1]))
        corners.append((x(point.x), y(point.y)))
    if corners:
        corners.append((x.end, corners[-1][1]))
        parts.append(polyline(corners, "frontier"))
    for point, place in zip(points, set_apart(frame, points), strict=True):
        low, high = y(point.y - point.spread), y(point.y + point.spread)
        if point.spread:
            parts.append(line(place, low, place, high, f"whisker s{point.look % 8}"))
        if place != x(point.x):
            parts.append(line(x(point.x), y(point.y), place, y(point.y), "leader"))
        parts.append(mark(place, y(point.y), point.look))
    return svg(text, *frame.size, parts)


def set_apart(frame: Frame, points: Sequence[Point]) -> list[float]:
    """Where along the x axis the mark of each point is drawn, in the units of the drawing.

    Those that would hide one that comes before them are moved to a side; heights stay.
    """
    x, y = frame.scales()
    placed: list[tuple[float, float]] = []
    for point in points:
        at, height = x(point.x), y(point.y)
        near = [place for place, level in placed if abs(level - height) < APART]
        steps = (way * number for number in range(1, len(near) + 1) for way in (1, -1))
        tries = [at, *(at + APART * step for step in steps)]
        inside = [place for place in tries if x.start <= place <= x.end]
        free = [p for p in inside if all(abs(p - other) >= APART for other in near)]
        placed.append((free[0] if free else at, height))
    return [place for place, _ in placed]


def on_frontier(point: Point, points: Sequence[Point]) -> bool:
    """Whether no other point costs no more and gains no less, with one of both better."""
    return not any(
        other.x <= point.x and other.y >= point.y and (other.x < point.x or other.y > point.y)
        for other in points
    )


def ends_of(values: Sequence[float], share: bool, ticks: int = TICKS) -> tuple[float, float]:
    """The ends of an axis for values; a ``share`` is never below 0 or above 1."""
    return room_for(values, 0.0 if share else None, 1.0 if share else None, ticks)


def room_for_coverage(values: Sequence[float], asked: float) -> tuple[float, float]:
    """The ends of an axis for shares around the one that is ``asked`` for."""
    return ends_of([*values, asked], True, DOT_TICKS)
