"""The post-mortem's section about what it cost: requests and seconds by scope, and each isolation's part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sidecar.incident.postmortem.markup import code, collateral, text
from sidecar.incident.words import duration, many, unix_of

Document = Mapping[str, Any]

_LIVE: Final = frozenset({"provisional", "confirmed", "recovering"})


def impact(incident: Document) -> list[str]:
    """Return the section."""
    return [*_whole(incident), *_by_scope(incident), *_by_isolation(incident)]


def _whole(incident: Document) -> list[str]:
    cost = incident["impact"]
    refused = sum(row["refused"] for row in cost["scopes"])
    other = max(refused - cost["refused"], 0)
    drilled = sum(row["drilled"] for row in cost["scopes"])
    would = collateral(incident["collateral"]["would_have_succeeded_ratio"]) if cost["refused"] else "–"
    lines = [
        "## Impact",
        "",
        "| what | how much |",
        "|---|---|",
        f"| requests failed by the upstream | {cost['failed']:,} |",
        f"| requests refused by isolations | {cost['refused']:,} |",
        f"| of these, would have succeeded | {would} |",
        f"| requests refused by breaker, limits and others | {other:,} |",
        f"| seconds with a failed request, or one that an isolation refused | {cost['seconds']:,} |",
    ]
    return lines + ([f"| requests that met the drill's fault | {drilled:,} |"] if drilled else [])


def _by_scope(incident: Document) -> list[str]:
    rows = incident["impact"]["scopes"]
    cost = incident["impact"]
    if not rows and (cost["failed"] or cost["refused"]):
        return ["", "It was not counted by scope: it began under an older release."]
    if not rows:
        return ["", f"Nothing of {code(incident['scope'])} failed or was refused."]
    lines = [
        "",
        "| scope | failed by the upstream | refused by us | of what isolations refused, would have succeeded | why refused | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        would = collateral(row["would_have_succeeded_ratio"]) if row["isolated"] else "–"
        why = ", ".join(f"{code(reason)} {count:,}" for reason, count in row["reasons"].items()) or "–"
        scope = code(row["scope"]) if ":" in row["scope"] else text(row["scope"])
        lines.append(f"| {scope} | {row['failed']:,} | {row['refused']:,} | {would} | {why} | {row['seconds']:,} |")
    return lines


def _by_isolation(incident: Document) -> list[str]:
    if not incident["isolations"]:
        return []
    lines = ["", "| isolation | for | refused | of these, would have succeeded | ended |", "|---|---|---|---|---|"]
    for row in incident["isolations"]:
        live = row["state"] in _LIVE
        lasted = "until now" if live else duration(unix_of(row["end_time"]) - unix_of(row["start_time"]))
        ended = "no" if live else f"{row['state']}: {text(row['ended_why'])}"
        would = collateral(row["would_have_succeeded_ratio"])
        lines.append(f"| {code(row['scope'])} ({row['id']}) | {lasted} | {row['refused']:,} | {would} | {ended} |")
    return lines


def elsewhere(incident: Document) -> str:
    """Return in a sentence how everything else fared; empty when there was nothing else."""
    others = incident["impact"]["others"]
    if not others["requests"]:
        return ""
    failed = others["failed"]
    return f"Elsewhere {many(others['requests'] - failed, 'request')} succeeded and {failed:,} failed meanwhile."
