"""A curve as SVG: a line for each series over axes that may be logarithmic.  Pure."""

import math
from collections.abc import Sequence
from html import escape

from tests.bench.figures import Curve

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 76, 40, 36, 48
COLOURS = ("#1f6feb", "#d29922", "#2da44e", "#cf222e")


def svg(curve: Curve) -> str:
    """One picture, for light and dark pages."""
    points = [point for line in curve.lines.values() for point in line]
    xs, log = sorted({x for x, _ in points}), max(x for x, _ in points) > 20 * min(x for x, _ in points)
    top = _round_up(max(y for _, y in points))

    def at_x(x: float) -> float:
        scale = math.log10 if log else float
        low, high = scale(xs[0]), scale(xs[-1])
        return LEFT + (WIDTH - LEFT - RIGHT) * ((scale(x) - low) / (high - low) if high > low else 0.5)

    def at_y(y: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * y / top

    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(curve.title)}"'
            ' font-family="sans-serif" font-size="12">'
        ),
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="20" font-size="14">{escape(curve.title)}</text>',
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end">{escape(curve.x)}{", logarithmic" if log else ""}</text>',
        f'<text x="{WIDTH - RIGHT}" y="20" text-anchor="end">{escape(curve.y)}</text>',
    ]
    for step in range(5):
        y = at_y(top * step / 4)
        parts += [
            f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#d0d7de"/>',
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_number(top * step / 4)}</text>',
        ]
    parts += [
        f'<text x="{at_x(x):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{x:,.0f}</text>' for x in xs
    ]
    for colour, (name, line) in zip(COLOURS, curve.lines.items(), strict=False):
        parts += _line(name, [(at_x(x), at_y(y)) for x, y in line], colour)
    return "\n".join([*parts, "</svg>\n"])


def _line(name: str, places: Sequence[tuple[float, float]], colour: str) -> list[str]:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in places]
    x, y = places[-1]
    label = f'<text x="{x:.1f}" y="{y - 9:.1f}" text-anchor="end" fill="{colour}">{escape(name)}</text>'
    return [f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>', *dots, label]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.4g}"


def _round_up(value: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value)) if value > 0 else 1.0
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value)
