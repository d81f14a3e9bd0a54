"""
The post-mortem as one HTML page: the Markdown draft, set by markdown-it, with plots that pygal draws as inline SVG.

Theory
    The draft is the source; this adds nothing to it but what the frozen evidence and the events show as curves. No script,
    no font, no address outside: the page is a file that can be mailed and kept. Both libraries are loaded when the first
    page is asked for, and work in a thread, so that neither costs the controller anything before or meanwhile.

Tables (plots)
    what arrived, failed and was refused    each second of the evidence, summed over its routes
    latency, p50 and p95                    the same seconds
    what passed of each isolation           its start, steps and end

What can go wrong
    pygal writes the day and a small script into its SVG: both are taken out, so that the same record is the same bytes.
    Free text in the draft: it was escaped as Markdown, and HTML in it is text.
"""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sidecar.incident.words import clock, unix_of
from sidecar.measure import histogram

Document = Mapping[str, Any]
Curve = Sequence[float | None]

WIDTH: Final = 860
HEIGHT: Final = 240
LABELS: Final = 8  # along an axis
SHARES_S: Final = 5.0
MAX_POINTS: Final = 600
COLORS: Final = ("#1f6feb", "#cf222e", "#bf8700", "#57606a", "#8250df")
_COMMENT: Final = re.compile(r"<!--.*?-->", re.DOTALL)
_SCRIPT: Final = re.compile(r"<script.*?</script>", re.DOTALL)
_TASK: Final = re.compile(r"<li>\[( |x)\] ")
_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem; color: #1f2328; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.2rem; border-bottom: 1px solid #d1d9e0; }
table { border-collapse: collapse; display: block; overflow-x: auto; } th, td { border: 1px solid #d1d9e0; padding: .3rem .6rem; }
td { vertical-align: top; } code { background: #f6f8fa; padding: .1em .3em; border-radius: 4px; }
figure { margin: 1rem 0; } svg { max-width: 100%; height: auto; } li.task { list-style: none; margin-left: -1.4em; }
@media print { body { max-width: none; } h2 { break-after: avoid; } figure { break-inside: avoid; } }
"""


def render(draft: str, title: str, events: Sequence[Document], evidence: Document | None) -> str:
    """
    Return the page.

    Args:
        draft: The Markdown of `incident/postmortem.py`.
        title: Of the window.
        events: The incident's events, the oldest first.
        evidence: What was frozen at its detection, or None.
    """
    from markdown_it import MarkdownIt  # noqa: PLC0415  loaded when the first page is asked for

    text: str = MarkdownIt("commonmark", {"html": False}).enable("table").render(draft)
    text = _TASK.sub(lambda found: f'<li class="task">{"☑" if found[1] == "x" else "☐"} ', text)
    plots = "".join(f"<figure>{plot}</figure>" for plot in _plots(events, evidence))
    before, mark, after = text.partition("<h2>Timeline</h2>")
    body = f"{before}<h2>Course</h2>{plots}{mark}{after}" if plots else text
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>\n{body}</body></html>\n"
    )


def _plots(events: Sequence[Document], evidence: Document | None) -> Iterable[str]:
    if evidence is not None:
        seconds = _seconds(evidence)
        if len(seconds) > 1:
            labels = [clock(unix) for unix in seconds]
            rows = list(seconds.values())
            traffic = {name: [float(row[name]) for row in rows] for name in ("arrived", "failed", "refused")}
            yield _line("traffic", "Requests a second before detection", labels, traffic)
            latency = {
                f"p{round(100 * q)}": [histogram.quantile(row["latency"], q) for row in rows] for q in (0.5, 0.95)
            }
            yield _line("latency", "Latency in seconds before detection", labels, latency)
    shares = _shares(events)
    if shares is not None:
        yield _line("shares", "Part of the requests that passed, in %", *shares)


def _seconds(evidence: Document) -> dict[float, dict[str, Any]]:
    """Return the evidence's seconds, all routes together, in order of time."""
    found: dict[float, dict[str, Any]] = {}
    for route in evidence["routes"]:
        for second in route["series"]:
            unix = float(round(unix_of(second["time"])))
            row = found.setdefault(unix, {"arrived": 0, "failed": 0, "refused": 0, "latency": {}})
            row["arrived"] += second["arrivals"]
            row["failed"] += second.get("failures", 0)
            row["refused"] += sum(second.get("refused", {}).values())
            row["latency"] = histogram.merge(row["latency"], dict(second.get("latency", ())))
    return dict(sorted(found.items()))


def _shares(events: Sequence[Document]) -> tuple[list[str], dict[str, Curve]] | None:
    """Return what passed of each isolation over time, as stairs; None when nothing was isolated."""
    steps: dict[str, list[tuple[float, float | None]]] = {}
    for event in events:
        body = event["body"]
        if event["kind"] in ("isolation.started", "isolation.ramped") and "share" in body:
            steps.setdefault(body["id"], []).append((event["unix"], 100.0 * body["share"]))
        elif event["kind"] == "isolation.ended" and body["id"] in steps:
            steps[body["id"]] += [(event["unix"], 100.0), (event["unix"] + SHARES_S, None)]
    if not steps:
        return None
    begin = min(moves[0][0] for moves in steps.values()) - SHARES_S
    end = max(moves[-1][0] for moves in steps.values()) + SHARES_S
    step_s = max(1.0, (end - begin) / MAX_POINTS)
    times = [begin + step_s * place for place in range(int((end - begin) / step_s) + 1)]
    return [clock(unix) for unix in times], {
        name: [_at(moves, unix) for unix in times] for name, moves in steps.items()
    }


def _at(moves: Sequence[tuple[float, float | None]], unix: float) -> float | None:
    passed = [share for at, share in moves if at <= unix]
    return passed[-1] if passed else None


def _line(name: str, title: str, labels: Sequence[str], curves: Mapping[str, Curve]) -> str:
    import pygal  # noqa: PLC0415  loaded when the first page is asked for
    from pygal.style import Style  # noqa: PLC0415

    # pygal's finder for map plugins has no find_spec: every later import of something absent would warn (Python 3.11).
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, pygal.PluginImportFixer)]

    every = max(1, len(labels) // LABELS)
    chart = pygal.Line(
        title=title, width=WIDTH, height=HEIGHT, explicit_size=True, js=(), show_dots=False, legend_at_bottom=True,
        disable_xml_declaration=True, show_minor_x_labels=False, x_labels_major=list(labels[::every]), include_x_axis=True,
        style=Style(background="transparent", plot_background="#ffffff", font_family="sans-serif", colors=COLORS),
    )  # fmt: skip
    chart.uuid = name
    chart.x_labels = list(labels)
    for curve, values in curves.items():
        chart.add(curve, list(values))
    drawn: str = chart.render(is_unicode=True)
    return _SCRIPT.sub("", _COMMENT.sub("", drawn))
