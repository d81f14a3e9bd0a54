"""`sidecar control`, `sidecar breaker` and `sidecar notify`: what guards and watches, and the ways to try it by hand."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.markup import escape

from sidecar.cli import complete, render
from sidecar.cli.client import Exit, quoted
from sidecar.cli.session import Session, command

app = typer.Typer(
    no_args_is_help=True,
    help="Controls: what guards and watches each route, and whether it can.",
    epilog="Example: sidecar control list",
)
notify = typer.Typer(
    no_args_is_help=True,
    help="Receivers of alerts: send a test message.",
    epilog="Example: sidecar notify test pager",
)
breaker = typer.Typer(
    no_args_is_help=True,
    help="Circuit breakers: reset one by hand.",
    epilog="Example: sidecar breaker reset checkout",
)


@app.command("list", epilog="Example: sidecar control list -o json | jq '.items[] | select(.state == \"cannot run\")'")
@command
def list_(session: Session) -> None:
    """List every control: off, observe, enforce, or cannot run and why."""

    def table(answer: Any, _: datetime) -> RenderableType:
        rows = ((i["route"], i["name"], render.state(i["state"]), i.get("why") or "") for i in answer["items"])
        return render.table("", ("ROUTE", "CONTROL", "STATE", "WHY"), rows, "No controls.")

    session.show(lambda: session.client.get("/controls"), table)


@notify.command("test", epilog="Example: sidecar notify test pager")
@command
def test(
    session: Session,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The receiver's name.", autocompletion=complete.receivers)
    ],
) -> None:
    """Send a test message to a receiver; exit 1 when it does not arrive."""
    answer = session.client.call("POST", f"/notify/{quoted(name)}/test", body={})
    session.print(answer, delivery)
    if not answer.body["ok"]:
        raise typer.Exit(Exit.REFUSED)


def delivery(answer: Any, _: datetime) -> RenderableType:
    """Say whether a test message arrived."""
    name, tries = escape(answer["name"]), answer["attempts"]
    if answer["ok"]:
        return f"[green]✓[/] {name} took the test message ({tries} attempt{'s' * (tries != 1)})."
    return f"[red]✗[/] {name} did not take it: {escape(answer['problem'])}\n  → correct its url or secret_file under notify:"


@breaker.command("reset", epilog="Example: sidecar breaker reset checkout")
@command
def reset(
    session: Session,
    route: Annotated[str, typer.Argument(metavar="ROUTE", help="The route's name.", autocompletion=complete.routes)],
) -> None:
    """Close a route's breaker now, in every worker."""
    answer = session.client.call("POST", f"/breakers/{quoted(route)}/reset", body={})
    session.done(answer, f"The breaker of {route} is closed.")
