"""The table of targets: its rows, how they come from rounds, and how they look."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from case import Figures

Rounds = Sequence[Figures]


@dataclass(frozen=True)
class Target:
    """What a value must be: at least the limit, or at most."""

    limit: float
    at_least: bool

    def met(self, value: float) -> bool:
        """Whether this value is good enough."""
        return value >= self.limit if self.at_least else value <= self.limit


def at_least(limit: float) -> Target:
    """A target that higher values meet."""
    return Target(limit, at_least=True)


def at_most(limit: float) -> Target:
    """A target that lower values meet."""
    return Target(limit, at_least=False)


@dataclass(frozen=True)
class Row:
    """One row: the median of the rounds with the lowest and the highest; without a target it is only reported."""

    what: str
    median: float
    lowest: float
    highest: float
    unit: str = ""
    """Nothing for a ratio."""
    target: Target | None = None

    @property
    def verdict(self) -> str:
        """`met`, `missed`, or nothing if there is no target."""
        return "" if self.target is None else "met" if self.target.met(self.median) else "missed"

    def as_json(self) -> dict[str, Any]:
        """The row for a program."""
        return {**asdict(self), "verdict": self.verdict}


def measured(what: str, values: Sequence[float], target: Target | None = None, unit: str = "") -> Row:
    """The row of one value a round."""
    return Row(what, statistics.median(values), min(values), max(values), unit, target)


def compared(what: str, who: Rounds, to: Rounds, target: Target | None = None, figure: str = "rate") -> Row:
    """The row of a ratio: each round's figure by that of the other contestant in the same round."""
    return measured(what, [one[figure] / other[figure] for one, other in zip(who, to, strict=True)], target)


def markdown(rows: Sequence[Row]) -> str:
    """The table of targets for a reader."""
    lines = ["| what | target | measured (min - max) | |", "| --- | --- | --- | --- |"]
    for row in rows:
        target = ""
        if row.target is not None:
            sign = "≥" if row.target.at_least else "≤"
            target = f"{sign} {_number(row.target.limit)}{_unit(row.unit)}"
        value = f"{_number(row.median)}{_unit(row.unit)} ({_number(row.lowest)} - {_number(row.highest)})"
        lines.append(f"| {row.what} | {target} | {value} | {row.verdict} |")
    return "\n".join(lines) + "\n"


def contestants_markdown(rounds: Mapping[str, Mapping[str, Rounds]]) -> str:
    """Medians of every contestant of every case: the figures behind the ratios."""
    lines = ["| case | who | items | items/s | CPU ms/item | peak MB |", "| --- | --- | --- | --- | --- | --- |"]
    for case, contestants in rounds.items():
        for who, played in contestants.items():
            counted = played[0].get("rows") or played[0]["items"]
            rate = _number(statistics.median(one["rate"] for one in played))
            cpu = [1000 * one["cpu_seconds"] / counted for one in played if "cpu_seconds" in one]
            peak = [one["peak_rss_mb"] for one in played if "peak_rss_mb" in one]
            used = [f"{statistics.median(cpu):.3f}" if cpu else "", f"{statistics.median(peak):.0f}" if peak else ""]
            lines.append(f"| {case} | {who} | {counted:,} | {rate} | {' | '.join(used)} |")
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _unit(unit: str) -> str:
    return f" {unit}" if unit else ""
