"""`sidecar proposal`: what incidents taught, with its measured effect, for you to apply or to dismiss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.markup import escape

from sidecar.cli import complete, config, given, render
from sidecar.cli.session import Session, command

app = typer.Typer(
    no_args_is_help=True,
    help="Proposals: list, show, apply, dismiss what incidents taught.",
    epilog="Examples: sidecar proposal list --state open · sidecar proposal apply 3 --confirm-within 5m",
)

Number = Annotated[int, typer.Argument(metavar="ID", help="The proposal's number.", autocompletion=complete.proposals)]


@app.command("list", epilog="Example: sidecar proposal list --state open")
@command
def list_(
    session: Session,
    state: Annotated[str | None, typer.Option("--state", help="open, applied, dismissed or superseded.")] = None,
) -> None:
    """List the proposals, the newest first."""

    def table(answer: Any, _: datetime) -> RenderableType:
        return render.table(
            "",
            ("ID#", "STATE", "INCIDENT#", "KIND", "EFFECT", "WHY"),
            (
                (i["id"], render.state(i["state"]), i["incident"], i["kind"], i["effect"]["words"], i["why"])
                for i in answer["items"]
            ),
            "No proposals." if state is None else f"No proposal is {state}.",
        )

    session.show(lambda: session.client.get("/proposals", state=state), table)


@app.command(epilog="Example: sidecar proposal show 3")
@command
def show(session: Session, number: Number) -> None:
    """Show one proposal: what it changes and what that would have done."""
    session.show(lambda: session.client.get(f"/proposals/{number}"), proposal)


def proposal(item: Mapping[str, Any], now: datetime) -> Iterable[RenderableType]:
    """Return one proposal as an operator reads it."""
    rule = item.get("rule")
    yield f"[bold]Proposal {item['id']}: {escape(item['why'])}[/]"
    yield render.fields(
        (
            ("state", render.state(item["state"])),
            ("incident", item["incident"]),
            ("made", render.moment(item["made_time"], now)),
            ("effect", item["effect"]["words"]),
            ("rule", rule and f"{rule['path']} {rule['words']}"),
            ("decided by", item.get("decided_by")),
            ("version", item.get("version")),
            ("reason", item.get("reason")),
        )
    )
    if item["changes"]:
        yield config.changes(item["changes"], "")
    if item["state"] == "open":
        yield "What to type"
        yield f"    [bold]sidecar proposal apply {item['id']}[/]"
        yield f"    [bold]sidecar proposal dismiss {item['id']}[/]"


@app.command(epilog="Example: sidecar proposal apply 3 --confirm-within 5m")
@command
def apply(
    session: Session,
    number: Number,
    confirm_within: Annotated[
        str | None,
        typer.Option("--confirm-within", help="Revert by itself unless confirmed in this time; 2m if absent."),
    ] = None,
) -> None:
    """Make a config version of it; it reverts by itself unless you confirm it."""
    if confirm_within is not None:
        given.seconds("--confirm-within", confirm_within)
    body = {"confirm_within": confirm_within} if confirm_within else {}
    answer = session.client.call("POST", f"/proposals/{number}/apply", body=body)
    session.print(answer, _applied)


def _applied(item: Mapping[str, Any], now: datetime) -> Iterable[RenderableType]:
    if item.get("applied"):
        yield from config.applied(item["applied"], now)
    else:
        yield f"[green]✓[/] The rule of proposal {item['id']} is in force."


@app.command(epilog="Example: sidecar proposal dismiss 3 --reason 'the load test is over'")
@command
def dismiss(
    session: Session,
    number: Number,
    reason: Annotated[str, typer.Option("--reason", help="Why not, for the audit.")] = "",
) -> None:
    """Say no to it; lifts its rule when it has one in force."""
    answer = session.client.call("POST", f"/proposals/{number}/dismiss", body={"reason": reason} if reason else {})
    session.done(answer, f"Proposal {number} is dismissed.")
