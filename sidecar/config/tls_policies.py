"""What TLS is to be, on listeners and to the API behind: frozen, and without a line of OpenSSL."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class ClientCertificates(StrEnum):
    """Whether clients of a TLS listener show a certificate: never asked, asked, or refused without one."""

    OFF = "off"
    OPTIONAL = "optional"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class NamedCertificate:
    """The certificate of some host names (lower case; `*.example.com` for one label more), by the client's SNI."""

    hosts: tuple[str, ...]
    certificate: str
    key: str


@dataclass(frozen=True, slots=True)
class TlsPolicy:
    """
    TLS of a listener; files are PEM.

    Attributes:
        certificate, key: For clients that name no host of `sni`; the certificate with its chain.
        client_ca: The authorities of clients; empty when these are not asked.
        client_certificates: Whether a client that shows none is served. One that does not fit never is.
        sni: Others by name.
    """

    certificate: str
    key: str
    client_ca: str = ""
    client_certificates: ClientCertificates = ClientCertificates.OFF
    sni: tuple[NamedCertificate, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """Return every file that it names."""
        named = (file for each in self.sni for file in (each.certificate, each.key))
        return tuple(file for file in (self.certificate, self.key, self.client_ca, *named) if file)


@dataclass(frozen=True, slots=True)
class UpstreamTlsPolicy:
    """
    TLS to `https://` endpoints, which are always verified; files are PEM.

    Attributes:
        ca: Whom to trust in place of the system's authorities.
        certificate, key: Ours, where the API asks for one.
        server_name: Whom to expect and to ask for, in place of the endpoint's host.
    """

    ca: str = ""
    certificate: str = ""
    key: str = ""
    server_name: str = ""

    @property
    def files(self) -> tuple[str, ...]:
        """Return every file that it names."""
        return tuple(file for file in (self.ca, self.certificate, self.key) if file)


SYSTEM_AUTHORITIES: Final = UpstreamTlsPolicy()
