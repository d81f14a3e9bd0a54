"""Tapes for tests: steady traffic with trouble in it, by arithmetic."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sidecar.config.load import load
from sidecar.config.policies import Compiled
from sidecar.replay.player import Event, Player
from sidecar.replay.seconds import seconds
from sidecar.replay.tape import read

QUICK = "detect: {warmup: 10s, clear_after: 5s}\n"


def config(text: str = QUICK) -> Compiled:
    """Compile a config for a replay."""
    return load(text, name="config", environ={}, flags={"--upstream": "http://127.0.0.1:9"})


def steady(
    until: int, *, route: str = "checkout", per_s: int = 20, bad: Mapping[range, float] | None = None,
    clients: int = 0, culprit: bool = False, start: int = 0, **more: Any,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """
    Yield lines of one route: *per_s* requests a second, of which in the seconds of *bad* that ratio fails.

    Args:
        clients: Names so many clients, who share the requests evenly.
        culprit: Only the first client fails, wholly.
    """
    owed = 0.0
    for t in range(start, until):
        ratio = next((part for span, part in (bad or {}).items() if t in span), 0.0)
        owed += per_s * ratio
        failures, owed = int(owed), owed - int(owed)
        each = per_s // clients if clients else 0
        if culprit and ratio:
            failures = each
        table = {
            f"k{i}": [each, (failures if culprit else failures // clients) if not culprit or i == 0 else 0]
            for i in range(clients)
        }
        row: dict[str, Any] = {
            "t": float(t),
            "route": route,
            "requests": per_s,
            "failures": failures,
            "latency": [[0.012, per_s]],
        }
        yield row | ({"clients": table} if clients else {}) | more


def texts(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return rows as lines of a tape, in order of time."""
    return [json.dumps(row) + "\n" for row in sorted(rows, key=lambda row: row["t"])]


def played(rows: Iterable[Mapping[str, Any]], compiled: Compiled | None = None) -> list[Event]:
    """Return what happens on a tape."""
    return list(Player(compiled or config()).play(seconds(read(texts(rows)))))
