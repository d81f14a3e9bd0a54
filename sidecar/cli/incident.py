"""`sidecar incident`: see what happened and what was done, and say what you make of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.markup import escape
from rich.text import Text

from sidecar.cli import complete, render
from sidecar.cli.client import Answer
from sidecar.cli.session import Session, command

app = typer.Typer(
    no_args_is_help=True,
    help="Incidents: list, show, acknowledge, confirm, release, note, close, post-mortem.",
    epilog="Examples: sidecar incident list · sidecar incident confirm 12 · "
    "sidecar incident release 12 --verdict false_positive --reason 'load test'",
)

Number = Annotated[int, typer.Argument(metavar="ID", help="The incident's number.", autocompletion=complete.incidents)]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why, for the timeline and the audit.")]


class Verdict(StrEnum):
    """What a person found."""

    FALSE_POSITIVE = "false_positive"
    BENIGN = "benign"
    NONE = "none"


@app.command("list", epilog="Example: sidecar incident list --state open")
@command
def list_(
    session: Session,
    state: Annotated[
        str | None, typer.Option("--state", help="open, acknowledged, mitigated, resolved or closed.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many rows.")] = 50,
) -> None:
    """List incidents, the newest first."""

    def table(answer: Any, now: datetime) -> RenderableType:
        return render.table(
            "",
            ("ID#", "STATE", "SEVERITY", "SCOPE", "VERDICT", "OPENED", "TITLE"),
            (
                (
                    item["id"], render.state(item["state"]), _severity(item), item["scope"],
                    render.state(item["verdict"]), render.moment(item["opened_time"], now), item["title"],
                )
                for item in answer["items"]
            ),
            "No incidents." if state is None else f"No incident is {state}.",
        )  # fmt: skip

    session.show(lambda: session.client.get("/incidents", state=state, limit=limit), table)


@app.command(epilog="Example: sidecar incident show 12")
@command
def show(session: Session, number: Number) -> None:
    """Show one incident: what happened, since when, how bad, what was done, what to type."""
    session.show(lambda: _with_proposals(session, session.client.get(f"/incidents/{number}")), incident)


def _with_proposals(session: Session, answer: Answer) -> Answer:
    if session.wants_json or not answer.body.get("resolved_time"):
        return answer  # it is studied when it has ended
    made = session.client.get("/proposals", state="open").body["items"]
    mine = [row for row in made if row["incident"] == answer.body["id"]]
    return replace(answer, body={**answer.body, "proposals": mine})


def incident(item: Mapping[str, Any], now: datetime) -> Iterable[RenderableType]:
    """Return one incident as an operator reads it: the verdict of ten seconds first, the evidence behind."""
    step = item.get("next_step")
    yield f"[bold]Incident {item['id']}: {escape(item['title'])}[/]"
    yield render.fields(
        (
            ("state", render.state(item["state"])),
            ("severity", _severity(item)),
            ("scope", item["scope"]),
            ("opened", render.moment(item["opened_time"], now)),
            ("acknowledged", item.get("acknowledged_time") and render.moment(item["acknowledged_time"], now)),
            ("resolved", item.get("resolved_time") and render.moment(item["resolved_time"], now)),
            ("verdict", render.state(item["verdict"])),
            ("resolution", item.get("resolution")),
            ("flapped", f"{item['flaps']}×" if item.get("flaps") else None),
            ("if unanswered", step and f"{step['do']} {render.moment(step['at_time'], now)}"),
            ("silenced", item.get("silenced") and silenced(item["silenced"], now)),
            ("runbook", item.get("runbook")),
        )
    )
    yield ""
    yield render.table(
        "What was measured",
        ("DETECTOR", "SCOPE", "VALUE", "SCORE#", "THRESHOLD#", "SINCE"),
        (
            (
                s["detector"],
                s["scope"],
                render.measured(s),
                s["score"],
                s["threshold"],
                render.moment(s["since_time"], now),
            )
            for s in item.get("signals", [])
        ),
        "No signal.",
    )
    yield render.table(
        "What was done",
        ("ID", "SCOPE", "ACTION", "PASSES#", "STATE", "OWNER", "UNTIL"),
        (
            (i["id"], i["scope"], i["action"], render.share(i["share"]), render.state(i["state"]), i["owner"],
             render.moment(i["end_time"], now) + ("" if i.get("durable", True) else " (not stored yet)"))
            for i in item.get("isolations", [])
        ),
        "Nothing was isolated.",
    )  # fmt: skip
    suspect = item.get("suspect")
    if suspect:
        yield f"[yellow]First suspect: config version {suspect['version']}[/]"
        yield from (escape(f"    {line}") for line in diff_lines(suspect["diff"]))
    if item.get("checklist"):
        yield f"Runbook: sidecar incident tick {item['id']} STEP"
        yield from (f"    {_step(row, now)}" for row in item["checklist"])
    if item.get("commands"):
        yield "What to type"
        yield from (f"    [bold]{escape(line)}[/]" for line in item["commands"])
    for row in item.get("proposals", ()):
        yield f"    [bold]sidecar proposal show {row['id']}[/]    {escape(row['why'])}"


def _severity(item: Mapping[str, Any]) -> Text:
    return render.state("observe" if item.get("observed") else item["severity"])


def _step(row: Mapping[str, Any], now: datetime) -> str:
    if not row["done_by"]:
        return f"{row['step']}. \\[ ] {escape(row['text'])}"
    done = f"{row['done_by']}, {render.moment(row['done_time'], now)}"
    return f"{row['step']}. \\[x] {escape(row['text'])} [dim]({escape(done)})[/]"


def silenced(row: Mapping[str, Any], now: datetime) -> str:
    """Say who keeps it from people, until when and why."""
    return f"by {row['author']} until {render.moment(row['end_time'], now)}: {row['reason']}"


def diff_lines(diff: Any) -> list[str]:
    """Return the changed settings of a suspected version, a line each."""
    if isinstance(diff, str):
        return diff.splitlines()
    return [f"{row['path']}: {row.get('old')} → {row.get('new')}" for row in diff]


def _post(session: Session, number: int, verb: str, body: Mapping[str, Any], sentence: str) -> None:
    answer = session.client.call("POST", f"/incidents/{number}/{verb}", body=body)
    session.done(answer, f"Incident {number} {sentence}.")


@app.command(epilog="Example: sidecar incident ack 12")
@command
def ack(session: Session, number: Number) -> None:
    """Say that you look at it; quiet for 15 minutes, the acknowledgement is withdrawn."""
    _post(session, number, "acknowledge", {}, "is yours")


@app.command(epilog="Example: sidecar incident confirm 12")
@command
def confirm(session: Session, number: Number) -> None:
    """Confirm it: the isolation is kept (or applied when it was only proposed) until evidence of recovery."""
    _post(session, number, "confirm", {}, "is confirmed")


@app.command(epilog="Example: sidecar incident release 12 --verdict false_positive --reason 'a planned load test'")
@command
def release(
    session: Session,
    number: Number,
    verdict: Annotated[
        Verdict, typer.Option("--verdict", help="false_positive is not raised again; benign becomes the new normal.")
    ],
    reason: ReasonOption = "",
) -> None:
    """End its isolations now."""
    _post(
        session,
        number,
        "release",
        {"verdict": verdict.value} | ({"reason": reason} if reason else {}),
        f"is released as {verdict.value}",
    )


@app.command(epilog="Example: sidecar incident note 12 'the database was failed over at 03:12'")
@command
def note(session: Session, number: Number, text: Annotated[str, typer.Argument(help="For the timeline.")]) -> None:
    """Add a note to its timeline."""
    _post(session, number, "notes", {"text": text}, "has your note")


@app.command(epilog="Examples: sidecar incident tick 12 1 · sidecar incident tick 12 1 --undo")
@command
def tick(
    session: Session,
    number: Number,
    step: Annotated[int, typer.Argument(metavar="STEP", min=1, help="The step of the runbook, as `show` counts it.")],
    undo: Annotated[bool, typer.Option("--undo", help="Take it back.")] = False,  # noqa: FBT002
) -> None:
    """Tick a step of its runbook; the timeline says when, and who."""
    words = f"step {step} is open again" if undo else f"step {step} is done"
    _post(session, number, "checklist", {"step": step, "done": not undo}, f"has your tick: {words}")


@app.command(epilog="Example: sidecar incident close 12")
@command
def close(session: Session, number: Number) -> None:
    """Close it, once it is resolved."""
    _post(session, number, "close", {}, "is closed")


@app.command(
    epilog="Examples: sidecar incident postmortem 12 > postmortem.md · sidecar incident postmortem 12 --html > postmortem.html"
)
@command
def postmortem(
    session: Session,
    number: Number,
    html: Annotated[bool, typer.Option("--html", help="One page with plots, without scripts.")] = False,  # noqa: FBT002
) -> None:
    """Print the post-mortem draft, in Markdown or as a page with plots."""
    text = session.client.get(f"/incidents/{number}/postmortem{'.html' if html else ''}").body
    name = "html" if html else "markdown"
    session.console.file.write(render.as_json({name: text}) if session.wants_json else text)
