"""`python -m loadtest.detection`: measure the scoreboard of detection, print it, write it as JSON."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Final

from loadtest.detection import numenta, petshop, quiet, synthetic, verdicts
from loadtest.detection.recordings import RecordingsMissingError
from loadtest.detection.scoreboard import Effort, Measured, Row, Yardstick, table

YARDSTICKS: Final = (
    Yardstick(1, "NAB standard, optimised threshold", "≥ 75", "≥ 80", numenta.row_1),
    Yardstick(2, "NAB standard, cross-validated", "≥ 67", "≥ 72", numenta.row_2),
    Yardstick(3, "NAB low-FP / low-FN", "68 / 80", "72 / 84", numenta.row_3),
    Yardstick(4, "NAB at the shipped threshold", "≥ 70", "≥ 75", numenta.row_4),
    Yardstick(5, "time to detect: 20 % / 5 % at 10/s; outage at 1/s", "≤ 3 / ≤ 15; ≤ 4", "≤ 2 / ≤ 12; ≤ 3", synthetic.row_5),
    Yardstick(6, "false alarms a route-month, φ = 3, diurnal", "≤ 1", "≤ 0.2", quiet.row_6),
    Yardstick(7, "false isolations on quiet traffic", "0", "0", synthetic.row_7),
    Yardstick(8, "PetShop: recall of 26 / median delay / quiet alarms a day", "19 / ≤ 150 s / ≤ 0.5", "22 / ≤ 90 s / ≤ 0.2", petshop.row_8),
    Yardstick(9, "verdict loop: precision after ten verdicts, real ones hidden", "≥ 0.9, 0", "≥ 0.97, 0", verdicts.row_9),
    Yardstick(10, "cost a request / memory a route", "≤ 2 µs / 16 KiB", "≤ 1 µs / 8 KiB", synthetic.row_10),
)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Measure what was asked for; 1 when recordings are missing: their rows say so, the others are measured."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.detection", description=__doc__)
    parser.add_argument("--rows", default="", help="only these, as 1,4,8")
    parser.add_argument("--quick", action="store_true", help="a tenth of the seeds and days")
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 4))
    parser.add_argument("--json", type=Path, default=Path("bench-detect.json"), help="where to write the figures")
    asked = parser.parse_args(arguments)
    effort = Effort(workers=asked.workers, quick=asked.quick)
    wanted = {int(number) for number in asked.rows.split(",") if number}
    rows = [_measured(one, effort) for one in YARDSTICKS if not wanted or one.number in wanted]
    print(table(rows))
    document = {"quick": asked.quick, "rows": [row.to_json() for row in rows]}
    asked.json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    print(f"written to {asked.json}")
    absent = [str(row.number) for row in rows if row.verdict == "absent"]
    if absent:
        print(
            f"bench-detect: rows {', '.join(absent)} need recordings that are not here: set SIDECAR_DATA",
            file=sys.stderr,
        )
    return 1 if absent else 0


def _measured(yardstick: Yardstick, effort: Effort) -> Row:
    began = time.monotonic()
    try:
        found = yardstick.measure(effort)
    except RecordingsMissingError as missing:
        found = Measured("recordings absent", met=False, moonshot_met=False, numbers={"absent": str(missing)})
    spent = time.monotonic() - began
    print(f"row {yardstick.number}: {found.text}  ({spent:.0f} s)", file=sys.stderr, flush=True)
    return Row(
        yardstick.number, yardstick.what, found.text, yardstick.goal, yardstick.moonshot,
        found.met, found.moonshot_met, spent, found.numbers,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
