"""
TLS between a socket and what speaks HTTP over it: a protocol below, a transport above.

Theory
------
OpenSSL works on two buffers in memory here: what came is put into one, and what it wants sent is taken from the other. The
event loop has such a layer, too, but it reads up to 256 KiB at once into a buffer of each connection, holds another such
amount before it stops the socket, and cannot end its sending half. This one reads through the buffer that all connections
share (`transport.py`), decrypts only what the protocol above takes, and stops the socket in the same moment in which that
one pauses. So the bound of 64 KiB for each direction holds over TLS as well, and to the protocol above it looks like
any other transport. OpenSSL's buffers never shrink (they keep 4/3 of the most that they held): what is written passes
through them record by record, and what is read in halves of that bound, so that a connection that once carried much
does not hold much for ever.

Tables
------
    below                         above
    handshake done                `Waiting.shaken` makes the protocol above; failed, or the end before: `Waiting.failed`
    bytes                         decrypted into its buffer, as many records as fit; not while it paused reading
    close_notify                  eof_received
    end without close_notify      connection_lost(error): somebody may have cut the message (a truncation attack)
    a record that is broken       the same, after an alert went to the peer

    above                         below
    write                         encrypted, sent at once
    write_eof                     when all that came is decrypted: close_notify, then the socket's end; it is still read
    close                         close_notify, then the socket is closed when all is sent
    abort                         the socket is closed at once, without close_notify: to the peer a cut message

What can go wrong
-----------------
* A peer that never ends its handshake: who made this sets a deadline and calls `abort`. One that sends without end within it:
  no more than `HANDSHAKE_BYTES` are taken.
* A peer that speaks no TLS at all: told by its first byte, and said so (`alerts.NotTlsError`).
* A renegotiation within TLS 1.2 would need reading to write: contexts forbid it (`config/certificates.py`).
* A peer that asks for new keys (TLS 1.3) without end and reads none of them: cut when `MOST_WAITING_BYTES` wait.
* OpenSSL's shutdown reads, and takes data that waits for an error: it is called when nothing waits, or for the last time.
* The socket breaks while the peer's last words wait in it: they are read before the loss is told.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from sidecar.proxy.alerts import NotTlsError
from sidecar.proxy.transport import NOWHERE, READ_BUFFER, READ_BYTES, READ_VIEW

HANDSHAKE_BYTES: Final = 64 * 1024  # with a client's chain of certificates; OpenSSL would take 100 KiB and more
READ_AT_ONCE: Final = 32 * 1024
MOST_WAITING_BYTES: Final = 4 * READ_BYTES  # the protocol above never lets more than one read wait
RECORD_BYTES: Final = 16 * 1024  # RFC 8446, section 5.1
_OFFERED: Final = READ_VIEW[:READ_AT_ONCE]
_HANDSHAKE: Final = 0x16  # the first byte of every TLS connection
_CUT: Final = "the connection ended without close_notify"


def _itself(error: Exception) -> Exception:
    return error


class Waiting(Protocol):
    """Who waits for the end of a handshake: `shaken` or `failed` is called, once."""

    def begins(self, secured: Secured) -> bool:
        """Learn that the socket stands; return whether the handshake may begin."""

    def shaken(self, secured: Secured) -> asyncio.BufferedProtocol:
        """Return the protocol above, which begins with `connection_made`."""

    def failed(self, secured: Secured, error: Exception) -> None:
        """Learn that nothing comes of it; `Secured.release` gives the socket's transport away."""


class Secured(asyncio.Transport, asyncio.BufferedProtocol):
    """
    One connection under TLS.

    Args:
        context: Of the side that this is.
        waiting: Whom the end of the handshake is told.
        host: Whom to expect, for a client; None for a server.
        told: Turns an error of TLS after the handshake into what the protocol above is told.
    """

    __slots__ = ("_above", "_closing", "_decrypt", "_eof", "_incoming", "_loop", "_outgoing", "_paused", "_raw", "_said_end", "_saying_end", "_taken", "_tls", "_told", "_waiting")  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: ssl.SSLContext,
        waiting: Waiting,
        host: str | None = None,
        told: Callable[[Exception], Exception] = _itself,
    ) -> None:
        self._loop = loop
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=host is None, server_hostname=host or None
        )
        self._decrypt = cast("Callable[[int, bytearray | memoryview], int]", self._tls.read)
        self._raw: asyncio.Transport = NOWHERE
        self._above: asyncio.BufferedProtocol | None = None
        self._waiting: Waiting | None = waiting
        self._told = told
        self._taken = 0
        self._paused = self._eof = self._saying_end = self._said_end = self._closing = False

    def __repr__(self) -> str:
        return f"<Secured {'in handshake' if self._above is None else self._tls.version()} below {self._above!r}>"

    # --- the event loop's side ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake."""
        made = self._raw = cast("asyncio.Transport", transport)  # uvloop's is one but does not derive from it
        made.set_write_buffer_limits(0)
        if self._waiting is not None and self._waiting.begins(self):
            self._shake()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  one buffer serves all
        """Offer a part of the shared buffer; what is in it is copied out before anything else reads."""
        return _OFFERED

    def buffer_updated(self, nbytes: int) -> None:
        """Take what the peer sent."""
        if self._above is None:
            self._take_handshake(nbytes)
        elif not self._closing and not self._eof:
            self._incoming.write(READ_VIEW[:nbytes])
            self._read()

    def eof_received(self) -> bool:
        """Learn that the peer's socket sends no more; return whether ours stays open to be written to."""
        if self._above is not None:
            self._read()
            if self._eof:
                return not self._closing
        self._lose(ConnectionResetError(_CUT))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Learn that the socket is gone."""
        if exc is not None and self._above is not None and not self._closing:
            self._salvage()
        self._raw = NOWHERE
        self._lose(None if self._eof and self._closing else exc)  # the peer had ended: it need not hear our end

    def pause_writing(self) -> None:
        """Learn that the socket does not keep up."""
        if self._above is not None:
            self._above.pause_writing()

    def resume_writing(self) -> None:
        """Learn that the socket has taken everything."""
        if self._above is not None:
            self._above.resume_writing()

    # --- the handshake -----------------------------------------------------------------------------------------------

    def _take_handshake(self, nbytes: int) -> None:
        if self._waiting is None:
            return
        if not self._taken and READ_BUFFER[0] != _HANDSHAKE:
            self._lose(NotTlsError(READ_BUFFER[0]))
            return
        self._taken += nbytes
        self._incoming.write(READ_VIEW[:nbytes])
        self._shake()

    def _shake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            if self._taken > HANDSHAKE_BYTES:
                self._lose(ConnectionAbortedError(f"a handshake of more than {HANDSHAKE_BYTES} bytes"))
        except (ssl.SSLError, ValueError) as error:
            self._flush()  # the alert that says why
            self._lose(error)
        else:
            self._flush()
            waiting, self._waiting = self._waiting, None
            if waiting is not None:
                above = self._above = waiting.shaken(self)
                above.connection_made(self)
                self._read()  # what came with the end of the handshake

    def release(self) -> asyncio.Transport:
        """Give the socket's transport away; this is at its end."""
        raw, self._raw = self._raw, NOWHERE
        self._waiting = None
        return raw

    # --- reading -----------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Give the protocol above what it takes."""
        incoming = self._incoming
        try:
            while not self._paused and not self._closing and self._above is not None:
                buffer = cast("bytearray | memoryview", self._above.get_buffer(-1))
                size = self._fill(buffer)
                if size > 0:
                    self._above.buffer_updated(size)
                    if size < len(buffer) and not incoming.pending:
                        break
                    continue
                if size < 0:
                    self._ended()
                break
        except ssl.SSLError as error:
            self._flush()
            self._lose(self._told(error))
            return
        if self._outgoing.pending:
            self._answer()
        if self._saying_end and not self._paused:
            self._say_end()

    def _answer(self) -> None:
        """Send what OpenSSL says by itself: new keys, when the peer asked for them."""
        self._flush()
        if self._raw.get_write_buffer_size() > MOST_WAITING_BYTES:
            self._lose(ConnectionAbortedError("the peer asks for new keys and reads nothing"))

    def _fill(self, buffer: bytearray | memoryview) -> int:
        """Decrypt into *buffer* as many records as fit; return how many bytes, -1 at the peer's end."""
        most, decrypt, incoming = len(buffer), self._decrypt, self._incoming
        if not most:
            return 0
        try:
            size = decrypt(most, buffer)
            if not size:
                return -1
            if not incoming.pending or size == most:
                return size
        except ssl.SSLWantReadError:
            return 0
        except ssl.SSLZeroReturnError:
            return -1
        view = memoryview(buffer)
        try:
            while size < most and incoming.pending:
                got = decrypt(most - size, view[size:])
                if not got:
                    break  # the peer's end is said again when it is asked for
                size += got
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass
        return size

    def _ended(self) -> None:
        """Learn that the peer has said its end."""
        if not self._eof:
            self._eof = True
            if self._above is not None and not self._above.eof_received():
                self.close()

    def _salvage(self) -> None:
        """Read what waits in a socket whose writing side failed."""
        descriptor = self._raw.get_extra_info("socket")
        if descriptor is None:
            return
        try:
            data = os.read(descriptor.fileno(), READ_BYTES)
        except OSError:
            return
        if data and not self._eof:
            self._incoming.write(data)
            self._read()

    # --- writing and ending ------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            self._raw.write(data)

    def _say_end(self) -> None:
        """Send close_notify, and the socket's end behind it."""
        self._saying_end = False
        if not self._closing:
            self._said_end = True
            self._send_close_notify()
            self._raw.write_eof()

    def _send_close_notify(self) -> None:
        try:
            self._tls.unwrap()
        except (ssl.SSLError, ValueError):
            pass  # the peer's own close_notify has not come, and need not
        said = self._outgoing.read()
        end = 5 + int.from_bytes(said[3:5], "big")  # one record; behind it may be the alert that something waited
        if said:
            self._raw.write(said[:end])

    def _lose(self, error: Exception | None) -> None:
        """End at once; tell who waits."""
        waiting, self._waiting = self._waiting, None
        above, self._above = self._above, None
        if waiting is not None:
            waiting.failed(self, error or ConnectionResetError("the connection ended within the handshake"))
        raw, self._raw = self._raw, NOWHERE
        raw.abort()
        if above is not None:
            above.connection_lost(error)

    # --- the transport that the protocol above sees ------------------------------------------------------------------

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Let *protocol* be the one above from now on."""
        self._above = cast("asyncio.BufferedProtocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the one above."""
        return self._above or self

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the socket's transport says, and `ssl_object`."""
        return self._tls if name == "ssl_object" else self._raw.get_extra_info(name, default)

    def is_closing(self) -> bool:
        """Tell whether nothing can be written any more."""
        return self._closing or self._raw.is_closing()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send *data*."""
        if self._closing or self._said_end or not data or self._raw is NOWHERE:
            return
        if len(data) <= RECORD_BYTES:
            self._tls.write(data)
            self._raw.write(self._outgoing.read())
            return
        records, view = [], memoryview(data)
        for at in range(0, len(data), RECORD_BYTES):  # see the essay; 64 KiB take 25 µs so, and 21 µs at once
            self._tls.write(view[at : at + RECORD_BYTES])
            records.append(self._outgoing.read())
        self._raw.write(b"".join(records))

    def can_write_eof(self) -> bool:
        """Say yes."""
        return True

    def write_eof(self) -> None:
        """Say the end, and go on reading."""
        if not self._closing and not self._said_end:
            self._saying_end = True
            self._loop.call_soon(self._read)  # it may be called from within

    def close(self) -> None:
        """Say the end, and close when everything is sent."""
        if not self._closing:
            self._closing = True
            if self._above is not None and not self._said_end:
                self._send_close_notify()
            self._raw.close()

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        self._raw.abort()

    def pause_reading(self) -> None:
        """Decrypt nothing, and do not read the socket."""
        self._paused = True
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        """Go on; what waits is given from a call of its own."""
        if self._paused:
            self._paused = False
            self._loop.call_soon(self._read)
        self._raw.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Hand on."""
        self._raw.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Return what the socket has not taken."""
        return self._raw.get_write_buffer_size()
