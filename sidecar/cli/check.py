"""`sidecar check`: everything that would stop a start, found before it, each with its remedy."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType
from rich.markup import escape

from sidecar.cli.client import Answer, Exit, why
from sidecar.cli.session import Session
from sidecar.supervise.start import state_problem

if TYPE_CHECKING:
    from sidecar.config.errors import ConfigError
    from sidecar.config.policies import Address, Compiled, Endpoint
    from sidecar.config.tls_policies import UpstreamTlsPolicy


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, whether it is well, why not, and what to do."""

    name: str
    ok: bool
    problem: str = ""
    hint: str = ""


def check(
    session: Session,
    config_file: Annotated[Path, typer.Option("-c", "--config", help="The configuration file.")] = Path(
        "config/sidecar.yaml"
    ),
) -> None:
    """Check the file, the upstream, the ports and the state directory; exit 1 when something would fail."""
    findings = list(_findings(config_file))
    rows = [{"check": f.name, "ok": f.ok, "problem": f.problem, "hint": f.hint} for f in findings]
    answer = Answer.local({"ok": all(f.ok for f in findings), "checks": rows})
    session.print(answer, lambda _, __: [_line(f) for f in findings])
    if not all(f.ok for f in findings):
        raise typer.Exit(Exit.REFUSED)


def _line(finding: Finding) -> RenderableType:
    if finding.ok:
        return f"[green]✓[/] {escape(finding.name)}"
    return f"[red]✗[/] {escape(finding.name)}: {escape(finding.problem)}\n    → {escape(finding.hint)}"


def _findings(file: Path) -> Iterator[Finding]:
    from sidecar.config.errors import ConfigErrors  # noqa: PLC0415  yaml and pydantic are slow to import
    from sidecar.config.load import load  # noqa: PLC0415

    try:
        compiled = load(file.read_text(encoding="utf-8"), name=str(file), environ=os.environ, flags={})
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 text: byte {error.start} is 0x{error.object[error.start]:02x}"
        yield Finding(f"{file} is readable", False, problem, "save it as UTF-8, or name another file with -c FILE")
        return
    except OSError as error:
        yield Finding(f"{file} is readable", False, why(error), "name a file with -c FILE")
        return
    except ConfigErrors as invalid:
        yield from (Finding(f"{file} is valid", False, _place(error), error.hint) for error in invalid.errors)
        return
    yield Finding(f"{file} is valid", True)
    yield from _certificates(compiled)
    yield from (_reachable(endpoint, compiled) for endpoint in compiled.proxy.upstream.endpoints)
    yield from _listeners(compiled)
    yield _writable(Path(compiled.static.state))


def _place(error: ConfigError) -> str:
    place = f"{error.line}:{error.column}" if error.line else error.file
    return ": ".join(word for word in (place, error.path, error.problem) if word)


def _attempt(name: str, act: Callable[[], object], hint: str) -> Finding:
    try:
        act()
    except OSError as error:
        return Finding(name, False, error.strerror or str(error), hint)
    return Finding(name, True)


def _certificates(compiled: Compiled) -> Iterator[Finding]:
    from sidecar.config.certificates import problems, speaks_tls  # noqa: PLC0415

    if compiled.proxy.tls or compiled.admin.tls or speaks_tls(compiled.proxy.upstream):
        unusable = list(problems(compiled))
        if not unusable:
            yield Finding("certificate files can be used", True)
        for error in unusable:
            yield Finding(
                f"{error.at} can be used", False, str(error), "name files in PEM that the sidecar's user may read"
            )


def _shake(probe: socket.socket, endpoint: Endpoint, tls: UpstreamTlsPolicy) -> None:
    from sidecar.config.certificates import CertificateError, client_context  # noqa: PLC0415

    try:
        context = client_context(tls)
    except CertificateError as error:
        raise OSError(str(error)) from None
    context.wrap_socket(probe, server_hostname=tls.server_name or endpoint.host).close()


def _reachable(endpoint: Endpoint, compiled: Compiled) -> Finding:
    def connect() -> None:
        if endpoint.tls:
            with socket.create_connection((endpoint.host, endpoint.port), timeout=1.0) as probe:
                _shake(probe, endpoint, compiled.proxy.upstream.tls)
        elif endpoint.path:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(1.0)
                probe.connect(endpoint.path)
        else:
            socket.create_connection((endpoint.host, endpoint.port), timeout=1.0).close()

    hint = "start the API, or correct upstream.endpoints"
    if endpoint.tls:
        hint += "; name the authority of its certificate in upstream.tls.ca"
    return _attempt(f"upstream {endpoint} accepts connections", connect, hint)


def _listeners(compiled: Compiled) -> Iterator[Finding]:
    static = compiled.static
    for name, address in (("listen", static.listen), ("observe", static.observe), ("admin", static.admin)):
        if not address.path:
            yield _attempt(
                f"{name} {address} is free",
                lambda address=address: _bind(address),  # type: ignore[misc]
                f"a sidecar may run already (`sidecar status`); see who has it: ss -ltnp 'sport = :{address.port}'",
            )


def _bind(address: Address) -> None:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((address.host, address.port))


def _writable(state: Path) -> Finding:
    def write() -> None:
        missing = [folder for folder in (state, *state.parents) if not folder.exists()]
        try:
            state.mkdir(parents=True, exist_ok=True)
            probe = state / ".check"
            probe.touch()
            probe.unlink()
        finally:
            for folder in missing:  # what was only made to find out does not stay
                with contextlib.suppress(OSError):
                    folder.rmdir()

    try:
        write()
    except OSError as error:
        return Finding(f"state {state} is writable", False, *state_problem(state, error))
    return Finding(f"state {state} is writable", True)
