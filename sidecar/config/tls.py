"""Every key of TLS, on listeners and to the API behind. A description is one sentence for the schema and the page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from sidecar.config.addresses import CertificateHost, Host
from sidecar.config.fields import FilePath
from sidecar.config.kinds import Fault, choice
from sidecar.config.sections import Section, twice
from sidecar.config.tls_policies import ClientCertificates

ClientCertificatesWord = Annotated[ClientCertificates, choice(ClientCertificates)]


class SniSection(Section):
    """A certificate for some host names."""

    hosts: list[CertificateHost] = Field(description="Whom clients ask for: names, or *.example.com for one label.")
    certificate: FilePath = Field(description="PEM file of the certificate with its chain.")
    key: FilePath = Field(description="PEM file of its key, unencrypted.")

    def faults(self) -> Iterator[Fault]:
        """Refuse a certificate for nobody, and a name that stands there twice."""
        if not self.hosts:
            yield Fault(("hosts",), "names nobody", "add the names that clients ask for, as [api.example.com]")
        yield from twice("hosts", self.hosts)


class TlsSection(Section):
    """TLS of a listener: 1.2 and 1.3; changed files are taken within seconds, without a dropped connection."""

    certificate: FilePath = Field(description="PEM file of the certificate with its chain.")
    key: FilePath = Field(description="PEM file of its key, unencrypted.")
    client_ca: FilePath | None = Field(
        default=None, description="PEM file of the authorities whose clients are believed."
    )
    client_certificates: ClientCertificatesWord | None = Field(
        default=None,
        description="Whether clients must show a certificate of client_ca; absent: required when client_ca is given.",
    )
    sni: list[SniSection] = Field(default=[], description="Other certificates, by the name that a client asks for.")

    def faults(self) -> Iterator[Fault]:
        """Refuse a name that two certificates claim, and asking for certificates that nobody could judge."""
        known: set[str] = set()
        for index, named in enumerate(self.sni):
            for host in named.hosts:
                if host in known:
                    yield Fault(("sni", index, "hosts"), f"{host} has a certificate already", "name it once")
                known.add(host)
        if self.client_ca is None and self.client_certificates not in (None, ClientCertificates.OFF):
            problem = f"{self.client_certificates} needs to know whose certificates to believe"
            yield Fault(("client_certificates",), problem, "add `client_ca: FILE` beside it")


class UpstreamTlsSection(Section):
    """TLS to `https://` endpoints: they are always verified, name included."""

    ca: FilePath | None = Field(default=None, description="PEM file of the authorities to trust; absent: the system's.")
    certificate: FilePath | None = Field(default=None, description="PEM file of our certificate, where the API asks.")
    key: FilePath | None = Field(default=None, description="PEM file of its key, unencrypted.")
    server_name: Host | None = Field(
        default=None, description="Whom to expect and to ask for; absent: the endpoint's host."
    )

    def faults(self) -> Iterator[Fault]:
        """Refuse half a pair."""
        if bool(self.certificate) != bool(self.key):
            missing, there = ("key", "certificate") if self.certificate else ("certificate", "key")
            yield Fault((there,), f"{missing} is missing", f"add `{missing}: FILE`: the two belong together")
