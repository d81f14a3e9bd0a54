"""`sidecar audit` and `sidecar explain`: who changed what, whether the record is whole, and why a request was refused."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.markup import escape

from sidecar.cli import render
from sidecar.cli.client import Exit, quoted
from sidecar.cli.session import Session, command

app = typer.Typer(
    no_args_is_help=True,
    help="The record of every change: list, verify.",
    epilog="Examples: sidecar audit list · sidecar audit verify",
)


@app.command("list", epilog="Example: sidecar audit list --limit 20 -o json")
@command
def list_(
    session: Session,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many rows.")] = 50,
) -> None:
    """List the changes, the newest first, each with the name of its token."""

    def table(answer: Any, now: datetime) -> RenderableType:
        return render.table(
            "",
            ("#", "TIME", "WHO", "WHAT", "INCIDENT#", "DETAIL"),
            (
                (
                    i.get("sequence"), render.moment(i.get("time"), now), i.get("author"), i.get("kind"),
                    i.get("incident"), _detail({"scope": i.get("scope"), **(i.get("body") or {})}),
                )
                for i in answer["items"]
            ),
            "Nothing was changed yet.",
        )  # fmt: skip

    session.show(lambda: session.client.get("/audit", limit=limit), table)


def _detail(body: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in body.items() if value not in (None, "", [], {}))


@app.command(epilog="Example: sidecar audit verify && echo intact")
@command
def verify(session: Session) -> None:
    """Check the hash chain of all events; exit 1 when a row was edited, moved or removed."""
    answer = session.client.get("/audit/verify")
    session.print(answer, verdict)
    if not answer.body["ok"]:
        raise typer.Exit(Exit.REFUSED)


def verdict(answer: Any, _: datetime) -> RenderableType:
    """Say whether the chain is whole."""
    if answer["ok"]:
        return f"[green]✓[/] {answer['rows']} events, the chain is whole."
    return f"[red]✗[/] The chain breaks at event {answer.get('first_bad')}: {escape(str(answer.get('problem')))}"


@command
def explain(
    session: Session,
    decision: Annotated[str, typer.Argument(metavar="DECISION", help="The `decision` of a refused answer.")],
) -> None:
    """Say why a request was refused: the rule, its values, the incident."""
    session.show(lambda: session.client.get(f"/decisions/{quoted(decision)}"), explanation)


def explanation(answer: Any, now: datetime) -> RenderableType:
    """Return one decision, a line a field."""
    return render.fields(
        (name.replace("_", " "), render.moment(value, now) if name.endswith("time") else value)
        for name, value in answer.items()
    )
