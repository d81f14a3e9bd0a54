"""How answers look: tables for people, JSON for scripts. No I/O here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from sidecar.cli.client import Failure

HALF_DAY_S: Final = 43_200.0
_STATE_STYLE: Final = {
    "open": "bold red", "severe": "bold red", "failed": "red", "refused": "red", "down": "bold red",
    "warning": "yellow", "acknowledged": "yellow", "provisional": "yellow", "recovering": "yellow",
    "half_open": "yellow", "confirming": "yellow", "observe": "cyan", "mitigated": "cyan", "pending": "yellow",
    "confirmed": "green", "resolved": "green", "closed": "green", "enforce": "green", "active": "green", "ok": "green",
}  # fmt: skip


def as_json(answer: Any) -> str:
    """Return *answer* for a script: stable key order as the API sent it, one document, a line feed at the end."""
    return json.dumps(answer, indent=2, ensure_ascii=False) + "\n"


def failure_lines(failure: Failure) -> Iterable[str]:
    """Return the lines a person reads: what and where, each single error with its place, and what to type next."""
    yield f"[red]✗[/] {escape(failure.problem)}"
    said = [f"{error.get('path')}: {error.get('problem')}" for error in failure.errors]
    for error in failure.errors if said != [failure.problem] else ():
        yield f"  {escape(error_line(error))}"
    if failure.hint:
        yield f"  → {escape(failure.hint)}"


def error_line(error: Mapping[str, Any]) -> str:
    """Return one config error as `LINE:COLUMN: PATH: PROBLEM (HINT)`."""
    place = f"{error['line']}:{error['column']}: " if error.get("line") else ""
    hint = f" ({error['hint']})" if error.get("hint") else ""
    path = f"{error['path']}: " if error.get("path") else ""
    return f"{place}{path}{error.get('problem', '')}{hint}"


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], empty: str) -> Table | str:
    """
    Return a table; or *empty*, a sentence, when there are no rows.

    Args:
        columns: Headings; one that ends in `#` is set to the right (and shown without it).
        rows: Cells: text, numbers, None, or rich text.
    """
    made = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        made.add_column(name.removesuffix("#"), justify="right" if name.endswith("#") else "left", overflow="fold")
    count = 0
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(_plain(cell)) for cell in row))
        count += 1
    return made if count else f"[dim]{escape(empty)}[/]"


def fields(rows: Iterable[tuple[str, Any]]) -> Table:
    """Return name and value lines, without a frame; empty values are left out."""
    made = Table.grid(padding=(0, 2))
    for name, value in rows:
        if value not in (None, "", [], {}):
            made.add_row(Text(name, style="dim"), value if isinstance(value, Text) else Text(_plain(value)))
    return made


def state(word: str | None) -> Text:
    """Return a state in its color."""
    return Text(word or "–", style=_STATE_STYLE.get(word or "", ""))


def share(ratio: float | None) -> str:
    """Return a ratio as a person reads it: `3.2%`."""
    return "–" if ratio is None else f"{100 * ratio:.3g}%"


def seconds(value: float | None) -> str:
    """Return a duration as the config writes it, rounded: `250ms`, `12s`, `4m10s`, `2h5m`."""
    if value is None:
        return "–"
    if value < 1:
        return f"{1000 * value:.0f}ms"
    if value < 9.95 and value != round(value):
        return f"{value:.1f}s"
    whole = round(value)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m{rest}s" if rest else f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}h{minutes}m" if minutes else f"{hours}h"
    return f"{hours // 24}d{hours % 24}h"


def moment(text: str | None, now: datetime) -> str:
    """Return an RFC 3339 time as `17:03:12Z (4m10s ago)`; a date only when it is half a day away."""
    if not text:
        return "–"
    at = datetime.fromisoformat(text).astimezone(UTC)
    distance = (now - at).total_seconds()
    words = f"{seconds(distance)} ago" if distance >= 0 else f"in {seconds(-distance)}"
    form = "%H:%M:%SZ" if abs(distance) < HALF_DAY_S else "%Y-%m-%d %H:%M:%SZ"
    return f"{at.strftime(form)} ({words})"


_WHAT: Final = {"errors": " fail", "trip": " fail", "latency": " slow", "refusals": " refused", "drift": " fail"}


def measured(signal: Mapping[str, Any]) -> str:
    """Return a signal's value, its worst, its baseline and its sample: `2% fail lately, 100% at worst (normally 0.1%), 34 requests`."""
    unit = signal.get("unit", "ratio")
    value, baseline = _in(unit, signal.get("value")), _in(unit, signal.get("baseline"))
    worst = _in(unit, signal.get("worst", signal.get("value")))
    what = _WHAT.get(signal.get("detector", ""), "") if unit == "ratio" else ""
    present = f"{value}{what}" if worst == value else f"{value}{what} lately, {worst} at worst"
    if not signal.get("sample") and signal.get("detector") != "silence":
        return f"{worst}{what} at worst (normally {baseline}), no requests now"
    times = f"opened {signal.get('score', 1):.0f}×; " if signal.get("detector") == "trip" else ""
    return f"{times}{present} (normally {baseline}), {signal.get('sample')} requests"


def figure(value: float) -> str:
    """Return a quantity with three digits that mean something, or whole: `0.25`, `12.3`, `3,080`."""
    return f"{value:,.0f}" if value >= 999.5 else f"{value:.3g}"


def _in(unit: str, value: float | None) -> str:
    match unit:
        case "ratio":
            return share(value)
        case "s":
            return seconds(value)
        case _:
            return "–" if value is None else f"{figure(value)}/s"


def _plain(cell: Any) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float):
        return f"{cell:.4g}"
    # What a client chose (a key, a path) may stand in a cell: it must not move the reader's cursor.
    return "".join(letter if letter.isprintable() or letter == "\n" else "�" for letter in str(cell))
