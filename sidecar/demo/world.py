"""
The demo's world: a real shop, a real sidecar and real clients, each on ports of its own, in a directory of its own.

Everything that is started here is ended here, by its process id; the directory goes with it.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from sidecar import clock
from sidecar.cli.client import Client as AdminClient
from sidecar.cli.client import Failure
from sidecar.demo.traffic import Client, Traffic

POLL_S: Final = 0.1
START_S: Final = 30.0
_T = TypeVar("_T")

CONFIG: Final = """\
# What `sidecar demo` runs: short times, so that the whole loop fits into two minutes.
listen: 127.0.0.1:{listen}
observe: 127.0.0.1:{observe}
admin: {{listen: 127.0.0.1:{admin}}}
state: {state}
upstream: {{endpoints: ["{shop}"], response_timeout: 3s}}
service:
  limit: {{rate: 2000/s, burst: 4000}}
  concurrency: {{max: 512}}
routes:
  - name: checkout
    match: {{path: /api/checkout, methods: [POST]}}
    limit: {{rate: {checkout_rate}, burst: {checkout_burst}, per_client: {{rate: 50/s, burst: 100, key: "header:x-api-key"}}}}
    concurrency: {{max: 64}}
    breaker: {{window: 10s, min_requests: 20, error_ratio: 90%, consecutive: 40, open: 2s}}
  - name: search
    match: {{path: /api/search}}
    limit: {{rate: 500/s, burst: 1000, per_client: {{rate: 50/s, burst: 100, key: "header:x-api-key"}}}}
  - name: default
    match: {{path: /**}}
    limit: {{rate: 1000/s, burst: 2000, per_client: {{rate: 100/s, burst: 200, key: "header:x-api-key"}}}}
detect: {{warmup: {warmup}, clear_after: {clear_after}, min_requests: 20}}
respond:
  action: throttle
  share: {share}
  lease: {lease}
  ramp: {{steps: {steps}, hold: {hold}}}
  rollback: propose
notify: [{{type: webhook, name: pager, url: "http://127.0.0.1:{webhook}/alerts", secret_file: {secret_file}}}]
"""

SHORT: Final[Mapping[str, str]] = {
    "warmup": "8s", "clear_after": "4s", "lease": "60s", "share": "30%", "steps": "[60%, 100%]", "hold": "1s",
}  # fmt: skip

CLIENTS: Final = (
    Client("web", (("GET", "/api/products/7", 12.0), ("POST", "/api/checkout", 6.0))),
    Client("mobile", (("GET", "/api/products", 6.0), ("POST", "/api/checkout", 8.0))),
    Client("partner", (("POST", "/api/checkout", 30.0),)),
    Client("kiosk", (("GET", "/api/search?q=lamp", 20.0), ("POST", "/api/checkout", 6.0))),
)


class WorldError(Exception):
    """Something of the world did not start; the message says what, and what it printed."""


def free_port() -> int:
    """Return a port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class World:
    """Starts everything on entering and ends it on leaving."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="sidecar-demo-")
        self.folder = Path(self._folder.name)
        self.log = self.folder / "sidecar.log"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._ports = {name: free_port() for name in ("listen", "observe", "admin")}
        self._shop_url = ""
        self._faults_url = ""

    def __repr__(self) -> str:
        return f"<World in {self.folder}>"

    def __enter__(self) -> Self:
        secret = secrets.token_hex(16)
        (self.folder / "webhook.secret").write_text(secret, encoding="ascii")
        self.traffic = Traffic(f"http://127.0.0.1:{self._ports['listen']}", CLIENTS, secret.encode())
        self._webhook = self.traffic.listen()
        try:
            self._start_shop()
            self._start_sidecar()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.traffic.stop()
        for process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
        for process in reversed(self._processes):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._folder.cleanup()

    @property
    def url(self) -> str:
        """Return where the clients connect."""
        return f"http://127.0.0.1:{self._ports['listen']}"

    @property
    def admin_url(self) -> str:
        """Return where the admin API is."""
        return f"http://127.0.0.1:{self._ports['admin']}"

    @property
    def admin(self) -> AdminClient:
        """Return a client with the token that the sidecar made at its first start."""
        token = (self.folder / "state" / "admin.token").read_text(encoding="ascii").strip()
        return AdminClient(self.admin_url, token)

    def config(self, checkout_rate: str = "500/s", checkout_burst: int = 1000) -> str:
        """Return the demo's config with a limit of the checkout."""
        return CONFIG.format(
            **self._ports, **SHORT, state=self.folder / "state", shop=self._shop_url, webhook=self._webhook,
            secret_file=self.folder / "webhook.secret", checkout_rate=checkout_rate, checkout_burst=checkout_burst,
        )  # fmt: skip

    def break_shop(self, **faults: object) -> None:
        """Set the shop's fault switches; none mends it."""
        request = urllib.request.Request(  # noqa: S310  the URL is our own child's
            self._faults_url,
            data=json.dumps(faults).encode(),
            method="PUT",
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
            answer.read()

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the real command line, as an operator would."""
        return subprocess.run(
            [sys.executable, "-m", "sidecar", "--admin", self.admin_url,
             "--token-file", str(self.folder / "state" / "admin.token"), *words],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip

    def until(self, seconds: float, ask: Callable[[], _T | None]) -> tuple[_T | None, float]:
        """Ask until there is an answer or the time is over; return it and the seconds that it took."""
        began = clock.now()
        pause = threading.Event()
        while True:
            answer = ask()
            took = clock.now() - began
            if answer or took >= seconds:
                return answer or None, took
            pause.wait(POLL_S)

    def get(self, path: str, **query: str | int | None) -> Any:
        """Read one document of the admin API."""
        return self.admin.get(path, **query).body

    def _start_shop(self) -> None:
        command = [sys.executable, "-m", "sidecar.demo.shop", "--listen", "127.0.0.1:0", "--switches", "127.0.0.1:0"]
        shop = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self._processes.append(shop)
        assert shop.stdout is not None
        line = shop.stdout.readline()
        if not line:
            raise WorldError("the sample API did not start")
        addresses = json.loads(line)
        self._shop_url, self._faults_url = addresses["shop"], addresses["faults"]

    def _start_sidecar(self) -> None:
        file = self.folder / "sidecar.yaml"
        file.write_text(self.config(), encoding="utf-8")
        environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("SIDECAR_") or name == "SIDECAR_INTERPRETED"
        }
        with self.log.open("wb") as log:
            command = [sys.executable, "-m", "sidecar", "run", "-c", str(file)]
            started = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ)
        self._processes.append(started)
        ready, _ = self.until(START_S, lambda: started.poll() is not None or self._answers())
        if not ready or started.poll() is not None:
            raise WorldError(f"the sidecar did not start:\n{self.log.read_text(errors='replace')[-2000:]}")

    def _answers(self) -> bool:
        try:
            return bool(self.get("/status"))
        except (Failure, OSError):
            return False


def pause(seconds: float) -> None:
    """Let the story's time pass: traffic flows meanwhile, in a thread of its own."""
    time.sleep(seconds)
