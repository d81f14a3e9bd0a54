"""Tunnels for tests: a config, an offer and its answer, an API that agrees and echoes."""

from __future__ import annotations

from tests.support.client import Client
from tests.support.upstream import Conn
from tests.support.worker import Worker

CONFIG = """
upstream: {{endpoints: ["{url}"], response_timeout: 1h, idle_timeout: 1h}}
downstream: {{tunnel_timeout: {silence}, idle_timeout: 1h}}
respond: {{end_tunnels: true}}
access_log: {{path: "{log}", sample: 100%}}
routes:
  - name: plain
    match: {{path: /plain/**}}
    upgrade: []
  - name: limited
    match: {{path: /limited/**}}
    limit: {{rate: 1/h, burst: 1}}
    concurrency: {{max: 1}}
  - name: default
    match: {{path: /**}}
"""
OFFER = b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Mine: 1\r\n\r\n"


def config(url: str, log: object, *, silence: str = "1h") -> str:
    """Return a config in front of *url*; a tunnel may be silent for *silence*."""
    return CONFIG.format(url=url, log=log, silence=silence)


def raw_echo(conn: Conn) -> None:
    """Send back what comes, until the end."""
    while data := conn._buffer or conn.sock.recv(65536):
        conn._buffer = b""
        conn.sock.sendall(data)


def switching(conn: Conn) -> None:
    """Agree to the first offer and echo from then on."""
    while (request := conn.read()) is not None:
        if request.fields.get("upgrade") != "websocket":
            conn.answer(b"plain")
            continue
        conn.send(SWITCH)
        raw_echo(conn)
        conn.tell("ended")
        return


def handshake(client: Client, path: bytes = b"/ws") -> str:
    """Offer a tunnel and return the answer's head."""
    client.send(OFFER % path)
    return client.read_head().decode()


def received(client: Client, size: int) -> bytes:
    """Return the next *size* bytes."""
    return client._exactly(size)


def opened(worker: Worker) -> Client:
    """Return a client whose tunnel stands, as soon as nothing refuses it any more."""
    while True:
        client = Client(worker.address)
        if " 101 " in handshake(client):
            return client
        client.sock.close()
