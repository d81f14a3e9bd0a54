"""A short run of the coverage-guided fuzzer; the long one is `python -m tests.fuzz.target -max_total_time=600`."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECONDS = int(os.environ.get("SIDECAR_FUZZ_S", "8"))
SEEDS = (
    b"\x00GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n", b"\x00POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
    b"\x00POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", b"\x00GET http://a/b HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"\x01\x025;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n", b"\x01\x001\r\nx\r\n0\r\n\r\n", b"\x02HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
    b"\x02HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
)  # fmt: skip


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris is not installable here (Python 3.13 and newer)"
)
def test_nothing_is_found_in_a_short_run(tmp_path: Path) -> None:
    """
    No input that coverage leads to raises, is read otherwise by h11, or depends on how it is torn.
    """
    for number, seed in enumerate(SEEDS):
        (tmp_path / str(number)).write_bytes(seed)
    command = [
        sys.executable,
        "-m",
        "tests.fuzz.target",
        f"-max_total_time={SECONDS}",
        "-max_len=600",
        f"-artifact_prefix={tmp_path}/",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS + 80, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    assert "Instrumenting sidecar.proxy.body" in done.stderr, "coverage leads only where there is bytecode"
    assert "Done " in done.stderr
