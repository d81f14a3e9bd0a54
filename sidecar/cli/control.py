"""`sidecar control`, `sidecar breaker` and `sidecar notify`: what guards and watches, and the ways to try it by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.markup import escape

from sidecar.cli import complete, render
from sidecar.cli.client import Answer, Exit, Failure, quoted
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
    """List every control: off, observe, enforce, or cannot run and why. CONFIRMED: of the verdicts on a detector's alarms, how many said that it was right."""

    def table(answer: Any, _: datetime) -> RenderableType:
        rows = (
            (i["route"], i.get("id") or i["name"], render.state(i["state"]), verdicts(i), i.get("why") or "")
            for i in answer["items"]
        )
        return render.table("", ("ROUTE", "CONTROL", "STATE", "CONFIRMED", "WHY"), rows, "No controls.")

    session.show(lambda: session.client.get("/controls"), table)


def verdicts(item: Mapping[str, Any]) -> str:
    """Return how many verdicts confirm a detector, as `3 of 4`."""
    record = item.get("record") or {}
    told = record.get("confirmed", 0) + record.get("false_positive", 0)
    return f"{record['confirmed']} of {told}" if told else ""


Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="As detect.errors:ROUTE; without a route, on all.", autocompletion=complete.controls
    ),
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why, for the audit.")]


def _teach(session: Session, name: str, verb: str, reason: str, sentence: str) -> None:
    answer = session.client.call("POST", f"/controls/{quoted(name)}/{verb}", body={"reason": reason} if reason else {})
    session.print(
        answer,
        lambda body, _: [f"[green]✓[/] {escape(row['control'])} {sentence}{record(row)}" for row in body["items"]],
    )


def record(row: Mapping[str, Any]) -> str:
    """Return what verdicts say of a detector, in one line."""
    seen = row["record"]
    told = seen["confirmed"] + seen["false_positive"]
    words = f"{seen['confirmed']} of {told} verdicts confirm it" if told else "nobody has judged it yet"
    watched = f"; {shadow(row['shadow'])}" if row.get("shadow") else ""
    return f"; {words}, threshold {row['offset']:+.1f}{watched}"


def _observing(seen: Mapping[str, Any], now: datetime) -> str:
    since = render.moment(seen["since_time"], now)
    return f"since {since}; {shadow(seen)}, {render.seconds(seen['seconds'])} of alarms"


def shadow(seen: Mapping[str, Any]) -> str:
    """Return what a detector that only observed would have raised."""
    alarms, told = seen["would_have_raised"], seen.get("confirmed", 0) + seen.get("false_positive", 0)
    judged = f", {seen['confirmed']} of {told} judged confirmed" if told else ""
    return f"it would have raised {alarms or 'nothing'} while it observed{judged}"


@app.command(epilog="Example: sidecar control show detect.errors:checkout")
@command
def show(session: Session, name: Name) -> None:
    """Show a detector's scorecard: precision, delay, pages, seconds of false refusal, its last ten verdicts."""

    def fetch() -> Answer:
        answer = session.client.get("/controls")
        wanted = [row for row in answer.body["items"] if name in (row.get("id"), row["name"])]
        if not wanted:
            raise Failure(Exit.REFUSED, f"there is no control '{name}'", "`sidecar control list` shows the controls")
        return replace(answer, body={"items": wanted})

    session.show(fetch, lambda body, now: (line for row in body["items"] for line in _scorecard(row, now)))


def _scorecard(row: Mapping[str, Any], now: datetime) -> Iterable[RenderableType]:
    seen = row.get("record") or {}
    observing, delay_s = seen.get("demoted"), seen.get("delay_s")
    yield f"[bold]{escape(row.get('id') or row['name'])}[/]"
    yield render.fields(
        (
            ("state", render.state(row["state"])),
            ("why", row.get("why")),
            ("precision", verdicts(row) and f"{render.share(seen['precision'])}, {verdicts(row)} confirmed"),
            ("found after", f"{render.seconds(delay_s)}, median of confirmed ones" if delay_s is not None else None),
            ("pages", str(seen["pages"]) if seen else None),
            ("refused falsely", f"for {render.seconds(seen['falsely_refused_s'])}" if seen else None),
            ("threshold", f"{row['offset']:+.1f}" if seen else None),
            ("observing", observing and _observing(observing, now)),
        )
    )
    if seen.get("last"):
        yield render.table(
            "Last verdicts",
            ("INCIDENT#", "VERDICT", "TIME"),
            (
                (each["incident"], render.state(each["verdict"]), render.moment(each["time"], now))
                for each in seen["last"]
            ),
            "",
        )


@app.command(epilog="Example: sidecar control promote detect.errors:checkout --reason 'the noisy client is gone'")
@command
def promote(session: Session, name: Name, reason: ReasonOption = "") -> None:
    """Listen to a demoted detector again; verdicts of before do not demote it a second time."""
    _teach(session, name, "promote", reason, "is listened to again")


@app.command(epilog="Example: sidecar control demote detect.surge:search --reason 'a sale, all week'")
@command
def demote(session: Session, name: Name, reason: ReasonOption = "") -> None:
    """Let a detector only observe: what it hears is counted, and neither raises nor isolates."""
    _teach(session, name, "demote", reason, "only observes")


@app.command(epilog="Example: sidecar control missed detect.errors:checkout --reason 'the outage of 03:12'")
@command
def missed(session: Session, name: Name, reason: ReasonOption = "") -> None:
    """Say that a detector missed something: it becomes more sensitive, and nothing is silent any more for being small."""
    _teach(session, name, "missed", reason, "will be more sensitive")


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
