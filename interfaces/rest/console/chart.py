"""The console's picture: how many machines were alive over time, in the page's own colours."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from application.course import Point
from interfaces.cli.picture import WIDTH, Points, Shape, elements, spacing

HEIGHT = 180
LEFT, RIGHT, TOP, BOTTOM = 60, WIDTH - 12, 10, HEIGHT - 24
INK, RULE, BAND, MARK = "var(--quiet)", "var(--line)", "var(--link)", "var(--focus)"


def over_time(points: Sequence[Point]) -> dict[str, Any] | None:
    """From the first event to the last, by the time; None where there is nothing to see."""
    if not points:
        return None
    ends = [_at(points[0]), _at(points[-1])]
    return _chart(points, [_seconds(point) for point in points], "over time", ends, None)


def _seconds(point: Point) -> float:
    return datetime.fromisoformat(point.recorded_at).timestamp()


def along_the_log(points: Sequence[Point], chosen: int) -> dict[str, Any] | None:
    """By the position, as the slider is; the chosen one is marked."""
    if not points:
        return None
    ends = [f"position {point.position}" for point in (points[0], points[-1])]
    places = [float(point.position) for point in points]
    return _chart(points, places, "along the log", ends, float(chosen))


def _at(point: Point) -> str:
    return point.recorded_at[:16].replace("T", " ") + " UTC"


def _chart(
    points: Sequence[Point], places: list[float], along: str, ends: list[str], chosen: float | None
) -> dict[str, Any]:
    highest = max(points, key=lambda point: point.machines)
    told = (
        f"Machines alive {along}, from {ends[0]} to {ends[1]}: at most {highest.machines} of "
        f"what is drawn, as of position {highest.position} ({_at(highest)}), and "
        f"{points[-1].machines} at the end."
    )
    heights = [float(point.machines) for point in points]
    lines = elements(_shapes(places, heights, ends, chosen))
    # `drawn` goes into the page as it is: it has numbers, and words that were escaped.
    return {"width": WIDTH, "height": HEIGHT, "drawn": "\n".join(lines), "told": told}


def _shapes(
    places: list[float], heights: list[float], ends: list[str], chosen: float | None
) -> Iterator[Shape]:
    rule = spacing(max(heights))
    top = max(rule, math.ceil(max(heights) / rule) * rule)
    first, wide = places[0], places[-1] - places[0] or 1.0

    def x(place: float) -> float:
        return LEFT + min(max(place - first, 0.0) / wide, 1.0) * (RIGHT - LEFT)

    def y(machines: float) -> float:
        return BOTTOM - machines / top * (BOTTOM - TOP)

    stairs: Points = [(LEFT, BOTTOM)]
    for place, machines in zip(places, heights, strict=True):
        stairs += [(x(place), stairs[-1][1]), (x(place), y(machines))]
    yield "polygon", [*stairs, (RIGHT, BOTTOM)], BAND, ""
    for tick in range(round(top / rule) + 1):
        at = y(tick * rule)
        yield "line", [(LEFT, at), (RIGHT, at)], RULE if tick else INK, ""
        yield "text", [(LEFT - 6, at + 4)], INK, f"r{tick * rule:g}"
    for at, side, said in ((LEFT, "l", ends[0]), (RIGHT, "r", ends[1])):
        yield "text", [(at, BOTTOM + 18)], INK, side + said
    if chosen is not None:
        yield "line", [(x(chosen), TOP), (x(chosen), BOTTOM)], MARK, ""
