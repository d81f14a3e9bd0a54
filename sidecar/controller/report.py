"""
The post-mortem as one HTML page: the Markdown draft, set by markdown-it, with plots that pygal draws as inline SVG.

Theory
    The draft is the source; this adds nothing to it but what the frozen evidence and the events show as curves. No script,
    no font, no address outside: the page is a file that can be mailed and kept. Both libraries are loaded when the first
    page is asked for, and work in a thread, so that neither costs the controller anything before or meanwhile.

Tables (plots)
    what arrived, failed and was refused    each step of the account, from before the onset to the end
    what passed of each isolation           its start, steps and end
    latency, p50 and p95                    each second of the frozen evidence, all its routes together

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

from sidecar.incident.postmortem.draft import Record
from sidecar.incident.words import clock, unix_of
from sidecar.measure import histogram

Document = Mapping[str, Any]
Curve = Sequence[float | None]

WIDTH: Final = 860
HEIGHT: Final = 240
LABELS: Final = 8  # along an axis
SHARES_S: Final = 5.0
MAX_POINTS: Final = 600
COLORS: Final = ("#2f81f7", "#e5534b", "#c69026", "#768390", "#986ee2")  # seen on light and on dark
_COMMENT: Final = re.compile(r"<!--.*?-->", re.DOTALL)
_SCRIPT: Final = re.compile(r"<script.*?</script>", re.DOTALL)
_TASK: Final = re.compile(r"<li>\[( |x)\] ")
_DATUM: Final = re.compile(r"<h3>Datum (\d+)</h3>")
_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1f2328; --line: #d1d9e0; --soft: #f6f8fa; --page: #ffffff; --link: #0969da; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --line: #3d444d; --soft: #212830; --page: #0d1117; --link: #4493f8; }
}
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: var(--ink); background: var(--page); }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.2rem 0 .2rem; } h3 + p { margin: 0; font-size: .85rem; overflow-wrap: anywhere; }
h3:target, h3:target + p { background: var(--soft); } a { color: var(--link); }
table { border-collapse: collapse; display: block; overflow-x: auto; margin: 1rem 0; }
th, td { border: 1px solid var(--line); padding: .3rem .6rem; text-align: left; }
td { vertical-align: top; } td:first-child { white-space: nowrap; }
code { background: var(--soft); padding: .1em .3em; border-radius: 4px; }
figure { margin: 1rem 0; } svg { max-width: 100%; height: auto; color: var(--ink); } li.task { list-style: none; margin-left: -1.4em; }
@media print { body { max-width: none; } h2 { break-after: avoid; } figure { break-inside: avoid; } }
"""


def render(draft: str, title: str, record: Record) -> str:
    """
    Return the page.

    Args:
        draft: The Markdown of `incident/postmortem/draft.py`.
        title: Of the window.
        record: What the draft was made of.
    """
    from markdown_it import MarkdownIt  # noqa: PLC0415  loaded when the first page is asked for

    text: str = MarkdownIt("commonmark", {"html": False}).enable("table").render(draft)
    text = _TASK.sub(lambda found: f'<li class="task">{"☑" if found[1] == "x" else "☐"} ', text)
    text = _DATUM.sub(r'<h3 id="datum-\1">Datum \1</h3>', text)
    plots = "".join(f"<figure>{plot}</figure>" for plot in _plots(record))
    before, mark, after = text.partition("<h2>Timeline</h2>")
    body = f"{before}<h2>Course</h2>{plots}{mark}{after}" if plots else text
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>\n{body}</body></html>\n"
    )


def _plots(record: Record) -> Iterable[str]:
    course = _course(record.account)
    if course is not None:
        yield _line("traffic", "Requests a second: arrived, failed by the API, refused by us", *course)
    shares = _shares(record.events)
    if shares is not None:
        yield _line("shares", "Part of the requests that passed, in %", *shares)
    seconds = _seconds(record.evidence) if record.evidence is not None else {}
    if len(seconds) > 1:
        labels = [clock(unix) for unix in seconds]
        latency = {
            f"p{round(100 * q)}": [_ms(histogram.quantile(row, q)) for row in seconds.values()] for q in (0.5, 0.95)
        }
        yield _line("latency", "Latency in the two minutes before detection, in ms", labels, latency)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000.0 * seconds, 3)


def _course(account: Document | None) -> tuple[list[str], dict[str, Curve]] | None:
    """Return what arrived, failed and was refused from before the onset to the end; None when it was not kept."""
    if account is None or len(account["course"]["arrived"]) < 2:
        return None
    step_s, begin = account["step_s"], account["begin_unix"]
    labels = [clock(begin + step_s * place) for place in range(len(account["course"]["arrived"]))]
    curves: dict[str, Curve] = {
        name: [None if count is None else count / step_s for count in curve]
        for name, curve in account["course"].items()
    }
    return labels, curves


def _seconds(evidence: Document) -> dict[float, dict[int, int]]:
    """Return the evidence's seconds with their latency, all routes together, in order of time."""
    found: dict[float, dict[int, int]] = {}
    for route in evidence["routes"]:
        for second in route["series"]:
            unix = float(round(unix_of(second["time"])))
            found[unix] = histogram.merge(found.get(unix, {}), dict(second.get("latency", ())))
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
        truncate_label=-1, y_labels_major_count=3, show_minor_y_labels=False, min_scale=2, max_scale=6,
        style=Style(
            background="transparent", plot_background="transparent", font_family="sans-serif", colors=COLORS,
            foreground="currentColor", foreground_strong="currentColor", foreground_subtle="currentColor",
        ),
    )  # fmt: skip
    chart.uuid = name
    chart.x_labels = list(labels)
    for curve, values in curves.items():
        chart.add(curve, list(values))
    drawn: str = chart.render(is_unicode=True)
    return _SCRIPT.sub("", _COMMENT.sub("", drawn))
