"""
The controller's composition root: `python -m sidecar.entry.controller`, started by the supervisor.

It inherits the `observe`, `admin` and `link` listeners and a heartbeat. When the heartbeat ends the supervisor is gone
and the controller ends itself; `stop` ends it in order: what waits is stored first.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import structlog
import uvloop
from aiohttp import web

from sidecar import __version__, clock
from sidecar.admin.app import create_app as admin_app
from sidecar.admin.first_token import first_token
from sidecar.config.errors import ConfigErrors
from sidecar.config.policies import Token
from sidecar.controller.configuring import Configuring, Source
from sidecar.controller.control import Desk, Events
from sidecar.controller.engine import Engine, Restored
from sidecar.controller.journal import Journal
from sidecar.controller.loop import Loop, moment
from sidecar.link.server import LinkServer
from sidecar.notify.dispatch import Dispatcher
from sidecar.store.errors import StoreError
from sidecar.store.key import load_install_key
from sidecar.telemetry import logs
from sidecar.telemetry.metrics import MetricViews, render
from sidecar.telemetry.observe import create_app as observe_app

HEARTBEAT_S: Final = 1.0
FOLD_S: Final = 3600.0
INVALID: Final = 2


@dataclass(frozen=True, slots=True)
class Told:
    """What the supervisor told this child in SIDECAR_CHILD."""

    epoch: str
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
        return cls(row["epoch"], row["fds"], Path(row["runtime"]), file, row["flags"], row["static"])

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
        self._stop = asyncio.Event()
        self._events = Events()
        self._journal = Journal(self._state, self._events.publish)
        self._log = structlog.get_logger("controller")
        self._ready = False
        self._loop: Loop | None = None

    def __repr__(self) -> str:
        return f"<Controller {'ready' if self._ready else 'starting'}>"

    async def run(self) -> int:
        """Serve until told to stop; return the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.set)
        heart = asyncio.create_task(self._beat())
        await self._journal.open()
        source = Source(self._told.config_file, os.environ, self._told.flags)
        self._configuring = Configuring(source, self._journal, self._activate)
        try:
            active = await self._configuring.begin()
        except (ConfigErrors, OSError) as error:
            self._log.critical("no configuration can run", problem=str(error))
            return INVALID
        key = self._install_key()
        self._dispatcher = Dispatcher(active.compiled.receivers)
        engine = Engine(
            active.compiled, seed=key.hex(), now=moment(), restored=await self._restored(), boot=clock.boot_id()
        )
        self._link = LinkServer(self._told.listener("link"), self._take, self._lost)
        self._loop = Loop(engine, self._link, self._journal, self._configuring, self._dispatcher, self._told.runtime)
        desk = Desk(
            self._loop,
            self._journal,
            self._configuring,
            self._dispatcher,
            self._events,
            self._facts,
            key,
            self._token(),
        )
        self._loop.carry_out(engine.configured(active.row, active.compiled, frozenset(), moment()))
        self._link.start()
        runners = [
            await _serve(observe_app(self._metrics, self._checks), self._told.listener("observe")),
            await _serve(
                admin_app(desk, allowed_hosts=_hosts(self._told.static["admin"])), self._told.listener("admin")
            ),
        ]
        tasks = [asyncio.create_task(self._loop.run()), asyncio.create_task(self._fold_on())]
        self._ready = True
        self._log.info("the controller serves", version=active.version)
        await self._stop.wait()
        await self._end([*tasks, heart], runners)
        return 0

    async def _end(self, tasks: list[asyncio.Task[None]], runners: list[web.AppRunner]) -> None:
        self._ready = False
        assert self._loop is not None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for runner in runners:
            await runner.cleanup()
        await self._link.close()
        await self._loop.close()
        await self._dispatcher.close()
        self._loop.carry_out(self._loop.engine.leaving(moment()))
        await self._journal.close()

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

    async def _restored(self) -> Restored | None:
        try:
            return await self._journal.read(Restored.of)
        except StoreError as error:
            self._log.error("nothing could be restored; the sidecar starts without its memory", problem=str(error))
            return None

    async def _fold_on(self) -> None:
        """Let the store's old rows go, an hour apart."""
        while True:
            await asyncio.sleep(FOLD_S)
            oldest = clock.wall().timestamp() - self._configuring.active.compiled.store.retention_s
            with contextlib.suppress(StoreError):
                await self._journal.read(lambda store, oldest=oldest: store.fold(oldest))  # type: ignore[misc]

    # --- what the supervisor hears and says -------------------------------------------------------------------

    async def _beat(self) -> None:
        heart = socket.socket(fileno=self._told.fds["heartbeat"])
        heart.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=heart)
        orders = asyncio.create_task(self._obey(reader))
        while not orders.done():
            writer.write(json.dumps({"ready": self._ready}).encode() + b"\n")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(orders), HEARTBEAT_S if self._ready else HEARTBEAT_S / 10)
        os._exit(0)  # the supervisor is gone: nobody is left to end this process in order

    async def _obey(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            order = json.loads(line)
            match order.pop("do", None):
                case "stop":
                    self._stop.set()
                case "reload":
                    await self._configuring.reload()
                case "facts":
                    self._facts.update(order)

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


def _hosts(admin: str) -> list[str]:
    host = admin.rpartition(":")[0].strip("[]")
    return [host] if host and not admin.startswith("unix:") else []


async def _serve(app: web.Application, listener: socket.socket) -> web.AppRunner:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=2)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    return runner


def main() -> int:
    """Run the controller and return its exit code."""
    logs.setup("controller")
    return uvloop.run(Controller(Told.read(os.environ["SIDECAR_CHILD"])).run())


if __name__ == "__main__":
    sys.exit(main())
