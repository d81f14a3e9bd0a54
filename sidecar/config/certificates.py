"""
The TLS contexts that a policy asks for, made from its files, and whether these have changed.

One place for every context, so that all have the same floor: TLS 1.2, no compression, no renegotiation, HTTP/1.1 by
ALPN, and to the API behind always verification. The worker, the controller and the check of a config use it; nothing here
needs YAML or pydantic.

What can go wrong. A renewal writes two files, one after the other: between them the pair does not fit. Whoever watches keeps the old
          context then, and the second file is another change. Certificates by name share the trust in clients with the main one:
          OpenSSL judges a client by the context that its name chose.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from sidecar.config.policies import Compiled, UpstreamPolicy
from sidecar.config.tls_policies import ClientCertificates, TlsPolicy, UpstreamTlsPolicy

_ALPN: Final = ["http/1.1"]
_OPTIONS: Final = ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
_ASKED: Final = {
    ClientCertificates.OFF: ssl.CERT_NONE,
    ClientCertificates.OPTIONAL: ssl.CERT_OPTIONAL,
    ClientCertificates.REQUIRED: ssl.CERT_REQUIRED,
}

Chooser = Callable[[ssl.SSLObject, str, ssl.SSLContext], int | None]  # the name is None when the client asks for none


class CertificateError(Exception):
    """
    A file that cannot be used; the message names it and says what is wrong.

    Attributes:
        at: The key that names it, from `tls`, `admin.tls` or `upstream.tls` on.
    """

    def __init__(self, at: str, file: str, problem: str) -> None:
        super().__init__(f"{file} {problem}")
        self.at = at


def server_context(policy: TlsPolicy, at: str = "tls") -> ssl.SSLContext:
    """
    Return the context of a listener, with those of its names.

    Raises:
        CertificateError: when a file is missing, unreadable, or does not fit to the others.
    """
    context = _server(policy, policy.certificate, policy.key, at, at)
    by_name: dict[str, ssl.SSLContext] = {}
    for index, named in enumerate(policy.sni):
        made = _server(policy, named.certificate, named.key, f"{at}.sni.{index}", at)
        by_name |= dict.fromkeys(named.hosts, made)
    if by_name:
        context.sni_callback = _chooser(by_name)
    return context


def client_context(policy: UpstreamTlsPolicy) -> ssl.SSLContext:
    """
    Return the context of connections to the API: it is always verified, by *policy*'s CA or the system's.

    Raises:
        CertificateError: as above.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies, and checks the name
    _harden(context)
    if policy.ca:
        _trust(context, policy.ca, "upstream.tls.ca")
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if policy.certificate:
        _chain(context, policy.certificate, policy.key, "upstream.tls")
    return context


def speaks_tls(policy: UpstreamPolicy) -> bool:
    """Tell whether any endpoint of *policy* is an `https://` one."""
    return any(endpoint.tls for endpoint in policy.endpoints)


def problems(compiled: Compiled) -> Iterator[CertificateError]:
    """Yield what is wrong with the files that *compiled* names."""
    wanted: list[tuple[TlsPolicy | None, str]] = [(compiled.proxy.tls, "tls"), (compiled.admin.tls, "admin.tls")]
    for policy, at in wanted:
        if policy is not None:
            try:
                server_context(policy, at)
            except CertificateError as error:
                yield error
    if speaks_tls(compiled.proxy.upstream):
        try:
            client_context(compiled.proxy.upstream.tls)
        except CertificateError as error:
            yield error


class Watch:
    """Tells when one of some files has changed: another inode, size or time, also behind a symbolic link."""

    def __init__(self, files: Iterable[str]) -> None:
        self._files = tuple(dict.fromkeys(files))
        self._stamps = self._look()

    def __repr__(self) -> str:
        return f"<Watch {list(self._files)}>"

    def changed(self) -> bool:
        """Tell whether something changed since this was asked last, or since the beginning."""
        before, self._stamps = self._stamps, self._look()
        return before != self._stamps

    def _look(self) -> tuple[object, ...]:
        return tuple(_stamp(file) for file in self._files)


class Renewing:
    """
    A listener's context that takes changed files by itself, for servers that hold on to one context.

    Attributes:
        context: To be given to the server. Whether clients must show a certificate stays as it was at first.

    Args:
        complain: Is told what is wrong with files that were changed; the old ones stay.

    Raises:
        CertificateError: when the files of *policy* cannot be used.
    """

    def __init__(self, policy: TlsPolicy, at: str, complain: Callable[[str], None]) -> None:
        self._watch = Watch(policy.files)
        self.context = self._newest = server_context(policy, at)
        self._by_name: Chooser | None = self.context.sni_callback
        self._policy, self._at, self._complain = policy, at, complain
        self.context.sni_callback = self._choose

    def __repr__(self) -> str:
        return f"<Renewing {self._at}>"

    def _choose(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        if self._watch.changed():
            try:
                self._newest = server_context(self._policy, self._at)
                self._by_name = self._newest.sni_callback
            except CertificateError as error:
                self._complain(str(error))
        if self._newest is not self.context:
            connection.context = self._newest
        if self._by_name is not None:
            self._by_name(connection, name or "", self._newest)


def _stamp(file: str) -> object:
    try:
        found = Path(file).stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _server(policy: TlsPolicy, certificate: str, key: str, at: str, trust_at: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context)
    _chain(context, certificate, key, at)
    if policy.client_certificates is not ClientCertificates.OFF:
        _trust(context, policy.client_ca, f"{trust_at}.client_ca")
        context.verify_mode = _ASKED[policy.client_certificates]
    return context


def _harden(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= _OPTIONS
    context.set_alpn_protocols(_ALPN)


def _chain(context: ssl.SSLContext, certificate: str, key: str, at: str) -> None:
    _pem(f"{at}.certificate", certificate, b"CERTIFICATE-----", "certificate")
    _pem(f"{at}.key", key, b"PRIVATE KEY-----", "private key")
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")  # never ask on the terminal
    except ssl.SSLError as error:
        problem = f"and {key} are no pair of certificate and key: {_words(error)}"
        raise CertificateError(f"{at}.certificate", certificate, problem) from None


def _trust(context: ssl.SSLContext, ca: str, at: str) -> None:
    _pem(at, ca, b"CERTIFICATE-----", "certificate")
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise CertificateError(at, ca, f"holds what is no certificate in PEM: {_words(error)}") from None


def _words(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).replace("_", " ").lower()


def _pem(at: str, file: str, mark: bytes, what: str) -> None:
    """Say what OpenSSL would not: that *file* cannot be read, holds no PEM of *what*, or is encrypted."""
    try:
        text = Path(file).read_bytes()
    except OSError as error:
        raise CertificateError(at, file, f"cannot be read: {error.strerror or error}") from None
    if mark not in text:
        raise CertificateError(at, file, f"holds no {what} in PEM")
    if b"ENCRYPTED" in text:
        raise CertificateError(at, file, "is encrypted: write it without a passphrase")


def _chooser(by_name: dict[str, ssl.SSLContext]) -> Chooser:
    def choose(connection: ssl.SSLObject, name: str, _: ssl.SSLContext) -> None:
        wanted = (name or "").lower().rstrip(".")
        found = by_name.get(wanted) or by_name.get("*." + wanted.partition(".")[2])
        if found is not None:
            connection.context = found

    return choose
