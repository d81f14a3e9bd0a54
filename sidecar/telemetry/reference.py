"""`python -m sidecar.telemetry.reference`: write `docs/reference/metrics.md` from the catalogue; a test fails while it lags."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sidecar.measure.histogram import RELATIVE_ERROR
from sidecar.telemetry.catalogue import CATALOGUE, Metric

METRICS_PAGE: Final = Path("docs/reference/metrics.md")
_HEAD: Final = f"""\
# Metrics

`GET /metrics` on the `observe` listener, in Prometheus' text format. Made from `sidecar/telemetry/catalogue.py` by
`make docs`.

- Counters begin at zero with the controller and never fall when a worker restarts. What a killed worker counted since
  its last tick (at most a second) is lost; nothing else is.
- Gauges of a worker vanish when its link ends.
- Labels are bounded. What lies beyond a bound is counted under `_other`.
- Histograms come from log-spaced buckets: a request within {RELATIVE_ERROR:.1%} of a bound may be counted on its other
  side; sums and counts are exact.
- Times are in seconds, ratios in 0..1.

| name | type | labels | meaning |
|---|---|---|---|
"""


def page() -> str:
    """Return the page."""
    return _HEAD + "".join(f"{_row(metric)}\n" for metric in CATALOGUE)


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    bounds = f" Bounds: {', '.join(f'{bound:g}' for bound in metric.bounds_s)}." if metric.bounds_s else ""
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help}{bounds} |"


def main() -> None:
    """Write the page."""
    METRICS_PAGE.parent.mkdir(parents=True, exist_ok=True)
    METRICS_PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
