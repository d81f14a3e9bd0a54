"""The recorded HTTP/1.1 cases, and where they are: `SIDECAR_DATA`, or `../shared/data` beside the repository."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REQUEST_SUITES = ("httpd", "llhttp", "portswigger", "smuggler")
RESPONSE_SUITES = ("llhttp-resp",)


@dataclass(frozen=True, slots=True)
class Case:
    """
    One recorded message, or several in a row.

    Attributes:
        id: Unique, as `httpd/http_strict-1`.
        suite: The file that it comes from.
        kind: `accept`: forward exactly; `reject`: refuse, nothing goes up; `either`: refuse, or forward one unambiguous request.
        parts: Bytes to send, each after a pause in seconds.
        count: How many messages are in it, when the suite says so.
        note: The suite's own words.
    """

    id: str
    suite: str
    kind: str
    parts: tuple[tuple[bytes, float], ...]
    count: int | None
    note: str

    @property
    def raw(self) -> bytes:
        """All bytes of the case."""
        return b"".join(part for part, _ in self.parts)


def directory() -> Path | None:
    """Return the directory of the cases, or None when it is not here."""
    root = os.environ.get("SIDECAR_DATA") or Path(__file__).parents[2].parent / "shared" / "data"
    path = Path(root) / "http"
    return path if path.is_dir() else None


def load(path: Path, suites: Sequence[str]) -> list[Case]:
    """Read the cases of some suites."""
    found = []
    for suite in suites:
        for line in (path / f"{suite}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            parts = tuple((text.encode("latin-1"), float(pause_s)) for text, pause_s in row["parts"])
            found.append(Case(row["id"], row["suite"], row["cls"], parts, row["n"], row["note"]))
    return found


def stratified(cases: Sequence[Case], most: int) -> list[Case]:
    """Take at most *most* of each suite and kind, evenly spread over it."""
    strata: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        strata.setdefault((case.suite, case.kind), []).append(case)
    taken = []
    for stratum in strata.values():
        step = max(1, -(-len(stratum) // most))
        taken += stratum[::step]
    return taken
