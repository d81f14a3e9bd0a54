"""`sidecar override`: a person's decision about a scope, for a time, with a reason."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from sidecar.cli import complete, render
from sidecar.cli.client import Exit, Failure, quoted
from sidecar.cli.session import Session, command
from sidecar.facts import Scope, ScopeError

app = typer.Typer(
    no_args_is_help=True,
    help="Overrides: list, set, clear.",
    epilog="Examples: sidecar override set route:checkout throttle=20/s --ttl 10m --reason 'protect the database' · "
    "sidecar override set client:checkout:203.0.113.7 isolate --ttl 1h --reason abuse · sidecar override clear service",
)

ScopeArgument = Annotated[
    str,
    typer.Argument(metavar="SCOPE", help="service, route:NAME or client:ROUTE:KEY.", autocompletion=complete.scopes),
]


@app.command("list", epilog="Example: sidecar override list -o json")
@command
def list_(session: Session) -> None:
    """List the overrides in force."""

    def table(answer: Any, now: datetime) -> RenderableType:
        return render.table(
            "",
            ("SCOPE", "ACTION", "AUTHOR", "ENDS", "STORED", "REASON"),
            (
                (i["scope"], i["action"], i["author"], render.moment(i["end_time"], now), i["durable"], i["reason"])
                for i in answer["items"]
            ),
            "No override is in force.",
        )

    session.show(lambda: session.client.get("/overrides"), table)


@app.command("set", epilog="Example: sidecar override set route:search isolate --ttl 10m --reason 'index is rebuilt'")
@command
def set_(
    session: Session,
    scope: ScopeArgument,
    action: Annotated[
        str,
        typer.Argument(
            metavar="ACTION",
            help="isolate, throttle=RATE, throttle=SHARE, allow or observe.",
            autocompletion=complete.actions,
        ),
    ],
    ttl: Annotated[str, typer.Option("--ttl", help="How long, such as 10m or 2h.")],
    reason: Annotated[str, typer.Option("--reason", help="Why, for the timeline and the audit.")],
    header_value: Annotated[
        str | None,
        typer.Option("--header-value", help="The client's secret header value; it is hashed, never stored."),
    ] = None,
) -> None:
    """Set an override on a scope; it replaces an older one there, and ends by itself."""
    body = {"action": action, "ttl": ttl, "reason": reason}
    if header_value is not None:
        body["header_value"] = header_value
        scope = scope if scope.count(":") > 1 else f"{scope}:-"
    answer = session.client.call("PUT", f"/overrides/{quoted(checked(scope))}", body=body)
    row = answer.body
    session.done(answer, f"{row['scope']}: {row['action']} until {render.moment(row['end_time'], answer.now)}")


@app.command(epilog="Example: sidecar override clear route:search")
@command
def clear(session: Session, scope: ScopeArgument) -> None:
    """End the override on a scope now."""
    answer = session.client.call("DELETE", f"/overrides/{quoted(checked(scope))}")
    session.done(answer, f"The override on {scope} has ended.")


def checked(scope: str) -> str:
    """
    Return a scope's text as it is sent.

    Raises:
        Failure: when it is none.
    """
    try:
        return str(Scope.parse(scope))
    except ScopeError as error:
        raise Failure(Exit.USAGE, str(error), "`sidecar override list` shows what is set") from error
