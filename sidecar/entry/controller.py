"""
The controller's composition root: `python -m sidecar.entry.controller`, started by the supervisor.

It inherits the `observe`, `admin` and `link` listeners and a heartbeat. When the heartbeat ends the supervisor is gone
and the controller ends itself; `stop` ends it in order: what waits is stored first.
"""

from __future__ import annotations

import gc
import sys

if __name__ == "__main__":
    gc.disable()  # until all is imported: nothing of it is garbage, and a tenth of the start goes into finding that out
    sys.modules["rich"] = None  # type: ignore[assignment]  # structlog would draw it in for a terminal's sake: 3 MB

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TextIO, cast

import structlog
import uvloop
from aiohttp import web

from sidecar import __version__, clock
from sidecar.admin.app import create_app as admin_app
from sidecar.admin.first_token import first_token
from sidecar.config.certificates import CertificateError, Renewing
from sidecar.config.diff import touches
from sidecar.config.errors import ConfigErrors
from sidecar.config.policies import Token
from sidecar.controller.answers import Answers
from sidecar.controller.book import MARK_COUNTERS
from sidecar.controller.configuring import Configuring
from sidecar.controller.control import STORED_S, Desk, Events
from sidecar.controller.effects import Write
from sidecar.controller.engine import Engine, Restored
from sidecar.controller.journal import Journal
from sidecar.controller.loop import Loop, moment
from sidecar.controller.starting import Source
from sidecar.controller.tokens import Keyring
from sidecar.entry import remembered
from sidecar.link.runtime import BootConfig, read_boot
from sidecar.link.server import LinkServer
from sidecar.notify.dispatch import Dispatcher
from sidecar.store.errors import StoreError
from sidecar.store.key import load_install_key
from sidecar.supervise.at_once import AtOnce
from sidecar.supervise.tether import tether
from sidecar.telemetry import logs
from sidecar.telemetry.metrics import MetricViews, render
from sidecar.telemetry.observe import create_app as observe_app

HEARTBEAT_S: Final = 1.0
FIRST_FOLD_S: Final = 60.0
FOLD_S: Final = 3600.0
MORE_S: Final = 1.0
INFORMED_S: Final = 2.0
INVALID: Final = 2


@dataclass(frozen=True, slots=True)
class Told:
    """What the supervisor told this child in SIDECAR_CHILD."""

    epoch: str
    supervisor: int
    fds: Mapping[str, Any]
    runtime: Path
    config_file: Path | None
    flags: Mapping[str, str]
    static: Mapping[str, Any]

    @classmethod
    def read(cls, text: str) -> Told:
        """Read the variable's JSON."""
        row = json.loads(text)
        file = Path(row["config_file"]) if row["config_file"] else None
        return cls(
            row["epoch"], row.get("supervisor", 0), row["fds"], Path(row["runtime"]), file, row["flags"], row["static"]
        )

    def listener(self, name: str) -> socket.socket:
        """Return an inherited listening socket."""
        made = socket.socket(fileno=self.fds[name][0])
        made.setblocking(False)
        return made


class Controller:
    """One controller process, from its start to its end."""

    def __init__(self, told: Told) -> None:
        self._told = told
        self._state = Path(told.static["state"])
        self._facts: dict[str, Any] = {}
        self._informed = asyncio.Event()
        self._news = asyncio.Event()
        self._reloads = asyncio.Event()
        self._why = "SIGHUP"
        self._stop = asyncio.Event()
        self._events = Events()
        self._journal = Journal(self._state, self._events.publish, self._remembered, self._store_failed)
        source = Source(told.config_file, os.environ, told.flags)
        self._configuring = Configuring(source, self._journal, self._activate)
        self._dispatcher = Dispatcher(())
        self._log = structlog.get_logger("controller")
        self._ready = False
        self._loop: Loop | None = None
        self._keyring: Keyring | None = None

    def __repr__(self) -> str:
        return f"<Controller {'ready' if self._ready else 'starting'}>"

    async def run(self) -> int:
        """Serve until told to stop; return the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.set)
        heart = asyncio.create_task(self._beat())
        boot = read_boot(self._told.runtime)
        await self._journal.open()
        try:
            await self._configuring.begin(boot)
        except (ConfigErrors, OSError, UnicodeDecodeError) as error:
            self._log.critical("no configuration can run", problem=str(error))
            await self._journal.close()
            return INVALID
        key = self._install_key()
        self._loop = loop = await self._make_loop(boot, key)
        self._link.start()
        self._keyring = Keyring(
            lambda: self._configuring.admin.tokens, self._token(), self._journal, await remembered.tokens(self._journal)
        )
        desk = Desk(
            loop, self._journal, self._configuring, self._dispatcher, self._events, self._facts, key, self._keyring,
            Answers(self._store, await remembered.answers(self._journal)),
        )  # fmt: skip
        desk.learning.restore(await remembered.proposals(self._journal))
        with contextlib.suppress(TimeoutError):  # what `/readyz` says must be known before it is asked
            await asyncio.wait_for(self._informed.wait(), INFORMED_S)
        admin = self._configuring.admin
        runners = [
            await _serve(observe_app(self._metrics, self._checks), self._told.listener("observe")),
            await _serve(
                admin_app(desk, allowed_hosts=[*_hosts(self._told.static["admin"]), *admin.hosts]),
                self._told.listener("admin"),
                Renewing(admin.tls, "admin.tls", self._complain).context if admin.tls is not None else None,
            ),
        ]
        tasks = [
            asyncio.create_task(work) for work in (loop.run(), desk.learning.run(), self._fold_on(), self._reload_on())
        ]
        self._say_ready(ready=True)
        self._log.info("the controller serves", version=self._configuring.active.version)
        await self._stop.wait()
        self._say_ready(ready=False)
        await self._end(loop, tasks, runners)
        heart.cancel()
        return 0

    async def _make_loop(self, boot: BootConfig | None, key: bytes) -> Loop:
        active = self._configuring.active
        self._dispatcher.apply(active.compiled.receivers)
        restored, recorded = await remembered.engine(self._journal), await remembered.seconds(self._journal)
        if boot is not None and restored is not None:
            boot = replace(boot, directives=())  # the engine remembers what is behind them
        engine = Engine(
            active.compiled,
            seed=key.hex(),
            now=moment(),
            restored=restored or _nothing_remembered(),
            boot=clock.boot_id(),
        )
        self._link = LinkServer(self._told.listener("link"), self._take, self._lost)
        loop = Loop(engine, self._link, self._journal, self._configuring, self._dispatcher, self._told.runtime, boot)
        loop.tapes.restore(recorded)
        touched = touches(self._configuring.begun_with)
        loop.carry_out(engine.configured(active.row, active.compiled, touched, moment()))
        return loop

    async def _end(self, loop: Loop, tasks: list[asyncio.Task[None]], runners: list[web.AppRunner]) -> None:
        """End in order; the heart beats on meanwhile, so that this does not look like a hung process."""
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await loop.close()
        loop.carry_out(loop.engine.leaving(moment()))
        await asyncio.gather(*(runner.cleanup() for runner in runners), self._dispatcher.close())
        await self._link.close()
        await self._journal.close()

    def _complain(self, problem: str) -> None:
        self._log.error("changed certificate files cannot be used", problem=problem)

    def _say_ready(self, *, ready: bool) -> None:
        self._ready = ready
        self._news.set()

    def _remembered(self) -> list[Write]:
        """Return what a new store must hold, after a damaged one was set aside; the engine's part is put behind it."""
        if self._loop is not None:
            self._loop.carry_out(self._loop.engine.restate(moment()))
        tokens = self._keyring.remembered() if self._keyring is not None else []
        return [*self._configuring.remembered(), *tokens]

    def _store_failed(self) -> None:
        if self._loop is not None:
            self._loop.engine.store_failed()

    def _take(self, worker: int, frame: Any) -> None:
        if self._loop is not None:
            self._loop.take(worker, frame)

    def _lost(self, worker: int) -> None:
        if self._loop is not None:
            self._loop.lost(worker)

    def _activate(self, active: Any, changes: Any) -> None:
        if self._loop is not None:
            self._loop.activate(active, changes)

    def _install_key(self) -> bytes:
        try:
            return load_install_key(self._state)
        except StoreError as error:
            self._log.error("the install key cannot be read: client keys from headers differ", problem=str(error))
            return clock.token_bytes(32)

    def _token(self) -> Token | None:
        try:
            return first_token(self._state, self._configuring.admin)
        except OSError as error:
            self._log.error("no first token could be made; nobody can use the admin API", problem=str(error))
            return None

    async def _store(self, writes: Sequence[Write]) -> None:
        self._journal.put(writes)
        await self._journal.stored(STORED_S)

    async def _fold_on(self) -> None:
        """Let the store's old rows go, soon after the start and an hour apart; a part at a time."""
        pause_s = FIRST_FOLD_S
        while True:
            await asyncio.sleep(pause_s)
            oldest = clock.wall().timestamp() - self._configuring.active.compiled.store.retention_s
            pause_s = FOLD_S
            with contextlib.suppress(StoreError):
                folded = await self._journal.read(lambda store, oldest=oldest: store.fold(oldest))  # type: ignore[misc]
                pause_s = MORE_S if folded.more else FOLD_S

    # --- what the supervisor hears and says -------------------------------------------------------------------

    async def _beat(self) -> None:
        heart = socket.socket(fileno=self._told.fds["heartbeat"])
        heart.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=heart)
        orders = asyncio.create_task(self._obey(reader))
        while not orders.done():
            self._news.clear()
            writer.write(json.dumps({"ready": self._ready}).encode() + b"\n")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), HEARTBEAT_S)
        os._exit(0)  # the supervisor is gone: nobody is left to end this process in order

    async def _obey(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                self._take_order(line)
        self._news.set()

    def _take_order(self, line: bytes) -> None:
        try:
            order = dict(json.loads(line))
        except (ValueError, TypeError):  # a torn line says nothing
            return
        match order.pop("do", None):
            case "stop":
                self._stop.set()
            case "reload":
                self._why = str(order.get("why", self._why))
                self._reloads.set()
            case "reload_failed":  # the supervisor found it and said why; the metric says it too
                self._configuring.last_apply_ok = False
            case "facts":
                self._facts.update(order)
                self._informed.set()

    async def _reload_on(self) -> None:
        """Read the file again whenever the supervisor wants it; an order that came while we started, or meanwhile, counts."""
        while True:
            await self._reloads.wait()
            self._reloads.clear()
            try:
                await self._configuring.reload(self._why)
            except Exception:  # the next SIGHUP must find somebody
                self._log.exception("the file could not be applied")

    # --- what is observed -------------------------------------------------------------------------------------

    def _checks(self) -> Mapping[str, str]:
        workers = self._facts.get("workers") or []
        serving = any(worker["ready"] and not worker["draining"] for worker in workers)
        return {
            "workers": "" if serving else "no worker serves",
            "draining": "the sidecar is shutting down" if self._facts.get("draining") else "",
        }

    def _metrics(self) -> bytes:
        assert self._loop is not None
        engine, now = self._loop.engine, moment()
        return render(engine.totals(), self._completed(engine.metric_views(now)))

    def _completed(self, views: MetricViews) -> MetricViews:
        """Add what the process knows to the engine's part."""
        assert self._loop is not None
        workers = {row["index"]: False for row in self._facts.get("workers") or ()}
        return replace(
            views,
            config_version=self._configuring.active.version,
            config_apply_ok=self._configuring.last_apply_ok,
            worker_restarts=self._facts.get("restarts", {}).get("worker", 0),
            links=workers | dict.fromkeys(self._loop.workers, True),
            lag_s={"controller": self._loop.lag_s},
            store_ok=self._journal.durable,
            notifications_lost={row["name"]: row["lost"] for row in self._dispatcher.views()},
            version=__version__,
        )


def _nothing_remembered() -> Restored:
    """
    Return the memory of an engine whose store cannot be read.

    Numbers go on from the clock: were they counted from one, they would replace what the store has under them.
    """
    number = int(clock.wall().timestamp())
    return Restored(marks={MARK_COUNTERS: json.dumps({"incident": number, "isolation": number})})


def _hosts(admin: str) -> list[str]:
    host = admin.rpartition(":")[0].strip("[]")
    return [host] if host and not admin.startswith("unix:") else []


async def _serve(app: web.Application, listener: socket.socket, tls: ssl.SSLContext | None = None) -> web.AppRunner:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=2)
    await runner.setup()
    await web.SockSite(runner, listener, ssl_context=tls).start()
    return runner


def main() -> int:
    """Run the controller and return its exit code."""
    gc.freeze()
    gc.enable()
    logs.setup("controller", stream=cast("TextIO", AtOnce(sys.stderr)))
    told = Told.read(os.environ["SIDECAR_CHILD"])
    if told.supervisor:
        tether(told.supervisor)

    async def serve() -> int:
        return await Controller(told).run()

    try:
        return uvloop.run(serve())
    except CertificateError as error:
        structlog.get_logger("controller").critical("nobody can be served on admin", problem=str(error))
        return INVALID


if __name__ == "__main__":
    sys.exit(main())
