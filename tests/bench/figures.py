"""What was found: figures, each with its ceiling from the same run, and curves.  Pure."""

from collections.abc import Mapping

import msgspec


class Figure(msgspec.Struct, kw_only=True):
    """One line of the table."""

    what: str
    found: str  # as people read it
    target: str = ""
    ceiling: str = ""  # what it is held against, as people read it
    ratio: float | None = None  # of what was found to its ceiling
    least: float | None = None  # the ratio that is wanted
    met: bool | None = None  # the target in absolute figures; None where there is none

    @property
    def verdict(self) -> str:
        """Where both are wanted and the ratio is met, the machine was too slow, and not we."""
        by_ratio = None if self.ratio is None or self.least is None else self.ratio >= self.least
        if self.met:
            return "met"
        if self.met is False:
            return "met by ratio" if by_ratio else "**missed**"
        return "" if by_ratio is None else "met" if by_ratio else "**missed**"


def memory(service: str, most_mb: float) -> Figure:
    """Of a service under load."""
    return Figure(
        what=f"{service} under load, most memory",
        found=f"{most_mb:.0f} MB",
        target="≤ 150 MB",
        met=most_mb <= 150,
    )


class Curve(msgspec.Struct, kw_only=True):
    """How something grows: points by name of the line, in the order measured."""

    name: str  # of the picture's file
    title: str
    x: str
    y: str
    lines: dict[str, list[tuple[float, float]]]
    says: str = ""  # what is measured and what is not


class Found(msgspec.Struct, kw_only=True):
    """All that one measurement found."""

    figures: list[Figure] = []
    curves: list[Curve] = []
    numbers: dict[str, float] = {}  # for the history
    text: str = ""  # for the page

    def plus(self, other: "Found") -> "Found":
        """Both."""
        return Found(
            figures=self.figures + other.figures,
            curves=self.curves + other.curves,
            numbers=self.numbers | other.numbers,
            text=f"{self.text}\n{other.text}".strip(),
        )


def table(figures: list[Figure]) -> str:
    """In Markdown."""
    lines = [("what", "measured", "target", "ceiling in the same run", "ratio", "")]
    lines += [("---",) * 6]
    for one in figures:
        ratio = "" if one.ratio is None else f"{one.ratio:.0%}"
        ratio += f" (≥ {one.least:.0%})" if one.least is not None else ""
        lines.append((one.what, one.found, one.target, one.ceiling, ratio, one.verdict))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def changed(before: Mapping[str, float], now: Mapping[str, float], by: float = 0.2) -> list[str]:
    """Numbers that differ by more than a part from the run before, as people read it."""
    return [
        f"{name}: {_short(before[name])} → {_short(value)}"
        for name, value in now.items()
        if before.get(name) and abs(value / before[name] - 1) > by
    ]


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
