"""`python -m tests.conformance.full`: every case; exit 1 when one is unsafe."""

from __future__ import annotations

import asyncio
import sys

from tests.conformance import cases
from tests.conformance.runner import report, run_requests, run_responses


async def main() -> int:
    """Run everything and print the figures."""
    path = cases.directory()
    if path is None:
        print("no cases: set SIDECAR_DATA to the directory that holds http/", file=sys.stderr)
        return 2
    verdicts = await run_requests(cases.load(path, cases.REQUEST_SUITES))
    verdicts += await run_responses(cases.load(path, cases.RESPONSE_SUITES))
    print(report(verdicts))
    return 0 if all(verdict.safe for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
