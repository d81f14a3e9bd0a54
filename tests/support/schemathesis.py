"""Run schemathesis against a live admin API."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

CONFIG = Path(__file__).parents[1] / "integration" / "schemathesis.toml"


async def fuzz(base_url: str, secret: str, *, examples: int, seed: int = 1) -> tuple[int, str]:
    """
    Send generated requests to every call but the endless event stream.

    Args:
        base_url: `http://HOST:PORT` of the admin listener.
        secret: The bearer token.
        examples: At most so many generated requests a call.

    Returns:
        The exit code (0: nothing found) and what schemathesis printed, each line cut.
    """
    with tempfile.TemporaryDirectory() as folder:  # schemathesis leaves files where it runs
        return await _run(base_url, secret, examples, seed, folder)


async def _run(base_url: str, secret: str, examples: int, seed: int, folder: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG),
        "run", f"{base_url}/api/v1/openapi.json", "--header", f"Authorization: Bearer {secret}",
        "--exclude-path", "/api/v1/events", "--exclude-path", "/api/v1/tape", "--phases", "coverage,fuzzing", "--continue-on-failure",
        "--max-examples", str(examples), "--seed", str(seed), "--no-color", "--generation-database", "none",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=folder,
    )  # fmt: skip
    printed, _ = await process.communicate()
    text = "\n".join(line[:400] for line in printed.decode(errors="replace").splitlines())
    return process.returncode or 0, text
