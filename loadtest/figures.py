"""
`python -m loadtest.figures`: what `make bench` does not ask, side by side with a peer where one makes sense.

    idle      memory of each idle connection
    stream    CPU for one GiB that is streamed, beside nginx
    p99       the 99th percentile at about a third of the sidecar's most, beside HAProxy: each client waits between requests
    scrape    the sidecar's 99th percentile at that load, without and with a scrape of /metrics and a status each second
    clients   memory while many more clients come than a limit keeps keys for
    workers   CPU of one request with one worker and with two, both cores for all: what two cores can carry of it
    rest      memory of the sidecar that nobody asks

Every proxy runs on core 0, the load and the API behind on core 1, as in `bench.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from loadtest import peers
from loadtest.bench import LOAD_CORE, PROXY_CORE, body
from loadtest.measure import Cost, cost, tree, wrk

GIB: Final = 1 << 30
IDLE: Final = 10_000
CLIENTS: Final = 300_000
PACED_CONNECTIONS: Final = 150
PAUSE_MS: Final = 10
PACED: Final = f"function delay() return {PAUSE_MS} end"
AT_ONCE: Final = 200

Figures = dict[str, float]


class Bench:
    """One API and its proxies, in one folder, until the `with` block ends."""

    def __init__(self, stack: ExitStack) -> None:
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sidecar-figures-")))
        self.folder.chmod(0o755)
        self._stack = stack
        self._upstream = stack.enter_context(peers.start_backend(self.folder, LOAD_CORE, body())).port

    def start(self, name: str, change: Callable[[str], str] = str, core: int | str = PROXY_CORE) -> peers.Running:
        """Start the peer *name* until the figure is done, its configuration's text passed through *change*."""
        return self._stack.enter_context(self.open(name, change, core))

    def open(self, name: str, change: Callable[[str], str] = str, core: int | str = PROXY_CORE) -> peers.Running:
        """Start the peer *name* until the caller's `with` block ends."""
        peer = next(peer for peer in peers.PEERS if peer.name == name)
        if not peers.program(peer.needs):
            raise SystemExit(f"{name} is not installed: run tests/install-peers.sh bench")
        running = peers.start(peer, self.folder, core, self._upstream, change)
        time.sleep(1)  # it has started; what a start costs is not what is measured
        return running


def idle(bench: Bench) -> Figures:
    """Open many connections, send one request on each, and see what they cost while they do nothing."""
    running = bench.start("sidecar")
    before = cost(running.process.pid)
    after = asyncio.run(_hold(running, IDLE))
    return {"connections": IDLE, "kib_each": (after.pss_bytes - before.pss_bytes) / 1024 / IDLE}


async def _hold(running: peers.Running, count: int) -> Cost:
    held = []
    for start in range(0, count, AT_ONCE):
        many = range(min(AT_ONCE, count - start))
        held += await asyncio.gather(*(asyncio.open_connection("127.0.0.1", running.port) for _ in many))
    for start in range(0, count, AT_ONCE):
        for _, writer in held[start : start + AT_ONCE]:
            writer.write(b"GET /api/products/7 HTTP/1.1\r\nHost: bench\r\n\r\n")
        for reader, _ in held[start : start + AT_ONCE]:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
    found = cost(running.process.pid)
    for _, writer in held:
        writer.transport.abort()
    return found


def stream(bench: Bench) -> Figures:
    """Stream one GiB through the sidecar and through nginx; seconds of CPU for each."""
    large = bench.folder / "large"
    large.mkdir(exist_ok=True)
    with (large / "gib").open("wb") as file:
        file.truncate(GIB)
    found = {}
    for name in ("sidecar", "nginx"):
        running = bench.start(name)
        before = cost(running.process.pid).exact_us
        command = ["taskset", "-c", str(LOAD_CORE), "curl", "-sS", "--fail", "-o", os.devnull, "-w", "%{size_download}"]
        size = subprocess.run([*command, f"http://127.0.0.1:{running.port}/large/gib"], capture_output=True, check=True)
        if int(size.stdout) != GIB:
            raise SystemExit(f"{name} passed on {size.stdout.decode()} bytes of {GIB}")
        found[f"{name}_cpu_s_per_gib"] = (cost(running.process.pid).exact_us - before) / 1e6
    return found | {"ratio": found["sidecar_cpu_s_per_gib"] / found["nginx_cpu_s_per_gib"]}


def p99(bench: Bench) -> Figures:
    """Load the API, HAProxy and the sidecar with clients that wait between requests; what each adds at its 99th percentile."""
    script = bench.folder / "paced.lua"
    script.write_text(PACED)
    found: Figures = {}
    for name in ("HAProxy", "sidecar"):
        running = bench.start(name)
        rounds = [
            wrk(running.port, connections=PACED_CONNECTIONS, seconds=2, core=LOAD_CORE, script=script) for _ in range(4)
        ]
        best = min(rounds[1:], key=lambda load: load.p99_us)
        found |= {f"{name}_p99_us": best.p99_us, f"{name}_p50_us": best.p50_us, f"{name}_requests_per_s": best.per_s}
    return found | {"p99_ratio": found["sidecar_p99_us"] / found["HAProxy_p99_us"]}


def scrape(bench: Bench) -> Figures:
    """Load the sidecar as for `p99`, in turn with and without somebody who reads its metrics and its status."""
    script = bench.folder / "paced.lua"
    script.write_text(PACED)
    running = bench.start("sidecar")
    observe, admin = (f"127.0.0.1:{running.ports[name]}" for name in ("observe", "admin"))
    token = (bench.folder / "state" / "admin.token").read_text().strip()
    load = partial(wrk, running.port, connections=PACED_CONNECTIONS, core=LOAD_CORE, script=script)
    load(seconds=2)
    plain, scraped = [], []
    for _ in range(4):
        plain.append(load(seconds=3).p99_us)
        with reading((f"http://{observe}/metrics", f"http://{admin}/api/v1/status"), token):
            scraped.append(load(seconds=3).p99_us)
    quiet, read = statistics.median(plain), statistics.median(scraped)
    return {"p99_us": quiet, "scraped_p99_us": read, "ratio": read / quiet}


@contextmanager
def reading(urls: Sequence[str], token: str) -> Iterator[None]:
    """Ask for *urls* each second, from a thread, until the block ends."""
    done = threading.Event()

    def ask() -> None:
        while not done.wait(1.0):
            for url in urls:
                request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
                with urllib.request.urlopen(request, timeout=5) as answer:
                    answer.read()

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            yield
        finally:
            done.set()
            asking.result()


def workers(bench: Bench) -> Figures:
    """
    Load one worker, then two, with both cores open to them and to the load.

    The load needs a core of its own, so throughput would tell about the load. What limits a host that has the cores is CPU:
    two workers carry twice of what one carries as far as a request does not become dearer.
    """
    found: Figures = {}
    for count in (1, 2):
        with bench.open("sidecar", partial(_with_workers, count), "0,1") as running:
            wrk(running.port, connections=64, seconds=1, core=LOAD_CORE)
            before = cost(running.process.pid).exact_us
            load = wrk(running.port, connections=64, seconds=6, core=LOAD_CORE)
            found[f"cpu_us_with_{count}"] = (cost(running.process.pid).exact_us - before) / load.requests
    return found | {"scaling": 2 * found["cpu_us_with_1"] / found["cpu_us_with_2"]}


def _with_workers(count: int, text: str) -> str:
    return f"workers: {count}\n{text}"


def rest(bench: Bench) -> Figures:
    """Leave the sidecar alone for ten seconds."""
    running = bench.start("sidecar")
    time.sleep(10)  # the time that is measured
    return {"pss_mb": cost(running.process.pid).pss_bytes / 1e6, "processes": len(tree(running.process.pid))}


def clients(bench: Bench) -> Figures:
    """Send requests of many more clients than a limit keeps keys for: the memory must stay."""

    def keyed(text: str) -> str:
        return text.replace("  - name: shop\n", "  - name: shop\n    client_key: header:x-key\n")

    running = bench.start("sidecar", keyed)
    script = bench.folder / "keys.lua"
    script.write_text("""local n = 0
request = function()
  n = n + 1
  wrk.headers["X-Key"] = "key-" .. n
  return wrk.format("GET", "/api/products/7")
end
""")
    found: Figures = {}
    seen = 0
    for part in range(1, 4):
        while seen < CLIENTS * part:
            seen += wrk(running.port, connections=32, seconds=2, core=LOAD_CORE, script=script).requests
        found[f"pss_mb_after_{part}"] = cost(running.process.pid).pss_bytes / 1e6
    return {"requests": seen} | found


ASKED: Final = {
    "idle": idle, "stream": stream, "p99": p99, "scrape": scrape, "clients": clients, "workers": workers, "rest": rest,
}  # fmt: skip


def main() -> int:
    """Measure what is asked for, print it, and write it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.figures", description=__doc__)
    parser.add_argument("asked", nargs="*", metavar="FIGURE", help=f"of {', '.join(ASKED)}; all of them by default")
    parser.add_argument("--json", type=Path, default=Path("figures-latest.json"))
    given = parser.parse_args()
    unknown = set(given.asked) - set(ASKED)
    if unknown:
        parser.error(f"there is no figure {', '.join(sorted(unknown))}: choose of {', '.join(ASKED)}")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    found: dict[str, Figures] = {}
    for name in given.asked or ASKED:
        with ExitStack() as stack:
            found[name] = ASKED[name](Bench(stack))
        print(f"{name:8}", "  ".join(f"{key} {value:.2f}" for key, value in found[name].items()), flush=True)
    given.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
