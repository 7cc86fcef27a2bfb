"""The chart of items/s and memory over the number of items, as SVG: two panels, one logarithmic axis of items.

It follows the reader's preference for light or dark, and has its own background, so that it can be read on any page.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from case import Figures

WIDTH, PANEL_HEIGHT = 720, 210
LEFT, RIGHT, TOP, GAP, BOTTOM = 76, 24, 34, 52, 46
HEIGHT = TOP + 2 * PANEL_HEIGHT + GAP + BOTTOM
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #24292f; }
  .paper { fill: #ffffff; }
  .title { font-weight: 600; }
  .grid { stroke: #d0d7de; stroke-width: 1; }
  .rate { stroke: #0969da; } .rate-dot { fill: #0969da; }
  .memory { stroke: #bc4c00; } .memory-dot { fill: #bc4c00; }
  .line { fill: none; stroke-width: 2; } .range { stroke-width: 1.5; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .paper { fill: #0d1117; } .grid { stroke: #3d444d; }
    .rate { stroke: #58a6ff; } .rate-dot { fill: #58a6ff; }
    .memory { stroke: #f0883e; } .memory-dot { fill: #f0883e; }
  }
"""


def size_chart(played: Mapping[str, Sequence[Figures]]) -> str:
    """The chart of the rounds of the case `size`: medians, with a bar from the lowest to the highest."""
    sizes = sorted((rounds[0]["items"], rounds) for rounds in played.values())
    items = [count for count, _ in sizes]
    rates = [[one["rate"] for one in rounds] for _, rounds in sizes]
    peaks = [[one["peak_rss_mb"] for one in rounds] for _, rounds in sizes]
    second = TOP + PANEL_HEIGHT + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'role="img" aria-label="Items a second and peak memory over the number of items">',
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}" rx="6"/>',
        *_panel("items/s (plan, infer, publish)", "rate", TOP, items, rates),
        *_panel("peak memory of the flow's process, MB", "memory", second, items, peaks),
        *(
            f'<text x="{_x(count, items):.1f}" y="{second + PANEL_HEIGHT + 20}" text-anchor="middle">{count:,}</text>'
            for count in items
        ),
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">items in the manifest</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _panel(title: str, kind: str, top: float, items: Sequence[int], values: Sequence[Sequence[float]]) -> list[str]:
    step = _step(max(map(max, values)))
    highest = step * math.ceil(max(map(max, values)) / step)

    def y(value: float) -> float:
        return top + PANEL_HEIGHT * (1 - value / highest)

    parts = [f'<text class="title" x="{LEFT}" y="{top - 12}">{title}</text>']
    for number in range(round(highest / step) + 1):
        value = number * step
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:,.6g}</text>')
    points = []
    for count, rounds in zip(items, values, strict=True):
        x, middle = _x(count, items), statistics.median(rounds)
        points.append(f"{x:.1f},{y(middle):.1f}")
        low, high = y(min(rounds)), y(max(rounds))
        parts.append(f'<line class="range {kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
        parts.append(f'<circle class="{kind}-dot" cx="{x:.1f}" cy="{y(middle):.1f}" r="4"/>')
        parts.append(f'<text x="{x:.1f}" y="{high - 9:.1f}" text-anchor="middle">{middle:,.0f}</text>')
    parts.append(f'<polyline class="line {kind}" points="{" ".join(points)}"/>')
    return parts


def _x(count: int, items: Sequence[int]) -> float:
    span = math.log(items[-1] / items[0]) or 1.0
    return LEFT + 30 + (WIDTH - RIGHT - LEFT - 60) * math.log(count / items[0]) / span


def _step(highest: float) -> float:
    """A round number that divides an axis into four to eight parts, with room above for the labels."""
    rough = 1.15 * highest / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return min((factor * power for factor in (1, 2, 2.5, 5, 10)), key=lambda one: abs(one - rough))
