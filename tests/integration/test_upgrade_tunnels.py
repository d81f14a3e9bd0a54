"""Another release takes over from one that speaks TLS and carries tunnels: SIGUSR2, on real processes."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.support.client import Client
from tests.support.pki import Authority
from tests.support.releases import Releases
from tests.support.sidecar import Sidecar, gone, settings, until
from tests.support.tunnels import handshake, received, switching
from tests.support.upstream import Upstream

RELEASE = 'sidecar_build_info{version="2.0.0"}'


def test_tunnels_outlive_the_release_that_opened_them(tmp_path: Path) -> None:
    """
    Over TLS, under load: a tunnel goes on in its old worker until its client ends it, while the new release takes new
    connections and tunnels and controls; only then the old worker leaves. No request fails.
    """
    authority = Authority.make(tmp_path)
    issued, trusting = authority.sign("here", "localhost"), authority.trusting()
    releases = Releases(tmp_path / "releases")
    releases.make("1.0.0")
    releases.make("2.0.0")
    releases.use("1.0.0")
    with Upstream(switching) as upstream:
        tls = {"certificate": str(issued.certificate), "key": str(issued.key)}
        config = settings(upstream.url, workers=2, tls=tls, drain={"delay": "0s", "grace": "10m"})
        running = Sidecar(config, program=releases.program)
        try:
            running.start()
            old = running.workers()
            with Client(running.address(), tls=trusting) as tunnel:
                assert " 101 " in handshake(tunnel)
                with running.load(30, tls=trusting) as load:
                    load.wait(20)
                    releases.use("2.0.0")
                    running.signal(signal.SIGUSR2)
                    until(lambda: RELEASE in running.observe("/metrics").text, "the new release controls")
                    assert len(set(running.workers()) - set(old)) == 2
                    load.wait(20)
                    with Client(running.address(), tls=trusting) as other:
                        assert " 101 " in handshake(other)
                        other.send(b"new")
                        assert received(other, 3) == b"new"
                    tunnel.send(b"still here")
                    assert received(tunnel, 10) == b"still here"
                    assert not all(map(gone, old))
                assert not load.failed, load.said()
            until(lambda: all(map(gone, old)), "the old worker leaves behind its last tunnel")
            until(running.serving, "the new release serves")
        finally:
            running.end()
