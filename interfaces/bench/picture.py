"""A picture of a run: bars of requests in a second and of cold starts, as shapes for the writers of
`interfaces/cli/picture.py`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from interfaces.bench.requirements import NAMES, STRATEGIES
from interfaces.cli.picture import COLOURS, INK, RULE, Shape, spacing, words

LEFT, RIGHT = 430, 860
"""Where bars begin, and the longest may end; names stand to the left, figures to the right."""

TALL, GAP, HEAD = 14, 22, 56
"""Of a bar; from bar to bar; and above the first of a chart."""


class Bar(NamedTuple):
    """`mark` is a figure that a line across the bar stands for."""

    name: str
    value: float
    mark: float | None = None


class Chart(NamedTuple):
    title: str
    bars: Sequence[Bar]


def charts(document: dict[str, Any]) -> list[Chart]:
    """What of the document can be drawn."""
    found = []
    if document.get("requests"):
        bars = []
        for row in document["requests"]:
            asked = STRATEGIES.get(NAMES[row["store"]])
            bars.append(Bar(NAMES[row["store"]], row["per_second"], asked and asked.per_second))
        title = "requests in a second, ten in flight (line: what the requirements say)"
        found.append(Chart(title, bars))
    if document.get("polls"):
        bars = [
            Bar(f"{NAMES[row['store']]}, {row['machines']:,} machines stored", row["p50_ms"])
            for row in document["polls"]
        ]
        found.append(Chart("a status poll within a process, median in ms", bars))
    if document.get("cold_starts"):
        bars = [Bar(row["command"], row["ratio"], 1.0) for row in document["cold_starts"]]
        found.append(Chart("cold starts, times `python -c pass` (the line)", bars))
    return found


def height(found: Sequence[Chart]) -> int:
    return sum(HEAD + GAP * len(chart.bars) for chart in found) + GAP


def figure(value: float) -> str:
    """As a person reads it: three digits, or all that stand before the point."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def shapes(found: Sequence[Chart]) -> Iterator[Shape]:
    top = 0.0
    for number, chart in enumerate(found):
        top += HEAD
        yield words(24, top - 24, "l", chart.title)
        longest = max(max(bar.value, bar.mark or 0.0) for bar in chart.bars)
        rule = spacing(longest)
        bottom = top + GAP * len(chart.bars)

        def x(value: float, longest: float = longest) -> float:
            return LEFT + (RIGHT - LEFT) * value / longest

        for tick in range(1, int(longest / rule) + 1):
            yield "line", [(x(tick * rule), top - 4), (x(tick * rule), bottom - 6)], RULE, ""
            yield words(x(tick * rule), top - 8, "m", f"{tick * rule:g}")
        for bar in chart.bars:
            end = x(bar.value)
            box = [(float(LEFT), top), (end, top), (end, top + TALL), (float(LEFT), top + TALL)]
            yield "polygon", box, COLOURS[number], ""
            if bar.mark is not None:
                yield "line", [(x(bar.mark), top - 3), (x(bar.mark), top + TALL + 3)], INK, ""
            yield words(LEFT - 8, top + TALL - 3, "r", bar.name)
            yield words(max(end, x(bar.mark or 0.0)) + 6, top + TALL - 3, "l", figure(bar.value))
            top += GAP
