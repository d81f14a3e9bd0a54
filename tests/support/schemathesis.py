"""
Run schemathesis against a live admin API: so many examples a call, each call judged by what its own row documents.

A request that fits its schema may only be answered by 200 or by what a schema cannot express: no such thing (404), not in
its present state (409), not the active version (412), a text that means nothing (422). One that does not fit may only be
answered by a refusal of its form. Which of these a call can answer is its own row in the table, and nothing else counts.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from sidecar.admin.calls import EVENTS, LINES, Call
from sidecar.admin.openapi import PREFIX, operation_id, statuses

BEYOND_SCHEMA = {404, 409, 412, 422}
OF_FORM = {400, 401, 404, 412, 413, 415, 422, 428}  # 404, 412: a malformed name, or a well-formed one of nothing
ENDLESS = (EVENTS, LINES)  # streams, tested elsewhere


def judged(calls: Iterable[Call]) -> str:
    """Return a configuration of schemathesis with the expected statuses of each call."""
    tables = []
    for call in calls:
        documented = set(statuses(call))
        expected = {
            "positive_data_acceptance": [200, *sorted(documented & BEYOND_SCHEMA)],
            "negative_data_rejection": sorted(documented & OF_FORM),
            "missing_required_header": sorted(documented & {400, 401, 428}),
        }
        lines = [f"checks.{check}.expected-statuses = {json.dumps([*map(str, of)])}" for check, of in expected.items()]
        tables.append("\n".join(["[[operations]]", f"include-operation-id = {json.dumps(operation_id(call))}", *lines]))
    return "\n\n".join(tables) + "\n"


async def fuzz(base_url: str, secret: str, calls: Iterable[Call], *, examples: int, seed: int = 1) -> tuple[int, str]:
    """
    Send generated requests to every call but the endless streams.

    Args:
        base_url: `http://HOST:PORT` of the admin listener.
        secret: The bearer token.
        calls: The table.
        examples: So many generated requests a call, beside those that its schema's edges give.

    Returns:
        The exit code (0: nothing found) and what schemathesis printed, each line cut.
    """
    table = list(calls)
    with tempfile.TemporaryDirectory() as folder:  # schemathesis leaves files where it runs
        config = Path(folder) / "schemathesis.toml"
        config.write_text(judged(table), encoding="utf-8")
        streams = [PREFIX + call.path for call in table if call.media in ENDLESS]
        return await _run(config, base_url, secret, streams, examples, seed)


async def _run(
    config: Path, base_url: str, secret: str, streams: list[str], examples: int, seed: int
) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(config),
        "run", f"{base_url}/api/v1/openapi.json", "--header", f"Authorization: Bearer {secret}",
        *(word for path in streams for word in ("--exclude-path", path)), "--phases", "coverage,fuzzing",
        "--continue-on-failure", "--max-examples", str(examples), "--seed", str(seed), "--no-shrink", "--no-color",
        "--generation-database", "none", "--suppress-health-check", "too_slow",  # a busy machine is no fault of the API
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=config.parent,
    )  # fmt: skip
    printed, _ = await process.communicate()
    text = "\n".join(line[:400] for line in printed.decode(errors="replace").splitlines())
    return process.returncode or 0, text
