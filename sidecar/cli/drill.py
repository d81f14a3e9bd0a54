"""`sidecar drill`: break something on purpose, and see whether every stage of the loop does its part in time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, Final

import typer
from rich.console import RenderableType
from rich.markup import escape

from sidecar.cli import complete, render
from sidecar.cli.client import Answer, Exit, Failure
from sidecar.cli.session import Session, command

LOOK_S: Final = 1.0
LEAST_SHARE: Final = 0.01
_OPTIONS: Final = {"duration": "--for", "route": "--route"}
RUNNING: Final = ("injecting", "recovering")

app = typer.Typer(
    no_args_is_help=True,
    help="Drills: errors, latency, hang, surge, bad-config; stop, list. Exit 0 only if every stage met its target.",
    epilog="Examples: sidecar drill errors --route checkout --for 60s · sidecar drill stop",
)

RouteOption = Annotated[str, typer.Option("--route", help="Where.", autocompletion=complete.routes)]
ForOption = Annotated[str, typer.Option("--for", help="How long the fault lasts, 10s to 10m.")]
ShareOption = Annotated[str, typer.Option("--share", help="The part of its requests that meets it, as 10% or 0.1.")]


def _kind(name: str, what: str) -> Callable[..., None]:
    def run(session: Session, route: RouteOption, duration: ForOption = "60s", share: ShareOption = "100%") -> None:
        body = {"kind": name, "route": route, "duration": duration, "share": _ratio(share)}
        try:
            answer = session.client.call("POST", "/drills", body=body)
        except Failure as failure:  # the API knows its fields, a person the options
            field, _, rest = failure.problem.partition(": ")
            option = _OPTIONS.get(field)
            raise Failure(failure.code, f"{option} {rest}" if option else failure.problem, failure.hint) from failure
        _follow(session, answer)

    run.__doc__ = what
    return run


for _name, _what in (
    ("errors", "Requests that passed the guards get a 503."),
    ("latency", "They wait two seconds before they go on to the API."),
    ("hang", "They get no answer until the response timeout."),
    ("surge", "Detection is shown six times the arrivals; no request is touched."),
    ("bad-config", "Detection is shown a version whose limit refuses most; no request is touched."),
):
    app.command(_name, epilog=f"Example: sidecar drill {_name} --route checkout --for 60s")(
        command(_kind(_name, _what))
    )


def _ratio(text: str) -> float:
    """
    Return a share, written as `10%` or `0.1`.

    Raises:
        Failure: when it is none, or not from 1 % to 100 %.
    """
    try:
        ratio = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        ratio = 0.0
    if not LEAST_SHARE <= ratio <= 1:
        raise Failure(Exit.USAGE, f"--share {text!r} is not a part of the requests", "write 1% to 100%, or 0.01 to 1")
    return ratio


def _tell(told: set[str], answer: Answer) -> None:
    """Say on stderr what has happened since the last look; stdout is for the grade."""
    item = answer.body
    lines = {
        "begun": f"drill {item['id']}: {item['kind']} on {item['route']}; the fault ends {_ends(answer)}; Ctrl-C ends it now"
    }
    lines |= {
        row["stage"]: f"{row['stage']} after {render.seconds(row['took_s'])}"
        for row in item["stages"]
        if row["took_s"] is not None
    }
    if item["state"] != "injecting":
        why = f" ({item['why']})" if item["why"] else ""
        lines["faded"] = f"the fault has ended{why}; what was isolated is given back on evidence"
    for name, line in lines.items():
        if name not in told:
            told.add(name)
            typer.echo(line, err=True)


def _ends(answer: Answer) -> str:
    return f"at {render.moment(answer.body['end_time'], answer.now)}"


def _follow(session: Session, answer: Answer) -> None:
    """Wait until the drill is graded, saying how far it is; Ctrl-C stops it."""
    client, number = session.client, answer.body["id"]
    told: set[str] = set()
    try:
        _tell(told, answer)
        while answer.body["state"] in RUNNING:
            time.sleep(LOOK_S)  # the pace of a person's eyes, not a synchronisation
            rows = client.get("/drills")
            answer = Answer(_one(rows.body["items"], number), rows.now)
            _tell(told, answer)
    except KeyboardInterrupt:
        with contextlib.suppress(KeyboardInterrupt):
            answer = client.call("POST", "/drills/stop", body={})
            typer.echo("what was isolated is given back on evidence; then `sidecar drill list` has the grade", err=True)
    session.print(answer, graded)
    if answer.body["state"] != "passed":
        raise typer.Exit(Exit.REFUSED)


def _one(items: Iterable[Mapping[str, Any]], number: int) -> Mapping[str, Any]:
    for row in items:
        if row["id"] == number:
            return row
    raise Failure(
        Exit.REFUSED,
        f"drill {number} was forgotten: the controller has started anew",
        "its fault has ended; drill again when `sidecar status` shows no incident",
    )


def graded(item: Mapping[str, Any], _: datetime) -> Iterable[RenderableType]:
    """Return the stages of one drill, with their targets."""
    yield f"[bold]Drill {item['id']}: {item['kind']} on {escape(item['route'])}, {item['state']}[/]"
    yield render.table(
        "",
        ("STAGE", "TARGET#", "TOOK#", "MET"),
        (
            (row["stage"], render.seconds(row["target_s"]), render.seconds(row["took_s"]), row["met"])
            for row in item["stages"]
        ),
        "No stage.",
    )
    if item["why"]:
        yield escape(item["why"])


@app.command(epilog="Example: sidecar drill stop")
@command
def stop(session: Session) -> None:
    """End the fault of the drill that runs, now; the loop still has to give everything back."""
    answer = session.client.call("POST", "/drills/stop", body={})
    session.done(answer, f"The fault of drill {answer.body['id']} has ended.")


@app.command("list", epilog="Example: sidecar drill list")
@command
def list_(session: Session) -> None:
    """List the drills since the controller started, the newest first."""

    def table(answer: Any, now: datetime) -> RenderableType:
        rows = (
            (i["id"], i["kind"], i["route"], render.state(i["state"]), render.moment(i["start_time"], now), i["incident"],
             f"{sum(s['met'] for s in i['stages'])} of {len(i['stages'])}")
            for i in answer["items"]
        )  # fmt: skip
        return render.table("", ("ID#", "KIND", "ROUTE", "STATE", "STARTED", "INCIDENT#", "MET"), rows, "No drills.")

    session.show(lambda: session.client.get("/drills"), table)
