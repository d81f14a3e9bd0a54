"""TLS of a whole sidecar: certificates that are renewed under load, versions that switch it, and the admin listener."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.client import Client
from tests.support.load import Load
from tests.support.pki import Authority, Issued
from tests.support.sidecar import ROOT, SECRETS, Shop, Sidecar, settings, sidecar, until


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    """The sample API."""
    with Shop() as shop:
        yield shop


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path)


def pair(issued: Issued) -> dict[str, str]:
    """Return the keys of a config that name *issued*."""
    return {"certificate": str(issued.certificate), "key": str(issued.key)}


def serial(running: Sidecar, context: ssl.SSLContext) -> str:
    """Return the serial number of the certificate that a new connection is shown."""
    with Client(running.address(), tls=context) as client:
        assert isinstance(client.sock, ssl.SSLSocket)
        assert client.ask("GET", "/api/products/7").status == 200
        return str((client.sock.getpeercert() or {})["serialNumber"])


def until_shown(running: Sidecar, context: ssl.SSLContext, unlike: str) -> str:
    """Wait until every new connection, of any worker, is shown another certificate than *unlike*; return its number."""

    def shown() -> str:
        numbers = {serial(running, context) for _ in range(8)}
        return numbers.pop() if len(numbers) == 1 and unlike not in numbers else ""

    return until(shown, "a renewed certificate is shown")


def lived_well(load: Load) -> None:
    """Every request was served, and no connection was ended under one."""
    assert not load.failed, load.said()
    assert load.repeats == 0, load.said()


def test_a_renewed_certificate_costs_no_request(shop: Shop, authority: Authority) -> None:
    """
    Two workers take a new pair of files within seconds, and again with SIGHUP; connections that stand go on under load.
    """
    issued, trusting = authority.sign("here", "localhost"), authority.trusting()
    with sidecar(shop.url, workers=2, tls=pair(issued)) as running:
        first = serial(running, trusting)
        with running.load(60, tls=trusting) as load:
            load.wait(30)
            issued.replace(authority.sign("next", "localhost"))
            second = until_shown(running, trusting, first)
            load.wait(30)
            issued.replace(authority.sign("third", "localhost"))
            running.signal(signal.SIGHUP)
            until_shown(running, trusting, second)
            load.wait(30)
        lived_well(load)


def test_a_renewal_that_does_not_fit_keeps_the_old_certificate(shop: Shop, authority: Authority) -> None:
    """
    A key of another certificate, or no PEM at all: the log names file and reason, clients notice nothing; then the right one.
    """
    issued, trusting = authority.sign("here", "localhost"), authority.trusting()
    key = issued.key.read_bytes()
    with sidecar(shop.url, tls=pair(issued)) as running:
        first = serial(running, trusting)
        with running.load(30, tls=trusting) as load:
            replaced(issued.key, authority.sign("other", "localhost").key.read_bytes())
            said = running.until_said("changed certificate files cannot be used")
            assert f"{issued.certificate} and {issued.key} are no pair" in said["problem"]
            assert serial(running, trusting) == first
            replaced(issued.key, b"no key")
            until(
                lambda: "holds no private key" in str(running.said("changed certificate")), "it says what is wrong now"
            )
            assert serial(running, trusting) == first
            replaced(issued.key, key)
            issued.replace(authority.sign("next", "localhost"))
            until_shown(running, trusting, first)
        lived_well(load)


def replaced(file: Path, content: bytes) -> None:
    """Let *file* have *content* at once."""
    made = file.with_suffix(".new")
    made.write_bytes(content)
    made.rename(file)


def test_a_version_switches_tls_on_and_off(shop: Shop, authority: Authority) -> None:
    """
    `tls` is live: new connections meet the new version, those that stand go on; a version whose files are missing is refused.
    """
    issued, trusting = authority.sign("here", "localhost"), authority.trusting()
    with sidecar(shop.url) as running, Client(running.address()) as plain:
        assert plain.ask("GET", "/api/products/7").status == 200
        running.config["tls"] = pair(issued)
        assert running.apply(running.text).status == 200
        assert serial(running, trusting)
        assert plain.ask("GET", "/api/products/7").status == 200

        running.config["tls"] = pair(issued) | {"certificate": "/nowhere/tls.crt"}
        refused = running.apply(running.text)
        assert refused.status in (422, 503)
        assert "/nowhere/tls.crt cannot be read" in refused.text
        assert serial(running, trusting)

        del running.config["tls"]
        assert running.apply(running.text).status == 200
        with Client(running.address()) as client:
            assert client.ask("GET", "/api/products/7").status == 200


def failed_handshakes(running: Sidecar) -> int:
    """Return what `/metrics` says."""
    found = re.search(
        r"^sidecar_tls_handshakes_failed_total ([0-9.]+)$", running.observe("/metrics").text, re.MULTILINE
    )
    return int(float(found[1])) if found else 0


def test_failed_handshakes_are_counted(shop: Shop, authority: Authority) -> None:
    """
    Clients that trust somebody else, speak no TLS, or never begin are each one more in `sidecar_tls_handshakes_failed_total`.
    """
    issued = authority.sign("here", "localhost")
    with sidecar(shop.url, tls=pair(issued), downstream={"head_timeout": "2s"}) as running:
        before = failed_handshakes(running)
        with Client(running.address()) as odd, Client(running.address()) as silent:
            with pytest.raises(
                OSError, match=r"."
            ):  # a certificate that is not believed; on a slow machine, out of time
                Client(running.address(), tls=ssl.create_default_context())
            with contextlib.suppress(ConnectionError):
                odd.send(b"\x00\x01\x02\x03")
            for client in (odd, silent):
                with contextlib.suppress(ConnectionError):
                    assert client.sock.recv(1) == b""
        until(lambda: failed_handshakes(running) == before + 3, "three are counted")


def test_a_worker_is_replaced_without_a_failure_under_tls(shop: Shop, authority: Authority) -> None:
    """
    SIGTERM to a worker under load over TLS: its successor serves, no request fails.
    """
    issued, trusting = authority.sign("here", "localhost"), authority.trusting()
    with sidecar(shop.url, workers=2, tls=pair(issued)) as running:
        with running.load(60, tls=trusting) as load:
            load.wait(30)
            before = running.workers()
            os.kill(before[0], signal.SIGTERM)
            until(lambda: running.serving() and before[0] not in running.workers(), "a successor serves")
            load.wait(30)
        assert not load.failed, load.said()


def test_the_admin_listener_speaks_tls(shop: Shop, authority: Authority) -> None:
    """
    The CLI reaches it with the authority in SSL_CERT_FILE and not without; a renewed certificate is shown to the next one.
    """
    issued = authority.sign("here", "localhost", "127.0.0.1")
    config = settings(shop.url)
    config["admin"] |= {"tls": pair(issued), "hosts": ["sidecar.internal"]}
    trusted = {"SSL_CERT_FILE": str(authority.ca)}
    with Sidecar(config, admin_tls=authority.trusting(), environ=trusted) as running:
        host, port = running.address("admin")
        done = running.cli("status", "--admin", f"https://{host}:{port}")
        assert (done.returncode, done.stderr) == (0, "")
        running.environ = {}
        done = running.cli("status", "--admin", f"https://{host}:{port}")
        assert done.returncode == 3
        assert "certificate verify failed" in done.stderr
        assert running.api("GET", "/status", headers={"Host": "sidecar.internal"}).status == 200
        assert running.api("GET", "/status", headers={"Host": "evil.test"}).status in (400, 403, 421)

        first = shown_by(host, port, authority)
        issued.replace(authority.sign("next", "localhost", "127.0.0.1"))
        until(lambda: shown_by(host, port, authority) != first, "the admin listener shows the new certificate")


def shown_by(host: str, port: int, authority: Authority) -> str:
    """Return the serial number of the certificate that a listener shows."""
    with Client((host, port), tls=authority.trusting()) as client:
        assert isinstance(client.sock, ssl.SSLSocket)
        return str((client.sock.getpeercert() or {})["serialNumber"])


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ({"tls": {"certificate": "missing.crt", "key": "missing.key"}}, "tls.certificate"),
        ({"upstream": {"endpoints": ["https://127.0.0.1:1"], "tls": {"ca": "missing.crt"}}}, "upstream.tls.ca"),
        (
            {"admin": {"listen": "127.0.0.1:0", "tls": {"certificate": "missing.crt", "key": "missing.key"}}},
            "admin.tls.certificate",
        ),
    ],
)
def test_a_start_with_files_that_cannot_be_used_is_refused(section: dict[str, Any], key: str) -> None:
    """
    One line with the file's name, the key and the remedy, and exit code 2; nothing was started.
    """
    made = Sidecar(settings("http://127.0.0.1:1", **section))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "sidecar", "run", "-c", str(made.file)],
            capture_output=True, text=True, timeout=60, check=False, cwd=made.folder,
            env={**made.environment, "PYTHONPATH": str(ROOT), "SIDECAR_TOKEN": SECRETS["admin"]},
        )  # fmt: skip
    finally:
        made.end()
    assert done.returncode == 2
    assert f"{key}: missing.crt cannot be read: No such file or directory (name files in PEM" in done.stderr
