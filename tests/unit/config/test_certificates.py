"""TLS contexts from files: what they demand, what is wrong with files, and when a change is seen."""

from __future__ import annotations

import os
import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.config.certificates import (
    CertificateError,
    Renewing,
    Watch,
    client_context,
    problems,
    server_context,
)
from sidecar.config.load import load
from sidecar.config.tls_policies import ClientCertificates, NamedCertificate, TlsPolicy, UpstreamTlsPolicy
from tests.support.pki import Authority, Issued, shake


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def issued(authority: Authority) -> Issued:
    return authority.sign("main", "main.test")


@pytest.fixture
def policy(issued: Issued) -> TlsPolicy:
    return TlsPolicy(str(issued.certificate), str(issued.key))


def test_a_listener_speaks_tls_1_2_and_1_3_and_http_1_1(authority: Authority, policy: TlsPolicy) -> None:
    """
    Older versions are refused by us, not by chance; of the protocols that a client offers only http/1.1 is chosen.
    """
    context = server_context(policy)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        client = authority.trusting()
        client.minimum_version = client.maximum_version = version
        client.set_alpn_protocols(["h2", "http/1.1"])
        shaken = shake(context, client, "main.test")
        assert (shaken.client.version(), shaken.client.selected_alpn_protocol()) == (
            version.name.replace("_", "."),
            "http/1.1",
        )
    old = authority.trusting()
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match="PROTOCOL"):
        shake(context, old, "main.test")


def test_the_name_chooses_the_certificate(authority: Authority, policy: TlsPolicy) -> None:
    """
    A name, or one label below a wildcard, gets its certificate; any other name, and none, the main one.
    """
    named = [
        NamedCertificate((host,), str(made.certificate), str(made.key))
        for host, made in (
            ("one.test", authority.sign("one", "one.test")),
            ("*.wild.test", authority.sign("wild", "*.wild.test")),
        )
    ]
    context = server_context(replace(policy, sni=tuple(named)))
    blind = authority.trusting()
    blind.check_hostname = False

    def shown(name: str | None) -> str:
        return str(dict(part[0] for part in shake(context, blind, name).client.getpeercert()["subject"])["commonName"])  # type: ignore[index]

    wanted = {
        "one.test": "one", "ONE.test": "one", "a.wild.test": "wild", "a.b.wild.test": "main", "wild.test": "main",
        "else.test": "main", None: "main",
    }  # fmt: skip
    assert {name: shown(name) for name in wanted} == wanted


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize(
    ("asked", "nobody", "known"),
    [
        (ClientCertificates.OFF, True, True),
        (ClientCertificates.OPTIONAL, True, True),
        (ClientCertificates.REQUIRED, False, True),
    ],
)
def test_client_certificates(
    authority: Authority, policy: TlsPolicy, tmp_path: Path, asked: ClientCertificates, nobody: bool, known: bool, named: bool
) -> None:  # fmt: skip
    """
    `required` refuses who shows none, `optional` does not; both refuse who shows one of another authority, by every name.
    """
    foreign = Authority.make(tmp_path, "foreign").sign("stranger")
    sni = (NamedCertificate(("named.test",), policy.certificate, policy.key),) if named else ()
    context = server_context(replace(policy, client_ca=str(authority.ca), client_certificates=asked, sni=sni))
    name = "named.test" if named else "main.test"

    def passes(shown: Issued | None) -> bool:
        client = authority.trusting(shown)
        client.check_hostname = False
        try:
            return shake(context, client, name).server.version() is not None
        except ssl.SSLError:
            return False

    assert passes(None) is nobody
    assert passes(authority.sign("friend")) is known
    assert passes(foreign) is (asked is ClientCertificates.OFF)


def test_the_api_is_always_verified(authority: Authority, issued: Issued) -> None:
    """
    By the given authority, name included; by the system's without one.
    """
    serving = authority.serving(issued)
    ours = client_context(UpstreamTlsPolicy(ca=str(authority.ca)))
    assert shake(serving, ours, "main.test").client.version() == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake(serving, ours, "other.test")
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
        shake(serving, client_context(UpstreamTlsPolicy()), "main.test")


@pytest.mark.parametrize(
    ("broken", "at", "says"),
    [
        ({"certificate": "missing.crt"}, "tls.certificate", "missing.crt cannot be read: No such file or directory"),
        ({"key": "missing.key"}, "tls.key", "missing.key cannot be read: No such file or directory"),
        ({"key": "other.key"}, "tls.certificate", "other.key are no pair of certificate and key: key values mismatch"),
        ({"certificate": "words.txt"}, "tls.certificate", "words.txt holds no certificate in PEM"),
        ({"client_ca": "words.txt", "client_certificates": "required"}, "tls.client_ca", "words.txt holds no certificate in PEM"),
        ({"key": "words.txt"}, "tls.key", "words.txt holds no private key in PEM"),
        ({"key": "locked.key"}, "tls.key", "locked.key is encrypted: write it without a passphrase"),
        ({"certificate": "torn.crt"}, "tls.certificate", "torn.crt and"),
        ({"sni": "missing.crt"}, "tls.sni.0.certificate", "missing.crt cannot be read"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_named(
    authority: Authority, policy: TlsPolicy, broken: dict[str, str], at: str, says: str
) -> None:
    """
    The error has the key of the setting, the file, and what is wrong with it.
    """
    authority.sign("other", "other.test")
    (authority.folder / "words.txt").write_text("no PEM\n")
    (authority.folder / "torn.crt").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    (authority.folder / "locked.key").write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n")
    files = {name: str(authority.folder / file) for name, file in broken.items() if name not in ("sni", "client_certificates")}  # fmt: skip
    wrong = replace(policy, **files)  # type: ignore[arg-type]
    if "client_certificates" in broken:
        wrong = replace(wrong, client_certificates=ClientCertificates.REQUIRED)
    if "sni" in broken:
        wrong = replace(wrong, sni=(NamedCertificate(("a.test",), str(authority.folder / broken["sni"]), policy.key),))
    with pytest.raises(CertificateError) as caught:
        server_context(wrong)
    assert caught.value.at == at
    assert says in str(caught.value)


def test_every_problem_of_a_config_is_found(policy: TlsPolicy) -> None:
    """
    One for each section whose files cannot be used; `upstream.tls` counts only where an endpoint speaks TLS.
    """
    text = "tls: {certificate: a.crt, key: a.key}\nadmin: {tls: {certificate: b.crt, key: b.key}}\n"
    upstream = "upstream: {{endpoints: ['{}://127.0.0.1:1'], tls: {{ca: c.crt}}}}\n"
    compiled = load(text + upstream.format("https"), name="f", environ={}, flags={})
    assert [each.at for each in problems(compiled)] == ["tls.certificate", "admin.tls.certificate", "upstream.tls.ca"]
    compiled = load("upstream: {endpoints: ['http://127.0.0.1:1']}\n", name="f", environ={}, flags={})
    assert list(problems(compiled)) == []


def test_a_watch_sees_each_change_once(tmp_path: Path) -> None:
    """
    New content, a swapped link, removal and return are changes; reading and asking are none.
    """
    one, two, link = tmp_path / "one", tmp_path / "two", tmp_path / "link"
    one.write_text("1")
    two.write_text("2")
    link.symlink_to(one)
    watch = Watch([str(link), str(link)])
    assert not watch.changed()
    one.write_text("longer")
    assert watch.changed()
    assert not watch.changed()
    (tmp_path / "next").symlink_to(two)
    (tmp_path / "next").rename(link)
    assert watch.changed()
    two.unlink()
    assert watch.changed()
    assert not watch.changed()
    two.write_text("2")
    assert watch.changed()


def test_a_context_renews_itself(tmp_path: Path) -> None:
    """
    The next handshake after a renewal has the new certificate, half a renewal keeps the old one and is said once.
    """
    authority = Authority.make(tmp_path)
    first, second = authority.sign("first", "main.test"), authority.sign("second", "main.test")
    said: list[str] = []
    renewing = Renewing(TlsPolicy(str(first.certificate), str(first.key)), "admin.tls", said.append)

    def serial() -> object:
        return shake(renewing.context, authority.trusting(), "main.test").client.getpeercert()["serialNumber"]  # type: ignore[index]

    before = serial()
    os.replace(second.certificate, first.certificate)  # noqa: PTH105
    assert [serial(), serial()] == [before, before]
    assert ["no pair" in each for each in said] == [True]
    os.replace(second.key, first.key)  # noqa: PTH105
    assert serial() != before
    assert len(said) == 1
