"""
A whole sidecar on real processes: `sidecar run` from a YAML file, on ports of the kernel's choice, in a directory of its own.

Everything that is started here is ended here, by its process id. Waiting is asking until a deadline; what the sidecar
said is shown when something does not come true.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import http.client
import json
import os
import resource
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlencode, urlsplit

import yaml

from tests.support.load import Load, Shot
from tests.support.patience import WAIT_S

ROOT = Path(__file__).resolve().parents[2]
SECRETS = {"viewer": "viewer-secret-0001", "operator": "operator-secret-0002", "admin": "admin-secret-0003"}
_T = TypeVar("_T")
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def tied() -> None:
    """Let the kernel kill this child when the test run dies, so that a killed run leaves nothing behind."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def until(ask: Callable[[], _T | None], what: str | Callable[[], str], *, within: float = WAIT_S) -> _T:
    """Ask until there is a true answer and return it; fail at the deadline with *what* was waited for."""
    deadline = time.monotonic() + within
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {within:.0f} s: {what if isinstance(what, str) else what()}")
        time.sleep(0.03)


@dataclass(frozen=True)
class Reply:
    """One answer of the admin API or the observe listener."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def body(self) -> Any:
        """The answer as JSON."""
        return json.loads(self.text)


def call(
    address: str,
    method: str,
    path: str,
    *,
    body: bytes | str | Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = WAIT_S,
    tls: ssl.SSLContext | None = None,
) -> Reply:
    """Do one HTTP request and return its answer, whatever the status."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=timeout_s)
    if tls is not None:
        connection = http.client.HTTPSConnection(host, int(port), timeout=timeout_s, context=tls)
    sent = dict(headers or {})
    if isinstance(body, Mapping):
        body, sent["Content-Type"] = json.dumps(body), "application/json"
    try:
        connection.request(method, path, body, sent)
        answer = connection.getresponse()
        text = answer.read().decode()
        return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, text)
    finally:
        connection.close()


class Shop:
    """The bundled sample API as a process, with its fault switches."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "sidecar.demo.shop", "--listen", "127.0.0.1:0", "--switches", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            preexec_fn=tied,  # noqa: PLW1509  one call into libc, which is loaded already
        )
        assert self.process.stdout is not None
        said = json.loads(self.process.stdout.readline())
        self.url: str = said["shop"]
        self._faults: str = urlsplit(said["faults"]).netloc

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def breaks(self, **faults: object) -> None:
        """Set the switches; none mends it."""
        assert call(self._faults, "PUT", "/faults", body=faults).status == 200


def settings(upstream: str, /, **sections: Any) -> dict[str, Any]:
    """Return a config with short times in front of *upstream*; *sections* replace whole sections, None leaves one out."""
    made: dict[str, Any] = {
        "listen": "127.0.0.1:0",
        "observe": "127.0.0.1:0",
        "admin": {
            "listen": "127.0.0.1:0",
            "tokens": [
                {"name": role, "role": role, "sha256": hashlib.sha256(secret.encode()).hexdigest()} for role, secret in SECRETS.items()
            ],
        },
        "workers": 1,
        "upstream": {"endpoints": [upstream], "response_timeout": "30s"},
        "service": {"limit": {"rate": "5000/s", "burst": 10000}},
        "routes": [
            {"name": "checkout", "match": {"path": "/api/checkout", "methods": ["POST"]}},
            {"name": "default", "match": {"path": "/**"}},
        ],
        "detect": {"warmup": "3s", "clear_after": "2s"},
        "respond": {
            "lease": "10m", "ramp": {"steps": ["10%", "50%", "100%"], "hold": "1s"}, "rollback": "propose",
        },
    }  # fmt: skip
    return {name: section for name, section in (made | sections).items() if section is not None}


@dataclass
class Sidecar:
    """
    One sidecar; use it as a context, or call `start` and `end`.

    Attributes:
        config: What is written to the file; change it and call `write`.
        folder: Holds the file, the state, the runtime directory and the log.
        program: The command line's beginning.
        admin_tls: How to speak to its admin listener.
        descriptors: Soft and hard file limit to start with; () leaves them as they are here.
    """

    config: dict[str, Any]
    args: Sequence[str] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="sc-")))
    process: subprocess.Popen[bytes] | None = None
    descriptors: tuple[int, int] | tuple[()] = ()
    program: Sequence[str] = (sys.executable, "-m", "sidecar")
    admin_tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        self.config.setdefault("state", str(self.folder / "state"))
        self._logged = 0
        self.write()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        failed = kind is not None
        if failed:
            sys.stderr.write(f"\n--- what the sidecar said\n{self.log()[-8000:]}\n")
        log = self.log()
        self.end()
        if not failed:
            assert "Traceback" not in log, log[-8000:]

    # --- its life

    @property
    def file(self) -> Path:
        """Its configuration file."""
        return self.folder / "sidecar.yaml"

    @property
    def state(self) -> Path:
        """Its state directory."""
        return Path(self.config["state"])

    @property
    def environment(self) -> dict[str, str]:
        """What it is started with; nothing of ours that begins with SIDECAR."""
        ours = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("SIDECAR") or name == "SIDECAR_INTERPRETED"
        }
        return {**ours, "XDG_RUNTIME_DIR": str(self.folder), **self.environ}

    def write(self, text: str | None = None) -> str:
        """Write the file and return its text."""
        text = self.text if text is None else text
        self.file.write_text(text, encoding="utf-8")
        return text

    @property
    def text(self) -> str:
        """The config as YAML."""
        return yaml.safe_dump(self.config, sort_keys=False)

    def start(self, *, wait: bool = True) -> None:
        """Start it, and wait until everything serves."""
        log = self.folder / "sidecar.log"
        self._logged = log.stat().st_size if log.exists() else 0
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [*self.program, "run", "-c", str(self.file), *self.args],
                cwd=self.folder, env={**self.environment, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, start_new_session=True,
                preexec_fn=self._begin,  # noqa: PLW1509  a system call or two
            )  # fmt: skip
        if wait:
            self.until_serving()

    def _begin(self) -> None:
        tied()
        if self.descriptors:
            resource.setrlimit(resource.RLIMIT_NOFILE, self.descriptors)

    def until_serving(self) -> None:
        """Wait until every worker is ready and its link stands."""
        until(lambda: self._dead() or self.serving(), lambda: f"the sidecar serves; it said:\n{self.log()[-8000:]}")
        assert not self._dead(), f"the sidecar ended, or its children cannot live:\n{self.log()[-8000:]}"

    def _dead(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            return True
        return self.log().count("died (status") > 3

    def serving(self) -> bool:
        """Tell whether the controller answers and every wanted worker is linked."""
        try:
            status = self.api("GET", "/status", timeout_s=5).body
        except (OSError, http.client.HTTPException, LookupError, ValueError):
            return False
        up = [row for row in status.get("workers", ()) if row["up"] and not row.get("draining")]
        return len(up) == int(self.config.get("workers", 1)) == len(status["workers"])

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor."""
        assert self.process is not None
        self.process.send_signal(number)

    def leave(self, timeout_s: float = WAIT_S) -> int:
        """Send SIGTERM, wait, and return the exit code."""
        self.signal(signal.SIGTERM)
        assert self.process is not None
        return self.process.wait(timeout_s)

    def restart(self) -> None:
        """End it in order and start it again."""
        assert self.leave() == 0
        self.start()

    def end(self) -> None:
        """End whatever lives of it, and remove its directory."""
        pids = self.pids() if self.process is not None else []
        for pid in [*([self.process.pid] if self.process is not None and self.process.poll() is None else []), *pids]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- what it says

    def log(self, *, whole: bool = False) -> str:
        """Return what it wrote since its last start."""
        path = self.folder / "sidecar.log"
        if not path.exists():
            return ""
        return path.read_bytes()[0 if whole else self._logged :].decode(errors="replace")

    def events(self, process: str = "") -> list[dict[str, Any]]:
        """Return its log lines since its last start."""
        rows = []
        for line in self.log().splitlines():
            with contextlib.suppress(ValueError):
                row = json.loads(line)
                if not process or row.get("process") == process:
                    rows.append(row)
        return rows

    def said(self, words: str, *, after: int = 0) -> dict[str, Any] | None:
        """Return the last log line whose event contains *words*; the first *after* lines do not count."""
        return next((row for row in reversed(self.events()[after:]) if words in str(row.get("event"))), None)

    def until_said(self, words: str, *, after: int = 0) -> dict[str, Any]:
        """Wait for a log line, see `said`."""
        return until(
            lambda: self.said(words, after=after), lambda: f"it says {words!r}; it said:\n{self.log()[-8000:]}"
        )

    def _addresses(self) -> dict[str, str]:
        found = next((row for row in self.events("supervisor") if row["event"] == "sidecar starts"), None)
        if found is None:
            raise LookupError("it has not said where it listens")
        moves = [str(row["event"]).partition(" moves to ") for row in self.events()]
        return {**found, **{name: address for name, _, address in moves if address}}

    def address(self, listener: str = "listen") -> tuple[str, int]:
        """Return where a listener is now."""
        host, _, port = str(self._addresses()[listener]).rpartition(":")
        return host, int(port)

    # --- how it is used

    def api(
        self,
        method: str,
        path: str,
        body: bytes | str | Mapping[str, Any] | None = None,
        *,
        role: str = "admin",
        headers: Mapping[str, str] | None = None,
        timeout_s: float = WAIT_S,
        **query: str | int | None,
    ) -> Reply:
        """Call the admin API as *role*."""
        given = {name: value for name, value in query.items() if value is not None}
        target = f"/api/v1{path}" + (f"?{urlencode(given)}" if given else "")
        sent = {"Authorization": f"Bearer {SECRETS[role]}", **(headers or {})}
        where = str(self._addresses()["admin"])
        return call(where, method, target, body=body, headers=sent, timeout_s=timeout_s, tls=self.admin_tls)

    def get(self, path: str, **query: str | int | None) -> Any:
        """Return one document of the admin API."""
        reply = self.api("GET", path, **query)
        assert reply.status == 200, reply
        return reply.body

    def apply(self, text: str, *, if_match: int | None = None, reason: str = "a test", **query: str | int) -> Reply:
        """PUT a config over the active version, or over *if_match*."""
        version = self.get("/config")["version"] if if_match is None else if_match
        headers = {"Content-Type": "application/yaml", "If-Match": f'"v{version}"'}
        return self.api("PUT", "/config", text, headers=headers, reason=reason, **query)

    def observe(self, path: str) -> Reply:
        """Ask the observe listener."""
        return call(str(self._addresses()["observe"]), "GET", path)

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the command line as an operator would."""
        return subprocess.run(
            [sys.executable, "-m", "sidecar", *words],
            capture_output=True, text=True, timeout=WAIT_S, check=False, cwd=self.folder,
            env={**self.environment, "PYTHONPATH": str(ROOT), "SIDECAR_TOKEN": SECRETS["admin"]},
        )  # fmt: skip

    def load(
        self,
        rate: float = 100.0,
        shots: Sequence[Shot] = (Shot(),),
        connections: int = 12,
        tls: ssl.SSLContext | None = None,
    ) -> Load:
        """Return a steady load on it."""
        return Load(self.address(), rate, shots, connections, tls=tls)

    # --- its processes

    def pids(self, module: str = "") -> list[int]:
        """Return the living processes of this sidecar but the supervisor: of *module*, by their command line."""
        mark = f"XDG_RUNTIME_DIR={self.folder}\0".encode()
        found = []
        for folder in Path("/proc").iterdir():
            if not folder.name.isdecimal() or (self.process is not None and int(folder.name) == self.process.pid):
                continue
            with contextlib.suppress(OSError):
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                ours = mark in (folder / "environ").read_bytes()
                if ours and module in line and (folder / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                    found.append(int(folder.name))
        return sorted(found)

    def controller(self) -> int:
        """Return the controller's pid."""
        return until(lambda: self.pids("sidecar.entry.controller"), "a controller lives")[-1]

    def workers(self) -> list[int]:
        """Return the workers' pids."""
        return self.pids("sidecar.entry.worker")

    def memory_bytes(self) -> dict[str, int]:
        """Return the proportional set size of each of its processes."""
        assert self.process is not None
        found = {}
        for pid in [self.process.pid, *self.pids()]:
            with contextlib.suppress(OSError):
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                name = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[2].decode()
                pss = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
                found[f"{name} {pid}"] = int(pss.split()[1]) * 1024
        return found


@contextlib.contextmanager
def sidecar(upstream: str, /, **sections: Any) -> Iterator[Sidecar]:
    """Run a sidecar with these settings in front of *upstream* until the block ends."""
    with Sidecar(settings(upstream, **sections)) as running:
        yield running


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to one process."""
    os.kill(pid, number)


def gone(pid: int) -> bool:
    """Tell whether a process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
