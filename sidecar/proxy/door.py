"""
Where clients come in: plain, or through a TLS handshake first.

Theory.   A client within its handshake is a connection as any other: it counts against the cap, makes room when others need it,
          and has the time of a request head. Only when the handshake is done does a `Downstream` begin, on a transport
          that looks like any other. On a plain listener nothing stands between the socket and its `Downstream`.

Tables.   certificate files change         the next handshake gets the new ones; connections that stand keep theirs
          a version changes `tls`          the same; also between plain and TLS
          files that do not fit            the old ones stay, and it is said once for each change
          a handshake fails                the client gets the alert that says why, and the end; a log line a minute tells how many

What can go wrong. A client that speaks plain HTTP to a TLS listener gets 400 with the reason; one that speaks TLS to a plain listener
          gets 400, as for any malformed head. A client whose certificate is refused has often sent its request already (TLS 1.3 lets it):
          closing on it would be a reset that destroys the alert on its way, so the end is `Lingering`'s. When the cap is reached a client
          is cut before its handshake: 503 would cost one.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

from sidecar import clock
from sidecar.config.certificates import CertificateError, Watch, server_context
from sidecar.config.tls_policies import TlsPolicy
from sidecar.proxy import refusing
from sidecar.proxy.alerts import Complain, NotTlsError, words
from sidecar.proxy.downstream import Downstream
from sidecar.proxy.linger import Lingering
from sidecar.proxy.plane import Plane
from sidecar.proxy.reading import LAST_REQUEST_S
from sidecar.proxy.secure import Secured
from sidecar.proxy.transport import NOWHERE
from sidecar.reasons import Reason, Refusal

TOLD_EVERY_S: Final = 60.0
_FILES: Final = "changed certificate files cannot be used"
_FAILED: Final = "TLS handshakes of clients failed"
_SLOW: Final = TimeoutError("it was not done within downstream.head_timeout")
_PLAIN: Final = Refusal(Reason.BAD_REQUEST, 0.0, "tls", "this port speaks TLS: use https://")


@dataclass(frozen=True, slots=True)
class Entry:
    """What a new connection meets: a policy, its context (None for plain HTTP), and the watch over its files."""

    tls: TlsPolicy | None
    context: ssl.SSLContext | None
    watch: Watch

    @classmethod
    def made(cls, tls: TlsPolicy | None) -> Self:
        """Return the entry of *tls*; raise CertificateError when its files cannot be used."""
        watch = Watch(tls.files if tls is not None else ())  # before they are read: a change in between is seen
        return cls(tls, server_context(tls) if tls is not None else None, watch)


class Door:
    """
    Makes the protocol of each accepted connection.

    Args:
        tls: None for plain HTTP.

    Attributes:
        failed: Handshakes that came to nothing, since the worker began.

    Raises:
        CertificateError: when the files of *tls* cannot be used.
    """

    def __init__(self, plane: Plane, tls: TlsPolicy | None, complain: Complain) -> None:
        self.failed = 0
        self._plane = plane
        self._complain = complain
        self._told, self._told_at = 0, clock.now()
        self._last = ""
        self._entry = Entry.made(tls)

    def __repr__(self) -> str:
        return f"<Door {'of TLS' if self._entry.tls else 'plain'}, {self.failed} failed>"

    def __call__(self) -> asyncio.BaseProtocol:
        """Return the protocol of a new connection."""
        context = self._entry.context
        if context is None:
            return Downstream(self._plane)
        return Arrival(self._plane, context, self._note).secured

    def prepared(self, tls: TlsPolicy | None) -> Entry:
        """Return what `use` takes to go on under *tls*; raise CertificateError when its files cannot be used."""
        return self._entry if tls == self._entry.tls else Entry.made(tls)

    def use(self, entry: Entry) -> None:
        """Let new connections in by *entry*."""
        self._entry = entry

    def turn(self, now: float) -> None:
        """Take files that were changed, and tell of handshakes that failed: about once a second."""
        if self._entry.watch.changed():
            try:
                self._entry = Entry.made(self._entry.tls)
            except CertificateError as error:
                self._complain(_FILES, str(error))
        if self.failed > self._told and (self._told == 0 or now - self._told_at >= TOLD_EVERY_S):
            self._complain(_FAILED, f"{self.failed - self._told} since the last line, the last one {self._last}")
            self._told, self._told_at = self.failed, now

    def _note(self, address: str, error: Exception) -> None:
        self.failed += 1
        self._last = f"of {address}: {words(error)}"


class Arrival:
    """One client within its handshake."""

    __slots__ = ("_failed", "_plane", "_timer", "active_at", "secured")
    idle = True  # makes room for others

    def __init__(self, plane: Plane, context: ssl.SSLContext, failed: Callable[[str, Exception], None]) -> None:
        self.active_at = clock.now()
        self.secured = Secured(plane.loop, context, self)
        self._plane = plane
        self._failed = failed
        self._timer = plane.wheel.timer(self._expired)

    def __repr__(self) -> str:
        return f"<Arrival {self.secured!r}>"

    def leave(self, now: float) -> None:
        """End soon: a request may be on its way behind the handshake."""
        self._timer.set(min(self._timer.due_at, now + LAST_REQUEST_S))

    def look(self, now: float) -> None:
        """Do nothing: it is read from."""

    def abort(self) -> None:
        """End at once."""
        self._gone()
        self.secured.release().abort()

    def begins(self, secured: Secured) -> bool:
        """Count the client, where there is room; it has the time of a request head from now on."""
        if self._plane.welcome(self, secured.get_extra_info("socket").fileno()) is not None:
            self.abort()
            return False
        self._timer.set(clock.now() + self._plane.live.policy.downstream.head_timeout_s)
        return True

    def shaken(self, secured: Secured) -> asyncio.BufferedProtocol:  # noqa: ARG002  Waiting's signature
        """Let the client in."""
        client = Downstream(self._plane)
        self._timer.stop()
        self._plane.connections.discard(self)  # not `left`: the client takes its place, the worker is not empty between
        if self._plane.draining:
            self._plane.loop.call_soon(lambda: client.leave(clock.now()))
        return client

    def failed(self, secured: Secured, error: Exception) -> None:
        """End: with the reason where the client can read one."""
        self._timer.stop()
        raw = secured.release()
        address = _address(raw)
        if isinstance(error, NotTlsError) and error.text:
            peer = self._plane.live.hop.peer(address)
            raw.write(refusing.reject(self._plane, peer, _PLAIN, clock.now()))
        elif raw is not NOWHERE:
            self._failed(address or "unknown", error)
        if not raw.is_closing():
            Lingering(self._plane, raw, client_ended=False)
        self._gone()

    def _gone(self) -> None:
        self._timer.stop()
        self._plane.left(self)

    def _expired(self, now: float) -> None:  # noqa: ARG002  the moment is in the deadline
        if not self._plane.draining:
            self._failed(_address(self.secured) or "unknown", _SLOW)
        self.abort()


def _address(raw: asyncio.Transport) -> str | None:
    name = raw.get_extra_info("peername")
    return str(name[0]) if name else None
