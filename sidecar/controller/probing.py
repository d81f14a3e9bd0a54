"""
Active health checks: every endpoint is asked, and the workers are told which ones are not well.

Theory
------
The controller asks, not the workers: one question for the whole sidecar however many workers there are, and no
HTTP client in their memory. What is found is a lease: it is told again with every check and counts for three intervals,
so that a worker whose controller is gone does not shun an endpoint for ever.

Tables
------
    state       an answer below 400                          anything else, or nothing in `timeout`
    well        stays                                        `unhealthy` in a row: not well
    not well    `healthy` in a row: well                     stays; told again

    new endpoint      begins well: it may serve before it was asked
    changed policy    states stay, counting begins anew

What can go wrong
-----------------
* All checks at once: each endpoint begins at a place of its own within the interval, by a hash, and aiolimiter paces
  them all to `MOST_PER_S`.
* An endpoint that redirects, or whose answer never ends: redirects are not followed and the body is not read.
* The check itself is wrong (a path that is not there): all endpoints are not well, and all are used (`proxy/pool.py`).
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Callable, Mapping
from typing import Final

import aiohttp
import structlog
from aiolimiter import AsyncLimiter
from yarl import URL

from sidecar import __version__, clock
from sidecar.config.certificates import CertificateError, Watch, client_context
from sidecar.config.policies import Endpoint, HealthPolicy, UpstreamPolicy
from sidecar.config.tls_policies import UpstreamTlsPolicy

MOST_PER_S: Final = 50.0
LEASE_INTERVALS: Final = 3.0
_HEADERS: Final = {"User-Agent": f"sidecar-health/{__version__}", "Accept": "*/*"}


class Probe:
    """One endpoint's state, by its last answers."""

    __slots__ = ("_streak", "well")

    def __init__(self, *, well: bool = True) -> None:
        self.well = well
        self._streak = 0

    def __repr__(self) -> str:
        return f"<Probe {'well' if self.well else 'not well'}, {self._streak} against it>"

    def took(self, policy: HealthPolicy, *, good: bool) -> bool:
        """Take one answer; return True when the state has changed."""
        self._streak = 0 if good is self.well else self._streak + 1
        if self._streak < (policy.unhealthy if self.well else policy.healthy):
            return False
        self.well, self._streak = good, 0
        return True


class Probing:
    """
    The checks of all endpoints.

    Args:
        tell: Is given all endpoints that are not well, each with the monotonic seconds until which that counts.
        inherited: What a controller before this one had told last.
    """

    def __init__(self, tell: Callable[[Mapping[str, float]], None], inherited: Mapping[str, float]) -> None:
        self._tell = tell
        self._until_at = dict(inherited)
        self._probes = {label: Probe(well=False) for label in inherited}
        self._policy: UpstreamPolicy | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._pace = AsyncLimiter(MOST_PER_S, 1.0)
        self._log = structlog.get_logger("controller")

    def __repr__(self) -> str:
        return f"<Probing {self._probes}>"

    @property
    def unhealthy(self) -> Mapping[str, float]:
        """Return the endpoints that are not well, each with the end of what was told."""
        now = clock.now()
        return {label: until for label, until in self._until_at.items() if until > now}

    def apply(self, policy: UpstreamPolicy) -> None:
        """Ask the endpoints of *policy* from now on, as it says."""
        if self._policy is not None and _asked(policy) == _asked(self._policy):
            return
        self._policy = policy
        self._stop()
        labels = [str(endpoint) for endpoint in policy.endpoints] if policy.health is not None else []
        self._probes = {label: self._probes.get(label) or Probe() for label in labels}
        self._until_at = {label: until for label, until in self._until_at.items() if label in labels}
        self._tell(self.unhealthy)
        if policy.health is not None:
            loop = asyncio.get_running_loop()
            self._tasks = [
                loop.create_task(self._watch(endpoint, policy.health, policy.tls), name=f"probe {endpoint}")
                for endpoint in policy.endpoints
            ]

    async def close(self) -> None:
        """Ask no more."""
        tasks = self._tasks
        self._stop()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks = []

    async def _watch(self, endpoint: Endpoint, policy: HealthPolicy, tls: UpstreamTlsPolicy) -> None:
        label = str(endpoint)
        files, context = Watch((tls.ca, tls.certificate, tls.key)), None
        async with _session(endpoint, policy) as session:
            await asyncio.sleep(policy.interval_s * _place(label))
            while True:
                due_at = clock.now() + policy.interval_s
                await self._pace.acquire()
                try:
                    if endpoint.tls and (context is None or files.changed()):
                        context = client_context(tls)
                    problem = await _ask(session, endpoint, policy, context, tls.server_name)
                except CertificateError as error:
                    problem = str(error)
                self._take(label, policy, problem)
                await asyncio.sleep(max(0.0, due_at - clock.now()))

    def _take(self, label: str, policy: HealthPolicy, problem: str) -> None:
        probe = self._probes[label]
        changed = probe.took(policy, good=not problem)
        if changed and probe.well:
            self._until_at.pop(label, None)
            self._log.info("an endpoint is well again", endpoint=label)
        elif changed:
            self._log.warning("an endpoint fails its health checks", endpoint=label, problem=problem)
        if not probe.well:
            self._until_at[label] = clock.now() + LEASE_INTERVALS * policy.interval_s + policy.timeout_s
        if changed or not probe.well:
            self._tell(self.unhealthy)


async def _ask(
    session: aiohttp.ClientSession, endpoint: Endpoint, policy: HealthPolicy, tls: ssl.SSLContext | None, name: str
) -> str:
    """Ask once; return what is wrong, empty when the endpoint is well."""
    authority = "localhost" if endpoint.path else str(endpoint)
    url = URL(f"http{'s' if endpoint.tls else ''}://{authority}{policy.path}", encoded=True)
    try:
        async with session.get(url, allow_redirects=False, ssl=tls or True, server_hostname=name or None) as answer:
            return "" if answer.status < 400 else f"status {answer.status}"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return str(error) or type(error).__name__


def _session(endpoint: Endpoint, policy: HealthPolicy) -> aiohttp.ClientSession:
    connector: aiohttp.BaseConnector = (
        aiohttp.UnixConnector(endpoint.path, force_close=True)
        if endpoint.path
        else aiohttp.TCPConnector(force_close=True, use_dns_cache=False)
    )
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=policy.timeout_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=_HEADERS,
    )


def _asked(policy: UpstreamPolicy) -> tuple[object, ...]:
    """Return what of *policy* the checks depend on."""
    return policy.endpoints, policy.health, policy.tls


def _place(label: str) -> float:
    """Return where in the interval an endpoint is asked, 0..1."""
    return int.from_bytes(hashlib.blake2b(label.encode(), digest_size=4).digest(), "big") / 2.0**32
