"""`sidecar tap`: requests as they end, one line each."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any

import typer

from sidecar.cli import render
from sidecar.cli.client import Exit, Failure
from sidecar.cli.session import Session

RECONNECT_S = 1.0


def tap(
    session: Session,
    route: Annotated[str | None, typer.Option("--route", help="Only requests of this route.")] = None,
    status: Annotated[str | None, typer.Option("--status", help="Only these answers, as 503 or 5xx.")] = None,
    client: Annotated[str | None, typer.Option("--client", help="Only requests of this client's key.")] = None,
    slower: Annotated[
        str | None, typer.Option("--slower", help="Only requests that took at least 200ms, 2s, …")
    ] = None,
    refused: Annotated[bool, typer.Option("--refused", help="Only requests that a guard refused.")] = False,  # noqa: FBT002
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Stop after so many.")] = None,
) -> None:
    """Show requests as they end, until Ctrl-C: no query, no body, no value of a field; the busiest are sampled."""
    wanted = {"route": route, "status": status, "client": client, "slower": slower, "refused": "1" if refused else None}
    left = limit
    for request in _followed(session, wanted):
        if session.wants_json:
            typer.echo(json.dumps(request, ensure_ascii=False))
        else:
            if request.get("missed"):
                typer.echo(f"… {request['missed']} more were not shown: narrow it with --route, --status or --client")
            typer.echo(line(request))
        left = left - 1 if left is not None else None
        if left == 0:
            return


def _followed(session: Session, wanted: Mapping[str, str | None]) -> Iterator[Mapping[str, Any]]:
    connected = False
    while True:
        try:
            yield from session.client.stream("/tap", wanted)
            connected = True
        except Failure as failure:
            if failure.code is not Exit.UNREACHABLE or not connected:
                raise
        time.sleep(RECONNECT_S)  # the pace of reconnecting, not a synchronisation


def _lasted(seconds: float) -> str:
    return f"{1000 * seconds:.3g}ms" if seconds < 1.0 else render.seconds(seconds)


def line(request: Mapping[str, Any]) -> str:
    """Return one request as a line: when, what, how long, for whom, and why it failed."""
    at = datetime.fromisoformat(request["time"]).strftime("%H:%M:%SZ")
    words = [
        at,
        request["status"],
        request.get("method"),
        request.get("path_template"),
        _lasted(request["duration_s"]),
        *(f"{name}={_lasted(request[f'{name}_s'])}" for name in ("guard", "upstream") if f"{name}_s" in request),
        *(f"{way}={request[f'bytes_{way}']}B" for way in ("in", "out") if f"bytes_{way}" in request),
        f"route={request['route']}",
        f"client={request['client']}",
        *(
            f"{name}={request[name]}"
            for name in ("endpoint", "reason", "flags", "decision", "trace")
            if name in request
        ),
        f"retried={request['retried']}" if request.get("retried") else "",
    ]
    return " ".join("".join(c if c.isprintable() else "�" for c in str(word)) for word in words if word)
