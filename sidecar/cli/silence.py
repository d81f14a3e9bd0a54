"""`sidecar silence`: a maintenance window, in which nobody is paged; protection goes on."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from sidecar.cli import complete, render
from sidecar.cli.override import checked
from sidecar.cli.session import Session, command

app = typer.Typer(
    no_args_is_help=True,
    help="Silences: add, list, end. They keep messages from people, and nothing else.",
    epilog="Example: sidecar silence add --scope route:checkout --ttl 2h --reason 'the database moves'",
)


@app.command(epilog="Example: sidecar silence add --scope service --ttl 30m --reason 'new release, all hands are here'")
@command
def add(
    session: Session,
    scope: Annotated[
        str,
        typer.Option("--scope", help="service, route:NAME or client:ROUTE:KEY.", autocompletion=complete.scopes),
    ],
    ttl: Annotated[str, typer.Option("--ttl", help="How long, such as 30m or 2h.")],
    reason: Annotated[str, typer.Option("--reason", help="Why, for the timeline and the audit.")],
) -> None:
    """Tell nobody about incidents on a scope for a time; what still runs then is told at its end."""
    body = {"scope": checked(scope), "ttl": ttl, "reason": reason}
    answer = session.client.call("POST", "/silences", body=body)
    row = answer.body
    session.done(answer, f"Silence {row['id']}: {row['scope']} until {render.moment(row['end_time'], answer.now)}")


@app.command("list", epilog="Example: sidecar silence list -o json")
@command
def list_(session: Session) -> None:
    """List the silences in force."""

    def table(answer: Any, now: datetime) -> RenderableType:
        rows = (
            (i["id"], i["scope"], i["author"], render.moment(i["end_time"], now), i["reason"]) for i in answer["items"]
        )
        return render.table("", ("ID#", "SCOPE", "AUTHOR", "ENDS", "REASON"), rows, "No silence is in force.")

    session.show(lambda: session.client.get("/silences"), table)


@app.command(epilog="Example: sidecar silence end 3")
@command
def end(
    session: Session,
    number: Annotated[
        int, typer.Argument(metavar="ID", help="The silence's number.", autocompletion=complete.silences)
    ],
) -> None:
    """End a silence now; people are told of what still runs."""
    answer = session.client.call("DELETE", f"/silences/{number}")
    session.done(answer, f"Silence {number} has ended.")
