"""Active health checks against real endpoints: who is well, who is told, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from sidecar import clock
from sidecar.config.policies import Endpoint, HealthPolicy, UpstreamPolicy
from sidecar.config.tls_policies import UpstreamTlsPolicy
from sidecar.controller.probing import Probe, Probing
from tests.support.pki import Authority
from tests.support.upstream import Conn, Script, Upstream
from tests.support.workers import until

POLICY = HealthPolicy("/healthz?deep=1", interval_s=0.05, timeout_s=0.2, unhealthy=2, healthy=2)


def answering(status: str, *fields: str) -> Script:
    def script(conn: Conn) -> None:
        conn.read()
        conn.answer(b"", status, *fields)

    return script


@dataclass
class Told:
    """What the workers would have heard."""

    last: Mapping[str, float] = field(default_factory=dict)
    times: int = 0

    def __call__(self, unhealthy: Mapping[str, float]) -> None:
        self.last, self.times = unhealthy, self.times + 1


@dataclass
class Case:
    """One probing, and what it told."""

    told: Told = field(default_factory=Told)
    probing: Probing = field(init=False)

    def __post_init__(self) -> None:
        self.probing = Probing(self.told, {})

    def watch(self, *endpoints: Endpoint, policy: HealthPolicy | None = POLICY) -> None:
        self.probing.apply(UpstreamPolicy(endpoints, health=policy))


@pytest.fixture
async def case() -> AsyncIterator[Case]:
    made = Case()
    yield made
    await made.probing.close()


async def becomes(case: Case, labels: set[str]) -> None:
    await until(lambda: set(case.told.last) == labels)


def at(upstream: Upstream) -> Endpoint:
    return Endpoint("127.0.0.1", upstream.port)


@pytest.mark.parametrize(
    ("answers", "changes"),
    [("+++", ""), ("-", ""), ("--", "."), ("-+-+-", ""), ("--++", ". ."), ("--+-+", "."), ("--++--", ". . .")],
)
def test_streaks_change_the_state(answers: str, changes: str) -> None:
    """
    So many bad answers in a row make it unwell, so many good ones well again; one of the other kind breaks a row.
    """
    probe = Probe()
    found = [probe.took(POLICY, good=answer == "+") for answer in answers]
    assert found.count(True) == len(changes.split())


async def test_an_endpoint_that_fails_is_told_and_told_again(case: Case) -> None:
    """
    Two bad answers take it out; each further one renews its lease of three intervals; two good ones bring it back.
    """
    with Upstream(answering("503 Service Unavailable")) as upstream:
        case.watch(at(upstream))
        await becomes(case, {f"127.0.0.1:{upstream.port}"})
        first = case.told.last[f"127.0.0.1:{upstream.port}"]
        assert first - clock.now() == pytest.approx(3 * 0.05 + 0.2, abs=0.1)
        assert upstream.next_request().line == "GET /healthz?deep=1 HTTP/1.1"
        await until(lambda: case.told.last[f"127.0.0.1:{upstream.port}"] > first)

        upstream.script = answering("204 No Content")
        await becomes(case, set())


@pytest.mark.parametrize(
    ("script", "well"),
    [
        (answering("302 Found", "Location: http://127.0.0.1:1/"), True),
        (answering("404 Not Found"), False),
        (lambda conn: conn.wait_for_order(), False),
        (lambda conn: conn.reset(), False),
        (lambda conn: conn.send(b"nonsense\r\n\r\n"), False),
    ],
)
async def test_what_is_well(case: Case, script: Script, well: bool) -> None:
    """
    Any status below 400, redirects included, which are not followed; silence, a reset and nonsense are not.
    """
    with Upstream(script) as upstream, Upstream(answering("500 No")) as other:
        case.watch(at(upstream), at(other))
        await until(lambda: f"127.0.0.1:{other.port}" in case.told.last)
        await until(lambda: upstream.accepted >= 3)
        if not well:
            await until(lambda: f"127.0.0.1:{upstream.port}" in case.told.last)
        assert (f"127.0.0.1:{upstream.port}" not in case.told.last) is well


async def test_a_unix_socket_is_asked(case: Case, tmp_path: Path) -> None:
    """
    An endpoint on a Unix socket is known by its path.
    """
    path = str(tmp_path / "api.sock")
    with Upstream(answering("500 No"), path=path):
        case.watch(Endpoint("", 0, path))
        await becomes(case, {f"unix:{path}"})


@pytest.mark.parametrize("trusted", [True, False])
async def test_an_https_endpoint_is_asked_and_verified(case: Case, tmp_path: Path, trusted: bool) -> None:
    """
    TLS as the workers speak it: the given authority, the given name; who cannot be verified is not well.
    """
    authority = Authority.make(tmp_path)
    other = authority if trusted else Authority.make(tmp_path, "other")
    with Upstream(answering("200 OK"), tls=authority.serving(authority.sign("there", "api.test"))) as upstream:
        endpoint = Endpoint("127.0.0.1", upstream.port, tls=True)
        tls = UpstreamTlsPolicy(ca=str(other.ca), server_name="api.test")
        case.probing.apply(UpstreamPolicy((endpoint,), health=POLICY, tls=tls))
        if trusted:
            await until(lambda: upstream.seen.qsize() >= 3)
            assert case.told.last == {}
        else:
            await becomes(case, {str(endpoint)})
            assert upstream.seen.empty()


async def test_a_change_keeps_states_and_forgets_who_is_gone(case: Case) -> None:
    """
    A changed policy leaves an endpoint unwell that was; one that is removed, or no checks at all, ends it.
    """
    with Upstream(answering("500 No")) as upstream, Upstream(answering("200 OK")) as other:
        label = f"127.0.0.1:{upstream.port}"
        case.watch(at(upstream), at(other))
        await becomes(case, {label})
        case.watch(at(upstream), at(other), policy=replace(POLICY, interval_s=30.0))
        assert set(case.told.last) == {label}
        case.watch(at(other))
        assert case.told.last == {}
        case.watch(at(other), policy=None)
        assert [
            task for task in asyncio.all_tasks() if task.get_name().startswith("probe") and not task.cancelling()
        ] == []


async def test_a_new_controller_goes_on_with_what_was_told(case: Case) -> None:
    """
    What is inherited counts until its lease ends, and good answers end it as any other.
    """
    with Upstream(answering("200 OK")) as upstream:
        label = f"127.0.0.1:{upstream.port}"
        case.probing = Probing(case.told, {label: clock.now() + 60.0, "gone:1": clock.now() + 60.0})
        case.watch(at(upstream))
        assert set(case.told.last) == {label}
        await becomes(case, set())
