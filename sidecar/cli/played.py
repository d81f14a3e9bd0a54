"""How a replay reads for a person: one line an event, in the words of the other verbs, and what it came to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from sidecar.cli import render

if TYPE_CHECKING:
    from sidecar.replay.player import Event

EPOCH_S: Final = 1e9  # a `t` from here on is a time, below it an offset


def event_line(event: Event) -> str:
    """Return one event as a line."""
    what = _WORDS[event.event](event) if event.event in _WORDS else ""
    where = event.scope if event.route in event.scope.split(":") else f"{event.scope} on {event.route}"
    return f"{moment(event.t):>20}  {event.event:<7}  {event.detector:<9} {where}: {what}\n"


def moment(t: float) -> str:
    """Return a tape's time: with its date where it is one, else in seconds."""
    return datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%d %H:%M:%SZ") if t >= EPOCH_S else f"{t:g}"


def summary(seconds: int, tolls: Mapping[str, Any], incidents: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what all of it came to, line by line."""
    yield f"\n{render.seconds(seconds)} played\n"
    for route, toll in tolls.items():
        refused = sum(toll.refused.values())
        part = render.share(refused / toll.requests if toll.requests else 0.0)
        words = ", ".join(f"{reason} {count:,}" for reason, count in sorted(toll.refused.items()))
        said = f"{route}: {toll.requests:,} requests, {toll.failures:,} failed, {refused:,} refused ({part})"
        yield f"{said}: {words}\n" if words else f"{said}\n"
    for row in incidents:
        yield f"{'would-have ' if row['observed'] else ''}incident {row['id']}: {row['title']} ({row['state']}, {row['resolution'] or 'not ended'})\n"


def _alarm(event: Event) -> str:
    seen = event.detail
    signal = {"detector": event.detector, **{k: seen[k] for k in ("value", "baseline", "unit", "sample")}}
    severe = ", severe" if seen["severe"] else ""
    return f"{render.measured(signal)}{severe}, score {event.score:.1f} of {seen['threshold']:.1f}, since {moment(seen['since'])}"


def _clear(event: Event) -> str:
    return f"after {render.seconds(event.detail['lasted_s'])}"


def _isolate(event: Event) -> str:
    seen = event.detail
    passes = f", {render.share(seen['share'])} pass" if seen.get("share") is not None else ""
    return f"incident {seen['incident']}, {seen['action']}{passes}: {seen['reason']}"


def _ramp(event: Event) -> str:
    seen = event.detail
    proof = f" after {seen['trials']} trials, {seen['failures']} of them failed" if "trials" in seen else ""
    return f"incident {seen['incident']}, {render.share(seen['from'])} → {render.share(seen['share'])}{proof}"


def _release(event: Event) -> str:
    return f"incident {event.detail['incident']}, {event.detail['state']}: {event.detail['why']}"


def _propose(event: Event) -> str:
    return f"incident {event.detail['incident']}, would {event.detail['would']}, does not because: {event.detail['because']}"


_WORDS: Final = {
    "alarm": _alarm, "clear": _clear, "isolate": _isolate, "ramp": _ramp, "release": _release, "propose": _propose,
}  # fmt: skip
