"""
The plots of the grid: times to detect over the rate, both in powers of ten with their own units on the axes.

A solid line with dots is what was measured, the dashed one of its colour the floor below it. What was missed has no dot, and
its name says so. The colours are seen on light and on dark pages, and text follows the reader's scheme.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from math import exp, factorial, isfinite, log10
from typing import Final

from loadtest.detection.cells import Found

WIDTH, HEIGHT = 860, 500
COLORS: Final = ("#2f81f7", "#e5534b", "#c69026", "#57ab5a", "#986ee2", "#e0823d", "#39c5cf", "#d96fae")
TICKS_S: Final = (
    (1, "1 s"),
    (10, "10 s"),
    (60, "1 min"),
    (600, "10 min"),
    (3600, "1 h"),
    (36_000, "10 h"),
    (259_200, "3 d"),
)
_DARK: Final = "inline: svg { color: #1f2328; } @media (prefers-color-scheme: dark) { svg { color: #e6edf3; } }"
_COMMENT: Final = re.compile(r"<!--.*?-->", re.DOTALL)
_SCRIPT: Final = re.compile(r"<script.*?</script>", re.DOTALL)


def plot(title: str, found: Sequence[Found], *, floors: bool = True) -> str:
    """Return *found* as SVG, a line for each truth."""
    import pygal  # noqa: PLC0415  takes a while to load

    # pygal's finder for map plugins has no find_spec: every later import of something absent would warn (Python 3.11).
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, pygal.PluginImportFixer)]

    lines: dict[str, list[Found]] = {}
    for one in sorted(found, key=lambda one: one.rate_per_s):
        lines.setdefault(one.fault, []).append(one)
    names = {truth: _named(truth, rows) for truth, rows in lines.items()}
    colors = [color for color, _ in zip(COLORS * 2, lines, strict=False) for _ in range(2)]
    chart = pygal.XY(
        **_looks(title, colors), x_title="requests a second (dashed: the floor of the time)" if floors else "requests a second", y_title="time to detect",
        legend_at_bottom_columns=2 if max(map(len, names.values())) > 20 else 4, dots_size=3,
    )  # fmt: skip
    chart.uuid = re.sub(r"\W+", "-", title)
    rates = sorted({one.rate_per_s for one in found})
    chart.x_labels = [{"value": _across(rate), "label": f"{rate:,.4g}/s"} for rate in rates]
    most = max(
        [one.delay_s for one in found if isfinite(one.delay_s)]
        + [one.floor_s for one in found if isfinite(one.floor_s)]
    )
    chart.y_labels = [{"value": log10(at), "label": label} for at, label in TICKS_S if at <= 10 * most]
    for truth, rows in lines.items():
        dots = [(_across(row.rate_per_s), log10(max(row.delay_s, 1.0))) for row in rows if isfinite(row.delay_s)]
        below = [(_across(row.rate_per_s), log10(max(row.floor_s, 1.0))) for row in rows if isfinite(row.floor_s)]
        chart.add(names[truth], dots, stroke_style={"width": 2})
        chart.add(None, below if floors else [], stroke_style={"dasharray": "3, 6"}, show_dots=False)
    return _clean(chart.render(is_unicode=True))


def bars(title: str, counts: Mapping[str, tuple[int, float]]) -> str:
    """Return false alarms a route and month by cell as SVG, from (alarms, months), with what 95 % confidence allows."""
    import pygal  # noqa: PLC0415  takes a while to load

    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, pygal.PluginImportFixer)]
    chart = pygal.Bar(
        **_looks(title, COLORS), y_title="a route and month", legend_at_bottom_columns=2, print_values=True,
        print_values_position="top", value_formatter=lambda value: f"{value:.1f}", include_x_axis=True,
    )  # fmt: skip
    chart.uuid = re.sub(r"\W+", "-", title)
    chart.x_labels = list(counts)
    chart.add("measured", [alarms / months for alarms, months in counts.values()])
    chart.add("not above, with 95 % confidence", [most(alarms) / months for alarms, months in counts.values()])
    return _clean(chart.render(is_unicode=True))


def most(count: int) -> float:
    """Return the largest mean at which a Poisson count of *count* or fewer still comes in 5 % of cases."""
    low, high = 0.0, 10.0 + 3.0 * count
    while high - low > 1e-6:
        mean = (low + high) / 2
        fewer = sum(exp(-mean) * mean**k / factorial(k) for k in range(count + 1))
        low, high = (mean, high) if fewer > 0.05 else (low, mean)
    return low


def _across(rate_per_s: float) -> float:
    return 2.0 + log10(rate_per_s)  # above zero, where pygal would draw an axis


def _looks(title: str, colors: Sequence[str]) -> dict[str, object]:
    from pygal.style import Style  # noqa: PLC0415

    style = Style(
        background="transparent", plot_background="transparent", font_family="sans-serif", colors=tuple(colors),
        foreground="currentColor", foreground_strong="currentColor", foreground_subtle="#8b949e", title_font_size=17, opacity="1",
        label_font_size=12, major_label_font_size=12, legend_font_size=13, guide_stroke_color="#8b949e",
        major_guide_stroke_color="#8b949e", value_font_size=12, value_colors=("currentColor",) * 2,
    )  # fmt: skip
    return {
        "title": title, "width": WIDTH, "height": HEIGHT, "explicit_size": True, "js": (), "style": style,
        "legend_at_bottom": True, "truncate_legend": -1, "truncate_label": -1, "css": ["file://style.css", "file://graph.css", _DARK],
    }  # fmt: skip


def _named(truth: str, rows: Sequence[Found]) -> str:
    missed, seen = ([row for row in rows if isfinite(row.delay_s) is found] for found in (False, True))
    if not missed or not seen:
        return f"{truth} (missed)" if missed else truth
    word, fewer = ("missed", missed) if len(missed) <= len(seen) else ("seen only", seen)
    return f"{truth} ({word} at {', '.join(f'{row.rate_per_s:,.4g}' for row in fewer)}/s)"


def _clean(drawn: str) -> str:
    return _SCRIPT.sub("", _COMMENT.sub("", drawn))
