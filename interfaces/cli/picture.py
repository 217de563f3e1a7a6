"""A picture of the fleet over time: stacked bands, as SVG by hand or as PNG by Pillow.

What is drawn is laid out once, as shapes in a plane; the two writers know polygons, lines and
words, and nothing of fleets. `interfaces/bench/picture.py` lays out what they write for `bench`,
`interfaces/rest/console/chart.py` what goes into the console's pages.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from application.failures import NotInstalled
from application.reports import Window

STEPS = 240
"""Stairs of a band from the left to the right."""

WIDTH, HEIGHT = 960, 440
LEFT, RIGHT, TOP, BOTTOM = 60, 740, 40, 390
"""Where the bands are; the names of the groups stand to the right."""

COLOURS = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#332288",
    "#999933", "#999999",
)  # fmt: skip
INK, RULE, PAPER = "#222222", "#cccccc", "#ffffff"
FONT_SIZE = 12
PNG_SCALE = 2
LONGEST_NAME = 26

Points = list[tuple[float, float]]
Shape = tuple[str, Points, str, str]
"""polygon, line or text; its points; its colour. A text has the side of its point that it stands
on, a letter of Pillow's (l, m, r), and its words."""

SIDES = {"l": "start", "m": "middle", "r": "end"}


def file(value: str) -> str:
    """An argument that names a picture's file."""
    if not value.endswith((".png", ".svg")):
        raise ValueError(value)
    return value


Write = Callable[[Iterable[Shape], int], None]


def writer(path: str) -> Write:
    """What writes shapes, in a plane of WIDTH times a height, into the file, by the file's ending.
    Raises NotInstalled."""
    if path.endswith(".svg"):

        def write(shapes: Iterable[Shape], height: int) -> None:
            with open(path, "w", encoding="utf-8") as file:
                file.write(svg(shapes, height))

        return write
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ModuleNotFoundError:
        raise NotInstalled(
            f"{path} cannot be drawn: PNG needs the extra `plot` "
            "(pip install 'hostledger[plot]'); a name that ends in .svg needs nothing"
        ) from None

    def draw(shapes: Iterable[Shape], height: int) -> None:
        image = Image.new("RGB", (WIDTH * PNG_SCALE, height * PNG_SCALE), PAPER)
        canvas = ImageDraw.Draw(image)
        font = ImageFont.load_default(FONT_SIZE * PNG_SCALE)
        for kind, points, colour, words in shapes:
            scaled: Any = [(x * PNG_SCALE, y * PNG_SCALE) for x, y in points]
            if kind == "polygon":
                canvas.polygon(scaled, fill=colour)
            elif kind == "line":
                canvas.line(scaled, fill=colour, width=PNG_SCALE)
            else:
                canvas.text(scaled[0], words[1:], fill=colour, font=font, anchor=words[0] + "s")
        image.save(path)

    return draw


def svg(shapes: Iterable[Shape], height: int) -> str:
    """The file of a picture."""
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="{FONT_SIZE}">',
        f'<rect width="{WIDTH}" height="{height}" fill="{PAPER}"/>',
        *elements(shapes),
    ]
    return "\n".join([*lines, "</svg>", ""])


def elements(shapes: Iterable[Shape]) -> Iterator[str]:
    """What shapes are in SVG, one element each."""
    for kind, points, colour, words in shapes:
        if kind == "text":
            ((x, y),) = points
            yield (
                f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" '
                f'text-anchor="{SIDES[words[0]]}">{escape(words[1:])}</text>'
            )
            continue
        placed = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        paint = f'fill="{colour}"' if kind == "polygon" else f'fill="none" stroke="{colour}"'
        yield f'<{"polygon" if kind == "polygon" else "polyline"} points="{placed}" {paint}/>'


# -- layout -------------------------------------------------------------------------------------


def fleet(window: Window, by: str, bands: Mapping[str, Sequence[float]]) -> Iterator[Shape]:
    """The bands of a window (group -> machines in each step), HEIGHT high."""
    heights = [sum(step) for step in zip(*bands.values(), strict=True)]
    rule = spacing(max(heights, default=0.0))
    top = max(rule, math.ceil(max(heights, default=0.0) / rule) * rule)

    def y(machines: float) -> float:
        return BOTTOM - machines / top * (BOTTOM - TOP)

    yield words(LEFT, 22, "l", f"machines by {by}, {_at(window.since)} to {_at(window.until)} UTC")
    below = [0.0] * STEPS
    for number, (name, band) in enumerate(bands.items()):
        above = [low + high for low, high in zip(below, band, strict=True)]
        colour = COLOURS[number]
        edge = _stairs(map(y, above)) + _stairs(map(y, below))[::-1]
        yield "polygon", edge, colour, ""
        line = TOP + 20 * number
        box = [
            (RIGHT + 16, line),
            (RIGHT + 28, line),
            (RIGHT + 28, line + 12),
            (RIGHT + 16, line + 12),
        ]
        yield "polygon", [(float(x), float(y)) for x, y in box], colour, ""
        yield words(RIGHT + 34, line + 11, "l", _shortened(name))
        below = above
    for tick in range(round(top / rule) + 1):
        at = y(tick * rule)
        yield "line", [(LEFT, at), (RIGHT, at)], RULE if tick else INK, ""
        yield words(LEFT - 6, at + 4, "r", f"{tick * rule:g}")
    for quarter in range(5):
        x = LEFT + (RIGHT - LEFT) * quarter / 4
        at = window.since + (window.until - window.since) * quarter / 4
        yield "line", [(x, BOTTOM), (x, BOTTOM + 4)], INK, ""
        yield words(x, BOTTOM + 18, "m", _at(at))


def _stairs(heights: Any) -> Points:
    wide = (RIGHT - LEFT) / STEPS
    return [
        (LEFT + (step + side) * wide, height)
        for step, height in enumerate(heights)
        for side in (0, 1)
    ]


def spacing(highest: float) -> float:
    """How far apart the lines are: 1, 2 or 5 times a power of ten, at most five of them."""
    power = 1.0
    while True:
        for step in (1, 2, 5):
            if highest <= 5 * step * power:
                return step * power
        power *= 10


def words(x: float, y: float, side: str, said: str) -> Shape:
    return "text", [(x, y)], INK, side + said


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def _at(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))
