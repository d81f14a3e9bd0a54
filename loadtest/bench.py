"""
`make bench`: what one request costs in each proxy, side by side.

Every proxy runs on core 0, the load (wrk) and the API behind (nginx, 683 bytes of JSON) on core 1. Rounds are
interleaved, so that a noisy neighbour meets all alike; figures are medians over rounds. CPU is user + system of all
processes of the proxy, from the kernel's accounting, divided by the answered requests. Quote ratios: the bare times
depend on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import sysconfig
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loadtest import peers
from loadtest.measure import Cost, Load, cost, wrk
from loadtest.peers.certificate import make_certificate
from loadtest.shots import SHOTS
from sidecar.compiled import WHY

PROXY_CORE: Final = 0
LOAD_CORE: Final = 1
BODY_BYTES: Final = 683
GOALS: Final = {"Envoy": 0.50, "HAProxy": 1.5, "naive aiohttp": 0.20}
MEMORY_GOAL_MB: Final = 120


@dataclass(frozen=True, slots=True)
class Round:
    """One peer in one round."""

    load: Load
    user_us: float
    system_us: float
    cpu_us: float
    memory: Cost


STRAY_RATIO = 1e-4
"""A neighbour may answer so few requests badly and still be compared: with 256 connections the naive proxy does."""


def body(size: int = BODY_BYTES) -> str:
    """Return *size* bytes of JSON, by default as many as a small API answers with."""
    row = {"id": 7, "name": "blue cup", "price_cents": 458, "stock": 1000000, "text": ""}
    empty = json.dumps(row)
    return json.dumps(row | {"text": "x" * (size - len(empty))})


def measure(
    running: peers.Running, connections: int, seconds: float, script: Path | None = None, *, tls: bool = False
) -> Round:
    """Warm one peer up, load it, and return what it cost."""
    wrk(running.port, connections=connections, seconds=1, core=LOAD_CORE, script=script, tls=tls)
    before = cost(running.process.pid)
    load = wrk(running.port, connections=connections, seconds=seconds, core=LOAD_CORE, script=script, tls=tls)
    after = cost(running.process.pid)
    if load.bad and (running.name == "sidecar" or load.bad > STRAY_RATIO * load.requests):
        raise SystemExit(f"{running.name} answered {load.bad} requests badly: no figure of it counts")
    user, system = after.user_us - before.user_us, after.system_us - before.system_us
    share = user / (user + system) if user + system else 0.0
    exact = (after.exact_us - before.exact_us) / load.requests
    return Round(load, exact * share, exact * (1 - share), exact, after)


def summarise(rounds: list[Round]) -> dict[str, float]:
    """Return the medians of one peer's rounds."""
    middle = statistics.median
    return {
        "cpu_us": middle(r.cpu_us for r in rounds),
        "user_us": middle(r.user_us for r in rounds),
        "system_us": middle(r.system_us for r in rounds),
        "requests_per_s": middle(r.load.per_s for r in rounds),
        "p50_us": middle(r.load.p50_us for r in rounds),
        "p99_us": middle(r.load.p99_us for r in rounds),
        "pss_mb": middle(r.memory.pss_bytes for r in rounds) / 1e6,
        "rss_mb": middle(r.memory.rss_bytes for r in rounds) / 1e6,
    }


def run(given: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Start all peers, measure them in turn, and return the medians by name."""
    chosen = [peer for peer in peers.PEERS if not given.only or peer.name in given.only]
    for peer in [peer for peer in chosen if not peers.program(peer.needs)]:
        print(f"{peer.name} is not installed and is left out", file=sys.stderr)
        chosen.remove(peer)
    found: dict[str, list[Round]] = {peer.name: [] for peer in chosen}
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as folder, ExitStack() as stack:
        Path(folder).chmod(0o755)
        script = Path(folder, "shots.lua") if SHOTS[given.shots] else None
        if script is not None:
            script.write_text(SHOTS[given.shots])
        backend = stack.enter_context(peers.start_backend(Path(folder), LOAD_CORE, body(given.body_bytes)))
        shown = make_certificate(Path(folder)) if given.tls else None
        running = [
            stack.enter_context(peers.start(p, Path(folder), PROXY_CORE, backend.port, certificate=shown))
            for p in chosen
        ]
        time.sleep(2)  # everybody has started; what a start costs is not what a request costs
        for number in range(given.rounds):
            for one in running[number % len(running) :] + running[: number % len(running)]:
                found[one.name].append(measure(one, given.connections, given.seconds, script, tls=given.tls))
                last = found[one.name][-1]
                print(f"  round {number + 1}/{given.rounds}  {one.name:14} {last.cpu_us:6.1f} µs", file=sys.stderr)
    return {name: summarise(rows) for name, rows in found.items()}


def report(results: dict[str, dict[str, float]]) -> dict[str, float]:
    """Print the table and return the sidecar's CPU ratios by peer."""
    print(
        f"{'':14} {'CPU µs':>8} {'user':>6} {'system':>7} {'req/s':>8} {'p50 µs':>8} {'p99 µs':>8} {'PSS MB':>7} {'RSS MB':>7}"
    )
    for name, row in sorted(results.items(), key=lambda item: item[1]["cpu_us"]):
        print(
            f"{name:14} {row['cpu_us']:8.1f} {row['user_us']:6.1f} {row['system_us']:7.1f} {row['requests_per_s']:8.0f}"
            f" {row['p50_us']:8.0f} {row['p99_us']:8.0f} {row['pss_mb']:7.1f} {row['rss_mb']:7.1f}"
        )
    if "sidecar" not in results:
        return {}
    own = results["sidecar"]
    ratios = {name: own["cpu_us"] / row["cpu_us"] for name, row in results.items() if name != "sidecar"}
    print()
    for name, ratio in ratios.items():
        goal = GOALS.get(name)
        verdict = "" if goal is None else f"   goal ≤ {goal}: {'met' if ratio <= goal else 'MISSED'}"
        print(f"CPU per request of {name + ':':15} {ratio:5.2f}{verdict}")
    memory = own["pss_mb"]
    print(
        f"memory of the whole sidecar: {memory:.0f} MB   goal ≤ {MEMORY_GOAL_MB} MB: {'met' if memory <= MEMORY_GOAL_MB else 'MISSED'}"
    )
    return ratios


def main() -> int:
    """Run the benchmark and return 0."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench", description=__doc__)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shots", choices=tuple(SHOTS), default="same", help="what is asked: see loadtest/shots.py")
    parser.add_argument("--body-bytes", type=int, default=BODY_BYTES, help="how large the answers are")
    parser.add_argument("--tls", action="store_true", help="every proxy terminates TLS, with the same certificate")
    parser.add_argument("--only", action="append", default=[], metavar="PEER")
    parser.add_argument("--json", type=Path, default=Path("bench-latest.json"))
    given = parser.parse_args()
    if WHY:
        print(f"the sidecar runs from its source: {WHY}", file=sys.stderr)
    results = run(given)
    ratios = report(results)
    machine = {
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "python_optimised": "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or ""),
    }
    settings = {
        "connections": given.connections,
        "seconds": given.seconds,
        "rounds": given.rounds,
        "shots": given.shots,
        "body_bytes": given.body_bytes,
        "tls": given.tls,
    }
    document = {"machine": machine, "settings": settings, "peers": results, "sidecar_to": ratios}
    given.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
