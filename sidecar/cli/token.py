"""`sidecar token`: who may use the admin API."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from sidecar.cli import complete, render
from sidecar.cli.client import quoted
from sidecar.cli.session import Session, command

app = typer.Typer(
    no_args_is_help=True,
    help="Tokens of the admin API: new, list, revoke.",
    epilog="Examples: sidecar token new grafana --role viewer · sidecar token revoke grafana",
)


@app.command("new", epilog="Example: sidecar token new ada --role operator > ada.token")
@command
def new(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose it is; every change is recorded under it.")],
    role: Annotated[str, typer.Option("--role", help="viewer, operator or admin.")],
) -> None:
    """Issue a token; its secret is printed this once, alone on stdout."""
    answer = session.client.call("POST", "/tokens", body={"name": name, "role": role})
    if session.wants_json:
        session.print(answer, lambda _, __: "")
        return
    typer.echo(answer.body["token"])
    typer.echo(f"Token {name} ({role}); it is not shown again. Use it with SIDECAR_TOKEN or --token-file.", err=True)


@app.command("list", epilog="Example: sidecar token list -o json")
@command
def list_(session: Session) -> None:
    """List the tokens, the revoked ones last."""

    def table(answer: Any, now: datetime) -> RenderableType:
        rows = (
            (i["name"], i["role"], i["source"], i["author"] or "", render.moment(i["issued_time"], now) if i["issued_time"] else "",
             f"{render.moment(i['revoked_time'], now)} by {i['revoked_by']}" if i["revoked_time"] else "")
            for i in answer["items"]
        )  # fmt: skip
        return render.table("", ("NAME", "ROLE", "FROM", "AUTHOR", "ISSUED", "REVOKED"), rows, "No tokens.")

    session.show(lambda: session.client.get("/tokens"), table)


@app.command("revoke", epilog="Example: sidecar token revoke grafana")
@command
def revoke(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The token's name.", autocompletion=complete.tokens)],
) -> None:
    """Refuse a token from now on, one of the file too; a new one may take its name."""
    answer = session.client.call("DELETE", f"/tokens/{quoted(name)}")
    left = " Remove it from admin.tokens in the file, too." if answer.body["source"] == "file" else ""
    session.done(answer, f"Token {name} is refused from now on.{left}")
