"""`sidecar config`: see, check, apply, confirm and roll back the configuration."""

# ruff: noqa: FBT002  typer reads the options from the signature

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import RenderableType

from sidecar.cli import complete, given, render
from sidecar.cli.client import Answer, Exit, Failure, why
from sidecar.cli.session import Session, command

app = typer.Typer(
    no_args_is_help=True,
    help="Configuration: show, validate, diff, apply, confirm, history, rollback, schema.",
    epilog="Examples: sidecar config apply new.yaml --reason 'raise the limit' --confirm-within 2m · "
    "sidecar config rollback · sidecar config diff 3 5",
)

REPLAY_S: Final = 120.0  # how long a replay may take

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A YAML file.")]
Version = Annotated[int | None, typer.Argument(help="A version's number.", autocompletion=complete.versions)]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why, for the history and the audit.")]


@app.command(epilog="Example: sidecar config show > active.yaml")
@command
def show(session: Session) -> None:
    """Print the active configuration as it was written (secrets hidden)."""
    answer = session.client.get("/config").body
    session.console.file.write(render.as_json(answer) if session.wants_json else answer["text"])
    if "sha256: (hidden)" in answer["text"]:
        typer.echo("! token hashes are hidden: put yours back before this becomes the sidecar's file", err=True)


@app.command(epilog="Example: sidecar config validate config/sidecar.yaml")
@command
def validate(session: Session, file: FileArgument) -> None:
    """Check a file, without a sidecar: every error at once, with its line and what to write instead."""
    from sidecar.config.errors import ConfigErrors  # noqa: PLC0415  yaml and pydantic are slow to import
    from sidecar.config.load import load  # noqa: PLC0415

    try:
        compiled = load(_read(file), name=str(file), environ=os.environ, flags={})
    except ConfigErrors as invalid:
        rows = [error.to_json() for error in invalid.errors]
        if session.wants_json:
            session.console.file.write(render.as_json({"valid": False, "errors": rows}))
            raise typer.Exit(Exit.USAGE) from invalid
        count = len(rows)
        raise Failure(Exit.USAGE, f"{file}: {count} error{'s' * (count > 1)}", "", tuple(rows)) from invalid
    session.done(Answer.local({"valid": True, "errors": []}), f"{file} is valid: {len(compiled.proxy.routes)} routes")


@app.command(epilog="Examples: sidecar config diff 3 5 · sidecar config diff 3 5 --replay 24h")
@command
def diff(
    session: Session,
    a: Version = None,
    b: Version = None,
    replay: Annotated[
        str | None, typer.Option("--replay", help="Also replay the history of this time under both, as 24h.")
    ] = None,
) -> None:
    """Show what changed between two versions (default: the last change), and what it would have done."""

    def table(answer: Any, now: datetime) -> Iterable[RenderableType]:
        yield changes(answer["changes"], f"version {answer['from']} → {answer['to']}")
        if "replay" in answer:
            yield from replayed(answer["replay"], now)

    if replay is not None:
        given.seconds("--replay", replay)
    query = {"from": a, "to": b, "replay": replay}
    patience_s = REPLAY_S if replay else 0.0
    session.show(lambda: session.client.call("GET", "/config/diff", query=query, patience_s=patience_s), table)


@app.command(epilog="Example: sidecar config apply new.yaml --reason 'raise the limit' --confirm-within 2m")
@command
def apply(
    session: Session,
    file: FileArgument,
    reason: ReasonOption = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    confirm_within: Annotated[
        str | None, typer.Option("--confirm-within", help="Revert by itself unless confirmed in this time, as 2m.")
    ] = None,
) -> None:
    """Apply a file live; answers when every worker runs it."""
    if confirm_within is not None:
        given.seconds("--confirm-within", confirm_within)
    text = _read(file)
    client = session.client
    etag = client.get("/config").etag
    query = {
        "dry_run": 1 if dry_run else None,
        "confirm_within": confirm_within,
        "reason": reason or f"apply {file.name}",
    }
    answer = client.call("PUT", "/config", query=query, body=text.encode(), headers={"If-Match": etag})
    session.print(answer, applied)


def replayed(found: Mapping[str, Any], now: datetime) -> Iterable[RenderableType]:
    """Say what two versions would have refused and raised on the same history."""
    yield f"On {found['requests']:,} requests since {render.moment(found['since_time'], now)}:"
    yield render.table(
        "Refused",
        ("ROUTE", "REQUESTS#", "BEFORE#", "AFTER#", "DIFFERENCE"),
        ((r["route"], r["requests"], r["refused"]["from"], r["refused"]["to"], moved(r)) for r in found["routes"]),
        "No route had traffic.",
    )
    yield render.table(
        "Incidents",
        ("CHANGE", "SCOPE", "BEFORE", "AFTER", "TITLE"),
        (
            (
                i["change"] + (f" by {render.seconds(abs(i['sooner_s']))}" if i["sooner_s"] else ""), i["scope"],
                render.moment(i["from_time"], now), render.moment(i["to_time"], now), i["title"],
            )
            for i in found["incidents"]
        ),
        "Neither version would have raised an incident.",
    )  # fmt: skip


def moved(route: Mapping[str, Any]) -> str:
    """Return by which reasons more or fewer requests are refused, as `rate_limited +465`."""
    before, after = route["reasons"]["from"], route["reasons"]["to"]
    moves = {reason: after.get(reason, 0) - before.get(reason, 0) for reason in sorted({*before, *after})}
    return ", ".join(f"{reason} {move:+,}" for reason, move in moves.items() if move)


def applied(answer: Mapping[str, Any], now: datetime) -> Iterable[RenderableType]:
    """Say what an apply or a rollback changed, and whether it waits for a confirmation."""
    workers = answer.get("workers") or {}
    yield changes(answer.get("changes", []), "")
    if answer.get("dry_run"):
        yield "[green]✓[/] Valid. Nothing was changed (--dry-run)."
    else:
        counted = f"{workers.get('acknowledged')} of {workers.get('total')} workers"
        yield f"[green]✓[/] Version {answer['version']} is {answer['state']} on {counted}."
    if answer.get("confirm_by_time"):
        yield (
            f"[yellow]It reverts by itself {render.moment(answer['confirm_by_time'], now)}[/] unless you type: "
            "[bold]sidecar config confirm[/]"
        )


@app.command(epilog="Example: sidecar config confirm")
@command
def confirm(session: Session) -> None:
    """Keep the version that waits for your confirmation."""
    answer = session.client.call("POST", "/config/confirm", body={})
    session.done(answer, f"Version {answer.body['version']} is confirmed.")


@app.command(epilog="Example: sidecar config history")
@command
def history(session: Session) -> None:
    """List the versions, the newest first."""

    def table(answer: Any, now: datetime) -> RenderableType:
        return render.table(
            "",
            ("VERSION#", "STATE", "SOURCE", "AUTHOR", "TIME", "REASON"),
            (
                (
                    i["version"],
                    render.state(i["state"]),
                    i["source"],
                    i["author"],
                    render.moment(i["time"], now),
                    i["reason"],
                )
                for i in answer["items"]
            ),
            "No versions.",
        )

    session.show(lambda: session.client.get("/config/versions"), table)


@app.command(epilog="Example: sidecar config rollback 3 --reason 'limit was too low'")
@command
def rollback(session: Session, to: Version = None, reason: ReasonOption = "rolled back by hand") -> None:
    """Run an earlier version again (default: the one before); the history keeps both."""
    body: dict[str, Any] = {"reason": reason} | ({"to": to} if to is not None else {})
    session.print(session.client.call("POST", "/config/rollback", body=body), applied)


@app.command(epilog="Example: sidecar config schema > sidecar.schema.json")
@command
def schema(session: Session) -> None:
    """Print the JSON Schema, for editors."""
    from sidecar.config.load import json_schema  # noqa: PLC0415  yaml and pydantic are slow to import

    session.console.file.write(render.as_json(json_schema()))


def changes(rows: Iterable[Mapping[str, Any]], title: str) -> RenderableType:
    """Return a table of changed settings."""
    made = ((row["path"], _value(row.get("old")), _value(row.get("new"))) for row in rows)
    return render.table(title, ("SETTING", "OLD", "NEW"), made, "Nothing changes.")


def _value(value: Any) -> str:
    return "–" if value is None else str(value)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(Exit.USAGE, f"{file} cannot be read: {why(error)}", "name a readable YAML file") from error
