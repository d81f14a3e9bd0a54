"""A whole sidecar as users start it: supervisor, controller and worker as real processes, on ports of its own."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tests.support.patience import WAIT_S

T = TypeVar("T")


@dataclass
class Running:
    """
    One running sidecar.

    Attributes:
        lines: What it has logged so far, parsed.
    """

    process: subprocess.Popen[str]
    state: Path
    lines: list[dict[str, Any]] = field(default_factory=list)
    _news: queue.Queue[dict[str, Any]] = field(default_factory=queue.Queue)

    def __post_init__(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with contextlib.suppress(ValueError):
                self._news.put(json.loads(line))
        self._news.put({"event": "the log ends"})

    def wait_for(self, *words: str, timeout_s: float = WAIT_S, after: int = 0) -> None:
        """Wait until for each of *words* a log line's event begins with it; the first *after* lines do not count."""
        known = self.lines[after:]
        left = {word for word in words if not any(line["event"].startswith(word) for line in known)}
        while left:
            line = self._news.get(timeout=timeout_s)
            self.lines.append(line)
            left -= {word for word in left if line["event"].startswith(word)}
            assert not left or line["event"] != "the log ends", self.lines

    def _address(self, listener: str) -> str:
        start = next(line for line in self.lines if line["event"] == "sidecar starts")
        return f"http://{start[listener]}"

    @property
    def admin(self) -> str:
        """Return the admin API's `http://HOST:PORT`."""
        return self._address("admin")

    @property
    def api(self) -> str:
        """Return where clients connect."""
        return self._address("listen")

    @property
    def observe(self) -> str:
        """Return where /metrics is."""
        return self._address("observe")

    @property
    def token(self) -> str:
        """Return the first-start token."""
        return (self.state / "admin.token").read_text().strip()


@contextlib.contextmanager
def running(folder: Path, upstream: str, more: str = "") -> Iterator[Running]:
    """
    Run a sidecar in front of *upstream*; it is stopped by SIGTERM when the block ends.

    Args:
        folder: Gets `sidecar.yaml` and the state directory `var`.
        more: YAML of further top-level keys.
    """
    state = folder / "var"
    (folder / "sidecar.yaml").write_text(
        f"listen: 127.0.0.1:0\nobserve: 127.0.0.1:0\nadmin: {{listen: 127.0.0.1:0}}\nstate: {state}\n"
        f"upstream: {{endpoints: ['{upstream}']}}\n{more}"
    )
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SIDECAR") or name == "SIDECAR_INTERPRETED"
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "sidecar", "run", "-c", "sidecar.yaml"],
        cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        made = Running(process, state)
        made.wait_for("sidecar starts", "worker-0 is ready", "controller is ready")
        yield made
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def eventually(ask: Callable[[], T | None], timeout_s: float = WAIT_S) -> T:
    """Return the first answer of *ask* that is not None: for what another process does in its own time."""
    end = time.monotonic() + timeout_s
    while (answer := ask()) is None:
        assert time.monotonic() < end, f"nothing within {timeout_s} s"
        time.sleep(0.02)
    return answer
