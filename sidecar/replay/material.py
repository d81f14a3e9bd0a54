"""
The stored history as something to play: minutes first, then the last two hours second by second.

A stored minute has no seconds, so it is played as steps of `STEP_S` with an even part of its counts each: a burst
shorter than that is not in it, and a limit that only bursts would meet refuses nothing there. Minutes in which nothing
came are not stored, and are a pause of the recording.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sidecar.replay.reel import MINUTE_S, Minute
from sidecar.replay.seconds import Second, seconds
from sidecar.replay.tape import Line, read

STEP_S: Final = 10
STEPS: Final = MINUTE_S // STEP_S


@dataclass(frozen=True, slots=True)
class Material:
    """
    What there is to play.

    Attributes:
        minutes: By route, the stored aggregates of whole minutes, each with its `minute_unix`.
        reel: Recorded minutes with their seconds, the oldest first.
    """

    minutes: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    reel: Sequence[Minute] = ()

    @property
    def span(self) -> tuple[float, float] | None:
        """Return the first and the last Unix second of it; None when there is nothing."""
        starts = [row["minute_unix"] for rows in self.minutes.values() for row in rows[:1]]
        starts += [minute.unix for minute in self.reel[:1]]
        ends = [row["minute_unix"] + MINUTE_S for rows in self.minutes.values() for row in rows[-1:]]
        ends += [minute.unix + MINUTE_S for minute in self.reel[-1:]]
        return (min(starts), max(ends)) if starts else None

    def seconds(self) -> Iterator[Second]:
        """Yield all of it in time order; minutes that are on the reel are taken from there."""
        begin = self.reel[0].unix if self.reel else float("inf")
        by_minute: dict[int, dict[str, Mapping[str, Any]]] = {}
        for route, rows in self.minutes.items():
            for row in rows:
                if row["minute_unix"] < begin:
                    by_minute.setdefault(row["minute_unix"], {})[route] = row
        for unix in sorted(by_minute):
            yield from _steps(unix, by_minute[unix])
        yield from seconds(read(line for minute in self.reel for line in minute.lines()))


def _steps(unix: int, rows: Mapping[str, Mapping[str, Any]]) -> Iterator[Second]:
    for i in range(STEPS):
        lines = {route: _line(route, row, unix, i) for route, row in rows.items()}
        yield Second(float(unix + STEP_S * (i + 1)), lines, float(STEP_S))


def _line(route: str, row: Mapping[str, Any], unix: int, i: int) -> Line:
    def part(count: int, turn: int = 0) -> int:
        return (count * (i + 1) + turn) // STEPS - (count * i + turn) // STEPS

    clients = row.get("clients")
    return Line(
        0,
        float(unix + STEP_S * (i + 1)),
        route,
        part(row["arrivals"]),
        part(row["failures"], 3),
        part(row["ignored"], 1),
        {index: n for index, count in row["latency"] if (n := part(count, index % STEPS))},
        {reason: n for reason, count in row["refused"].items() if (n := part(count, 2))},
        clients=_clients(clients, part) if clients else None,
        turned={key: part(turned) for key, (_, _, turned) in clients.items()} if clients else None,
    )


def _clients(rows: Mapping[str, Sequence[int]], part: Callable[..., int]) -> dict[str, tuple[int, int]]:
    parts = {key: (part(requests), part(failures, 3)) for key, (requests, failures, _) in rows.items()}
    return {key: (requests, min(failures, requests)) for key, (requests, failures) in parts.items()}
