"""
TLS to the API: the context that its `https://` endpoints are spoken to with, and how a connection under it is made.

Tables.   certificate files change         new connections take the new ones; those that stand go on
          files that do not fit            the old ones stay, and it is said once for each change
          a version changes `upstream.tls` new connections take it, idle ones are closed, those in use end with their request
          TLS fails after the handshake    as a lost connection, but upstream_tls_failed: TLS 1.3 refuses our certificate only then
          a handshake fails                as a connection that cannot be made: the next endpoint, then 502 upstream_tls_failed; a log
                                           line for each endpoint and problem, once a minute

What can go wrong. Reading the system's authorities costs about 20 ms of the event loop: it is done when the policy changes, and never where no
          endpoint speaks TLS.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Final

from sidecar import clock
from sidecar.config.certificates import CertificateError, Watch, client_context, speaks_tls
from sidecar.config.policies import Endpoint, UpstreamPolicy
from sidecar.config.tls_policies import UpstreamTlsPolicy
from sidecar.proxy.alerts import Complain, UpstreamTlsError, of_upstream
from sidecar.proxy.secure import Secured
from sidecar.proxy.upstream import Upstream

TOLD_EVERY_S: Final = 60.0
MOST_TOLD: Final = 256
_FILES: Final = "changed certificate files cannot be used"
_FAILED: Final = "TLS to the API fails"


class UpstreamTls:
    """
    The TLS of all `https://` endpoints.

    Raises:
        CertificateError: when the files of *policy* cannot be used.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, policy: UpstreamPolicy, complain: Complain) -> None:
        self._loop = loop
        self._complain = complain
        self._policy = UpstreamTlsPolicy()
        self._context: ssl.SSLContext | None = None
        self._watch = Watch(())
        self._told: dict[str, float] = {}
        self.apply(policy)

    def __repr__(self) -> str:
        return f"<UpstreamTls {'in use' if self._context else 'not needed'}>"

    def apply(self, policy: UpstreamPolicy) -> bool:
        """Go on under *policy*; return whether connections that stand were made under another one."""
        needed = speaks_tls(policy)
        changed = policy.tls != self._policy
        if needed and (changed or self._context is None):
            watch = Watch(policy.tls.files)  # before they are read: a change in between is seen
            self._context = client_context(policy.tls)
            self._watch = watch
        elif not needed:
            self._context, self._watch = None, Watch(())
        self._policy = policy.tls
        return changed

    def turn(self) -> None:
        """Take files that were changed: about once a second."""
        if self._watch.changed():
            try:
                self._context = client_context(self._policy)
            except CertificateError as error:
                self._complain(_FILES, str(error))

    async def connect(self, new: Callable[[], Upstream], endpoint: Endpoint, address: str) -> Upstream:
        """
        Return a new connection to *address* of *endpoint*, which must show a certificate for the endpoint's host.

        Raises:
            UpstreamTlsError: when the handshake fails; OSError: when nobody is reached.
        """
        assert self._context is not None
        loop, context, expected = self._loop, self._context, self._policy.server_name or endpoint.host
        made = Shaking(new, loop.create_future())

        def told(error: Exception) -> UpstreamTlsError:
            found = of_upstream(error)
            self.say(str(endpoint), found)
            return found

        _, secured = await loop.create_connection(
            lambda: Secured(loop, context, made, expected, told), address, endpoint.port
        )
        try:
            return await made.done
        except BaseException:
            secured.abort()
            raise

    def say(self, label: str, error: UpstreamTlsError) -> None:
        """Tell people that *label* cannot be spoken to, not too often."""
        problem, now = f"{label}: {error}", clock.now()
        if now - self._told.get(problem, -TOLD_EVERY_S) >= TOLD_EVERY_S:
            if len(self._told) >= MOST_TOLD:
                self._told.clear()
            self._told[problem] = now
            self._complain(_FAILED, problem)


class Shaking:
    """Waits for one handshake with the API."""

    __slots__ = ("_new", "done")

    def __init__(self, new: Callable[[], Upstream], done: asyncio.Future[Upstream]) -> None:
        self._new = new
        self.done = done

    def __repr__(self) -> str:
        return f"<Shaking {'done' if self.done.done() else 'pending'}>"

    def begins(self, secured: Secured) -> bool:  # noqa: ARG002  Waiting's signature
        """Begin."""
        return True

    def shaken(self, secured: Secured) -> Upstream:  # noqa: ARG002  Waiting's signature
        """Begin the connection."""
        made = self._new()
        if not self.done.done():
            self.done.set_result(made)
        return made

    def failed(self, secured: Secured, error: Exception) -> None:  # noqa: ARG002  Waiting's signature
        """Tell who waits."""
        if not self.done.done():
            self.done.set_exception(of_upstream(error))
            self.done.exception()  # who waited may have been cancelled within the same moment
