"""
The bundled sample API: a small shop that works, and can be told to fail.

`python -m sidecar.demo.shop [--listen 127.0.0.1:9000] [--switches 127.0.0.1:9001]`. The shop and its fault switches
stand on two listeners, so that no client of the shop can reach the switches through the sidecar.

    GET  /api/products[/{id}]   fast          POST /api/checkout   {"items": [{"product": 7, "quantity": 1}]}
    GET  /api/search?q=…        fast          POST /api/uploads    any body; answers its size and SHA-256
    GET  /api/reports/{name}    slow, 0.4 s   GET  /api/events     server-sent events, one a second

    GET, PUT, DELETE /faults on the switches: see `Faults`.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import uvloop
from aiohttp import web

from sidecar import clock

REPORT_S: Final = 0.4
MAX_UPLOAD_BYTES: Final = 1024**3
WORDS: Final = ("blue", "green", "iron", "paper", "silent", "spare", "tall", "warm", "wooden", "yellow")
THINGS: Final = ("bell", "chair", "clock", "cup", "desk", "lamp", "shelf", "spoon", "table", "vase")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Faults:
    """
    What is wrong with the shop now; everything off by default.

    Attributes:
        errors: Share of requests that get a 500, 0..1, spread evenly.
        delay_ms: Added to every answer.
        hang: Requests are taken and never answered.
        reset: The connection is cut instead of an answer.
        client: Only requests with this `x-api-key`; empty for all.
        path: Only paths that begin so; empty for all.
    """

    errors: float = 0.0
    delay_ms: float = 0.0
    hang: bool = False
    reset: bool = False
    client: str = ""
    path: str = ""

    def meets(self, request: web.Request) -> bool:
        """Tell whether the faults are meant for *request*."""
        client = request.headers.get("x-api-key", "")
        return request.path.startswith(self.path) and (not self.client or client == self.client)


class FaultError(ValueError):
    """A switch that does not exist or cannot have that value; the message says which exist."""


def read_faults(row: object) -> Faults:
    """
    Return the faults in a JSON object.

    Raises:
        FaultError: for anything else.
    """
    kinds = {field.name: type(getattr(Faults(), field.name)) for field in fields(Faults)}
    known = ", ".join(f"{name} ({kind.__name__})" for name, kind in kinds.items())
    if not isinstance(row, dict):
        raise FaultError(f"send a JSON object with any of {known}")
    given: dict[str, Any] = {}
    for name, value in row.items():
        kind = kinds.get(name)
        number = kind is float and isinstance(value, int | float) and not isinstance(value, bool)
        if kind is None or not (number or type(value) is kind):
            raise FaultError(f"{name!r} is no such switch: use {known}")
        given[name] = float(value) if number else value
    made = replace(Faults(), **given)
    if not 0 <= made.errors <= 1 or not 0 <= made.delay_ms <= 600_000:
        raise FaultError("errors lies between 0 and 1, delay_ms between 0 and 600000")
    return made


class Shop:
    """The shop's stock, its orders and its faults."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.products = {
            number: {"id": number, "name": f"{word} {thing}", "price_cents": 199 + 37 * number, "stock": 1_000_000}
            for number, (word, thing) in enumerate(itertools.product(WORDS, THINGS), start=1)
        }
        self.orders = 0
        self._switched = asyncio.Event()
        self._owed = 0.0  # errors are spread evenly: each request adds its share, each error takes one

    def __repr__(self) -> str:
        return f"<Shop {len(self.products)} products, {self.orders} orders, {self.faults}>"

    @web.middleware
    async def misbehave(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Do what the switches say before, or instead of, answering."""
        faults = self.faults
        if not faults.meets(request):
            return await handler(request)
        if faults.delay_ms:
            await asyncio.sleep(faults.delay_ms / 1000)
        if faults.hang:
            await self._switched.wait()  # until a switch moves, or the client leaves and the task is cancelled
        if faults.reset:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)
        self._owed += faults.errors
        if self._owed >= 1:
            self._owed -= 1
            return web.json_response({"error": "the shop is told to fail"}, status=500)
        return await handler(request)

    async def list_products(self, _: web.Request) -> web.Response:
        """Answer the first ten products."""
        return web.json_response({"products": list(itertools.islice(self.products.values(), 10))})

    async def product(self, request: web.Request) -> web.Response:
        """Answer one product, or 404."""
        number = request.match_info["id"]
        found = self.products.get(int(number)) if number.isdecimal() and len(number) < 9 else None
        if found is None:
            return web.json_response({"error": f"no product {number}"}, status=404)
        return web.json_response(found)

    async def search(self, request: web.Request) -> web.Response:
        """Answer the products whose name contains `q`."""
        wanted = request.query.get("q", "").lower()
        found = [product for product in self.products.values() if wanted in str(product["name"])]
        return web.json_response({"query": wanted, "products": found[:10], "total": len(found)})

    async def checkout(self, request: web.Request) -> web.Response:
        """Take an order, all of it or nothing."""
        try:
            items = [
                (self.products[item["product"]], int(item["quantity"])) for item in (await request.json())["items"]
            ]
        except (ValueError, KeyError, TypeError):
            example = '{"items": [{"product": 7, "quantity": 1}]}'
            return web.json_response({"error": f"send {example}"}, status=422)
        if any(not 0 < quantity <= int(str(product["stock"])) for product, quantity in items):
            return web.json_response({"error": "out of stock"}, status=409)
        total = 0
        for product, quantity in items:
            product["stock"] = int(str(product["stock"])) - quantity
            total += int(str(product["price_cents"])) * quantity
        self.orders += 1
        return web.json_response({"order": self.orders, "total_cents": total}, status=201)

    async def report(self, request: web.Request) -> web.Response:
        """Answer a report, slowly."""
        await asyncio.sleep(REPORT_S)
        return web.json_response({"report": request.match_info["name"], "orders": self.orders})

    async def upload(self, request: web.Request) -> web.Response:
        """Read any body as it comes and answer its size and hash."""
        digest, size = hashlib.sha256(), 0
        async for piece in request.content.iter_any():
            digest.update(piece)
            size += len(piece)
        return web.json_response({"bytes": size, "sha256": digest.hexdigest()}, status=201)

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Send the number of orders once a second until the client leaves."""
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await stream.prepare(request)
        while True:
            row = json.dumps({"orders": self.orders, "time": clock.wall().isoformat()})
            await stream.write(f"data: {row}\n\n".encode())
            await asyncio.sleep(1)

    async def health(self, _: web.Request) -> web.Response:
        """Answer 200."""
        return web.json_response({"status": "ok"})

    def app(self) -> web.Application:
        """Return the shop."""
        app = web.Application(middlewares=[self.misbehave], client_max_size=MAX_UPLOAD_BYTES)
        app.add_routes([
            web.get("/api/products", self.list_products),
            web.get("/api/products/{id}", self.product),
            web.get("/api/search", self.search),
            web.post("/api/checkout", self.checkout),
            web.get("/api/reports/{name}", self.report),
            web.post("/api/uploads", self.upload),
            web.get("/api/events", self.events),
            web.get("/healthz", self.health),
        ])  # fmt: skip
        return app

    def switches(self) -> web.Application:
        """Return the fault switches."""
        app = web.Application()
        app.add_routes([
            web.get("/faults", self.show_faults),
            web.put("/faults", self.set_faults),
            web.delete("/faults", self.clear_faults),
        ])  # fmt: skip
        return app

    async def show_faults(self, _: web.Request) -> web.Response:
        """Answer what is wrong now."""
        return web.json_response({field.name: getattr(self.faults, field.name) for field in fields(Faults)})

    async def set_faults(self, request: web.Request) -> web.Response:
        """Replace all switches by those in the body."""
        try:
            self._switch(read_faults(await request.json()))
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=422)
        return await self.show_faults(request)

    async def clear_faults(self, request: web.Request) -> web.Response:
        """Switch everything off."""
        self._switch(Faults())
        return await self.show_faults(request)

    def _switch(self, faults: Faults) -> None:
        self.faults = faults
        self._switched.set()
        self._switched = asyncio.Event()


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


async def _site(app: web.Application, address: tuple[str, int]) -> tuple[web.AppRunner, str]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, *address).start()
    host, port = runner.addresses[0][:2]
    return runner, f"http://{host}:{port}"


async def serve(listen: tuple[str, int], switches: tuple[str, int]) -> None:
    """Serve until SIGTERM or cancelled; prints one JSON line with both addresses once it listens."""
    shop = Shop()
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)  # pid 1 of a container has no default
    runner, shop_url = await _site(shop.app(), listen)
    switch_runner, switches_url = await _site(shop.switches(), switches)
    print(json.dumps({"shop": shop_url, "faults": f"{switches_url}/faults"}), flush=True)
    try:
        await told.wait()
    finally:
        await runner.cleanup()
        await switch_runner.cleanup()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sample API and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sidecar.demo.shop", description="The bundled sample API.")
    parser.add_argument("--listen", type=_address, default=("127.0.0.1", 9000), metavar="HOST:PORT")
    parser.add_argument("--switches", type=_address, default=("127.0.0.1", 9001), metavar="HOST:PORT")
    given = parser.parse_args(argv)
    try:
        uvloop.run(serve(given.listen, given.switches))
    except KeyboardInterrupt:
        return 0
    except OSError as error:
        sys.stderr.write(
            f"the sample API cannot listen: {error}\n  → choose another port with --listen or --switches\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
