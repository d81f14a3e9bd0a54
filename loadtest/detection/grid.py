"""
`python -m loadtest.detection.grid`: synthetic truths at every rate, and how soon each is found, against the floor.

One command measures every truth of `truths.py`, and with `--quiet` the false alarms of the six quiet cells of row 6
(`quiet.py`), writes all cells to `grid.json`, and draws them. `--parts` and `--rates` measure some; what was measured
before stays in the file, so that a long grid can be made in pieces.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from math import inf
from pathlib import Path
from typing import Any, Final

from loadtest.detection import quiet, truths
from loadtest.detection.cells import Found
from loadtest.detection.drawing import bars, plot
from loadtest.detection.scoreboard import Effort

DOCS: Final = Path(__file__).resolve().parents[2] / "docs" / "plots"
WATCHED: Final = ("errors", "latency", "traffic")
QUIET: Final = "quiet"


def plots(found: Sequence[Found]) -> dict[str, str]:
    """Return each plot by its file name."""
    return {f"{name}.svg": plot(title, rows, floors=floors) for name, title, rows, floors in _pages(found) if rows}


def _pages(found: Sequence[Found]) -> list[tuple[str, str, list[Found], bool]]:
    def of(part: str) -> list[Found]:
        return [one for one in found if one.part == part]

    mild, worse = ([one for one in of("errors") if one.normal == f"{ratio:.1%} fail"] for ratio in truths.RATIOS)
    whole = [one for one in of("latency") if one.fault.endswith("all")]
    return [
        ("errors", "Failures where 0.1 % are normal", mild, True),
        ("errors-1", "Failures where 1 % are normal", worse, True),
        ("unkind", "The same with φ = 3 on a day with a swing of 60 %", of("unkind"), True),
        ("latency-all", "All requests take longer", whole, True),
        ("latency-tenth", "A tenth of the requests takes longer", [one for one in of("latency") if one not in whole], True),
        ("hang", "Requests that get no first byte", of("hang"), True),
        ("arrivals", "Surge and silence", of("arrivals"), True),
        ("storm", "Failures that are asked again, up to three times", of("storm"), True),
        ("slow", "Slow burns: a leak that grows, and a budget that is spent", [*of("leak"), *of("burn")], True),
    ]  # fmt: skip


def document(found: Sequence[Found]) -> list[dict[str, Any]]:
    """Return the cells as JSON objects; what is infinite is null."""
    return [
        {key: None if value == inf else round(value, 2) if isinstance(value, float) else value for key, value in asdict(one).items()}
        for one in found
    ]  # fmt: skip


def cells(rows: Iterable[dict[str, Any]]) -> list[Found]:
    """Read what `document` wrote."""
    return [Found(**{key: inf if value is None else value for key, value in row.items()}) for row in rows]


def merged(old: Sequence[Found], new: Sequence[Found]) -> list[Found]:
    """Return *new* and what it does not measure anew of *old*, by part, normal, truth and rate."""
    fresh = {(one.part, one.normal, one.fault, one.rate_per_s) for one in new}
    kept = [one for one in old if (one.part, one.normal, one.fault, one.rate_per_s) not in fresh]
    order = {name: place for place, name in enumerate(truths.NAMES)}
    return sorted([*kept, *new], key=lambda one: (order.get(one.part, len(order)), one.rate_per_s))


def main(arguments: list[str] | None = None) -> int:
    """Measure the grid, write it as JSON and as plots."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.detection.grid", description=__doc__)
    rates = ",".join(f"{rate:g}" for rate in truths.RATES)
    parser.add_argument("--rates", default=rates, help="requests a second, as 1,10")
    parser.add_argument("--parts", default=",".join(truths.NAMES), help="which truths; none: only draw")
    parser.add_argument(
        "--quiet", action="store_true", help="measure row 6 too: false alarms in six quiet cells, 600 route-days"
    )
    parser.add_argument("--into", type=Path, default=DOCS, help="where grid.json and the plots go")
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 4))
    asked = parser.parse_args(arguments)
    names = [name for name in asked.parts.split(",") if name]
    unknown = [name for name in names if name not in truths.NAMES]
    if unknown:
        parser.error(f"there is no part {unknown[0]}; the parts are {','.join(truths.NAMES)}")
    tasks = truths.tasks(names, [float(rate) for rate in asked.rates.split(",")])
    file: Path = asked.into / "grid.json"
    kept = json.loads(file.read_text()) if file.exists() else {}
    new: list[Found] = []
    with ProcessPoolExecutor(asked.workers) as pool:
        for rows in pool.map(truths.measure, tasks):
            new += rows
            for one in rows:
                print(
                    f"{one.part:9} {one.rate_per_s:6g}/s  {one.fault:32} {one.delay_s:7g} s, floor {one.floor_s:.1f} s",
                    flush=True,
                )
    found = merged(cells(kept.get("cells", [])), new)
    months = kept.get(QUIET, {})
    if asked.quiet:
        months = quiet.row_6(Effort(workers=asked.workers)).numbers["cells"]
    _write(asked.into, found, months)
    return 0


def _write(into: Path, found: Sequence[Found], months: dict[str, Any]) -> None:
    into.mkdir(parents=True, exist_ok=True)
    rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in document(found))
    text = f'{{"cells": [\n{rows}\n],\n"{QUIET}": {json.dumps(months, ensure_ascii=False)}}}\n'
    (into / "grid.json").write_text(text)
    drawn = plots(found)
    if months:
        drawn["quiet.svg"] = bars(
            "False alarms on quiet traffic with φ = 3 and a day (goal: at most 1)",
            {
                name: (sum(cell[who] for who in WATCHED), cell["days"] / quiet.MONTH_DAYS)
                for name, cell in months.items()
            },
        )
    for name, text in drawn.items():
        (into / name).write_text(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
