"""What a process tree costs (from /proc), and what wrk saw."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TICK_US: Final = 1e6 / os.sysconf("SC_CLK_TCK")
_LATENCY_US: Final = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 6e7}


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU microseconds since the processes began, and their memory now in bytes (proportional share, and resident)."""

    user_us: float
    system_us: float
    exact_us: float
    pss_bytes: int
    rss_bytes: int


@dataclass(frozen=True, slots=True)
class Load:
    """One wrk run."""

    requests: int
    per_s: float
    p50_us: float
    p99_us: float
    bad: int


def tree(pid: int) -> list[int]:
    """Return *pid* and all that descend from it."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            found += [int(child) for child in task.read_text().split()]
    return found


def cost(pid: int) -> Cost:
    """Return what the tree below *pid* has cost so far."""
    user = system = exact = 0.0
    pss = rss = 0
    for member in tree(pid):
        fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        user += int(fields[11]) * TICK_US
        system += int(fields[12]) * TICK_US
        exact += sum(int(t.read_text().split()[0]) for t in Path(f"/proc/{member}/task").glob("*/schedstat")) / 1e3
        memory = Path(f"/proc/{member}/smaps_rollup").read_text()
        pss += _kib(memory, "Pss") * 1024
        rss += _kib(memory, "Rss") * 1024
    return Cost(user, system, exact, pss, rss)


def _kib(text: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) if found else 0


def wrk(
    port: int, *, connections: int, seconds: float, core: int, script: Path | None = None, tls: bool = False
) -> Load:
    """Load a port over keep-alive connections from one pinned thread: with GETs of one path, or as *script* says."""
    scripted = [] if script is None else ["-s", str(script)]
    command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", *scripted,
               f"http{'s' if tls else ''}://127.0.0.1:{port}/api/products/7"]  # fmt: skip
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 30).stdout
    errors = [int(number) for line in re.findall(r"Socket errors:.*", text) for number in re.findall(r"\d+", line)]
    odd = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    return Load(
        requests=int(_match(r"(\d+) requests in", text)),
        per_s=float(_match(r"Requests/sec:\s+([\d.]+)", text)),
        p50_us=_latency(text, 50),
        p99_us=_latency(text, 99),
        bad=sum(errors) + (int(odd[1]) if odd else 0),
    )


def _match(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise SystemExit(f"wrk printed what cannot be read:\n{text}")
    return found[1]


def _latency(text: str, percent: int) -> float:
    value = re.search(rf"{percent}%\s+([\d.]+)(us|ms|s|m)\b", text)
    if value is None:
        raise SystemExit(f"wrk printed no {percent}% latency:\n{text}")
    return float(value[1]) * _LATENCY_US[value[2]]
