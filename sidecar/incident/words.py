"""How moments, ratios, durations and rates read, the same in alerts, documents, timelines and post-mortems."""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(unix: float) -> str:
    """Return Unix seconds as RFC 3339 in UTC with milliseconds and a `Z`."""
    return datetime.fromtimestamp(round(unix, 3), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def unix_of(text: str) -> float:
    """Return the Unix seconds of what `rfc3339` wrote."""
    return datetime.fromisoformat(text).timestamp()


def clock(unix: float) -> str:
    """Return the time of day for a person, as `03:12:07Z`."""
    return datetime.fromtimestamp(unix, UTC).strftime("%H:%M:%SZ")


def percent(ratio: float) -> str:
    """Return a ratio as `100 %`, `12 %`, `0.1 %`: at most two digits that mean something below 10 %."""
    value = 100.0 * ratio
    return f"{value:.0f} %" if value >= 9.95 or value == 0 else f"{value:.2g} %"


def duration(seconds: float) -> str:
    """Return seconds as the config writes them, rounded: `250ms`, `12s`, `4m10s`, `2h5m`."""
    if seconds < 0.9995:
        return f"{1000 * seconds:.0f}ms"
    if seconds < 9.95 and round(seconds, 1) != round(seconds):
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest}s"
    if minutes < 60:
        return f"{minutes}m{rest}s" if rest else f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m" if minutes else f"{hours}h"


def measured(value: float, unit: str) -> str:
    """Return a signal's value or baseline in its unit: `ratio`, `s` or `per_s`."""
    match unit:
        case "ratio":
            return percent(value)
        case "s":
            return duration(value)
        case _:
            return f"{figure(value)}/s"


def figure(value: float) -> str:
    """Return a quantity with three digits that mean something, or whole: `0.25`, `12.3`, `3,080`."""
    return f"{value:,.0f}" if value >= 999.5 else f"{value:.3g}"


def many(count: float, word: str) -> str:
    """Return a count with its noun: `1 request`, `1,204 requests`."""
    return f"{count:,.0f} {word}" if round(count) == 1 else f"{count:,.0f} {word}s"
