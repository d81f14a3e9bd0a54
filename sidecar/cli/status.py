"""
`sidecar status`, `top` and `events`: what goes on.

`status` is read at 3 a.m.: its first line says whether anything is wrong, then each open incident says in this order
what happened, what was done, what is suspected, what happens by itself, and what to type.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any, Final

import typer
from rich.console import RenderableType
from rich.markup import escape
from rich.text import Text

from sidecar.cli import render
from sidecar.cli.client import Exit, Failure
from sidecar.cli.incident import diff_lines, silenced
from sidecar.cli.session import Session

RECONNECT_S: Final = 1.0
AMPLIFIED: Final = 1.05  # below it, retries are no news


def status(session: Session) -> None:
    """Show in one screen what happened, what was done about it, and what to type next."""
    session.show(lambda: session.client.get("/status"), overview)


def overview(answer: Mapping[str, Any], now: datetime) -> Iterable[RenderableType]:
    """Return the whole of `sidecar status`."""
    troubles = list(_troubles(answer, now))
    yield _headline(answer, troubles)
    yield _vitals(answer)
    for incident in answer.get("incidents", []):
        yield ""
        yield from _incident(incident, now)
    if answer.get("breakers_open"):
        yield ""
        yield "[yellow]Breakers open[/]"
        yield from (f"  [bold]{escape(r)}[/] → sidecar breaker reset {escape(r)}" for r in answer["breakers_open"])
    if answer.get("silences"):
        yield ""
        yield "[yellow]Silenced: nobody is paged about[/]"
        yield from (_silence(row, now) for row in answer["silences"])
    if answer.get("drill"):
        yield ""
        yield _drill(answer["drill"], now)
    if answer.get("overrides"):
        yield ""
        yield "[yellow]Overrides in force[/]"
        yield from (_override(row, now) for row in answer["overrides"])
    if count := answer.get("would_have"):
        yield ""
        yield f"{count} would-have incident{'s' * (count > 1)} of detectors that only observe → sidecar incident list"
    if answer.get("demoted"):
        yield ""
        yield "[yellow]Detectors that only observe, for they were wrong too often or by a person's word[/]"
        yield from (_demoted(row) for row in answer["demoted"])
    if count := answer.get("proposals_open"):
        yield ""
        yield f"{count} proposal{'s' * (count > 1)} of what incidents taught → sidecar proposal list --state open"
    if troubles:
        yield ""
        yield "[yellow]The sidecar itself[/]"
        yield from (f"  {line}" for line in troubles)


def _headline(answer: Mapping[str, Any], troubles: list[str]) -> str:
    incidents = answer.get("incidents", [])
    if incidents:
        worst = next((i for i in incidents if i["severity"] == "severe"), incidents[0])
        count = f"{len(incidents)} incident{'s' * (len(incidents) != 1)}"
        return f"[bold red]✗ {count}:[/] [bold]{escape(worst['title'])}[/]"
    if troubles:
        return "[bold yellow]! No incident, but the sidecar itself needs you[/]"
    if answer.get("breakers_open"):
        return f"[bold yellow]! No incident, but the breaker is open on {escape(', '.join(answer['breakers_open']))}[/]"
    return "[bold green]✓ All is well: no incident[/]"


def _vitals(answer: Mapping[str, Any]) -> Text:
    traffic, config = answer["traffic"], answer["config"]
    workers = answer.get("workers", [])
    up = sum(1 for worker in workers if worker.get("up"))
    words = (
        f"sidecar {answer['version']}",
        f"mode {answer['mode']}",
        f"up {render.seconds(answer['uptime_s'])}",
        f"config v{config['version']}",
        f"{up}/{len(workers)} workers",
        f"{render.figure(traffic['requests_per_s'])} requests/s",
        f"{render.share(traffic.get('failure_ratio'))} fail",
        f"{render.share(traffic.get('refused_ratio'))} refused",
        f"p99 {render.seconds(traffic.get('latency_p99_s'))}",
    )
    return Text(" · ".join(words), style="dim")


def _incident(item: Mapping[str, Any], now: datetime) -> Iterable[RenderableType]:
    yield f"[bold]Incident {item['id']}[/] {escape(item['scope'])}: {escape(item['title'])}"
    step, suspect = item.get("next_step"), item.get("suspect")
    signals = [f"{s['detector']} {render.measured(s)}" for s in item.get("signals", [])]
    state = f"{item['severity']}, {item['state']}, verdict {item['verdict']}"
    if item.get("flaps"):
        state += f", flapped {item['flaps']}×"
    yield render.fields(
        (
            ("  state", state),
            ("  since", render.moment(item["opened_time"], now)),
            ("  measured", "\n".join(signals)),
            ("  done", "\n".join(_done(i, now) for i in item.get("isolations", [])) or "nothing automatic"),
            ("  suspect", suspect and _suspect(suspect)),
            ("  silenced", item.get("silenced") and silenced(item["silenced"], now)),
            ("  unanswered", step and f"{step['do']} {render.moment(step['at_time'], now)}"),
            ("  runbook", item.get("runbook")),
            ("  type", Text("\n".join(item.get("commands", [])), style="bold")),
        )
    )


def _done(isolation: Mapping[str, Any], now: datetime) -> str:
    passing = f", {render.share(isolation['share'])} pass" if isolation.get("share") is not None else ""
    if isolation.get("share_floor") and isolation["share_floor"] >= isolation["share"]:
        passing += " (respond.max_refused lets no less pass)"
    end = f" until {render.moment(isolation['end_time'], now)}" if isolation.get("end_time") else ""
    return f"{isolation['action']} {isolation['scope']}{passing}, {isolation['state']}, by {isolation['owner']}{end}"


def _suspect(suspect: Mapping[str, Any]) -> str:
    return "\n".join([f"config version {suspect['version']}", *diff_lines(suspect["diff"])])


def _silence(row: Mapping[str, Any], now: datetime) -> str:
    return f"  [bold]{escape(row['scope'])}[/] {escape(silenced(row, now))} → sidecar silence end {row['id']}"


def _demoted(row: Mapping[str, Any]) -> str:
    name = escape(row["control"])
    return f"  [bold]{name}[/] {escape(row['why'])} → sidecar control promote {name}"


def _drill(row: Mapping[str, Any], now: datetime) -> str:
    words = f"[yellow]Drill {row['id']}[/] {row['kind']} on {escape(row['route'])} by {escape(row['author'])}: {row['state']}"
    if row["state"] == "injecting":
        return f"{words}, ends {render.moment(row['end_time'], now)} → sidecar drill stop"
    return f"{words}; the fault has ended, the loop gives back what it took"


def _override(row: Mapping[str, Any], now: datetime) -> str:
    scope, action = escape(row["scope"]), escape(row["action"])
    end = render.moment(row["end_time"], now)
    who = escape(f"{row['author']}: {row['reason']}")
    return f"  [bold]{scope}[/] {action} until {end} ({who}) → sidecar override clear {scope}"


def _troubles(answer: Mapping[str, Any], now: datetime) -> Iterator[str]:
    config, store = answer["config"], answer["store"]
    if answer["mode"] != "enforce":
        yield f"mode is {answer['mode']}: nothing is refused or isolated → set mode: enforce"
    if config.get("confirm_by_time"):
        end = render.moment(config["confirm_by_time"], now)
        yield f"config v{config['version']} reverts by itself {end} → sidecar config confirm"
    if config.get("diverged_from_file"):
        yield "the active config diverged from file → sidecar config show > config/sidecar.yaml"
    for worker in answer.get("workers", []):
        if not worker.get("up"):
            yield f"worker {worker['worker']} is down; the supervisor restarts it → see the log"
    if not store["ok"]:
        yield f"the store does not take writes: {escape(store['problem'])}; traffic goes on → free its disk"
    for receiver in answer.get("receivers", []):
        if receiver.get("problem") or receiver.get("lost"):
            name, why = escape(receiver["name"]), escape(receiver.get("problem") or "")
            lost = f"{receiver['lost']} alerts lost" if receiver.get("lost") else ""
            yield f"receiver {name}: {', '.join(filter(None, (lost, why)))} → sidecar notify test {name}"
        if held := receiver.get("held_until_time"):
            count = f"{receiver['waiting']} message{'s' * (receiver['waiting'] != 1)}"
            yield (
                f"receiver {escape(receiver['name'])}: the hour's budget is spent, {count} held until {render.moment(held, now)} "
                "→ sidecar incident list --state open"
            )


def top(session: Session) -> None:
    """Show the routes by their traffic now."""
    session.show(lambda: session.client.get("/routes"), busiest)


def busiest(answer: Mapping[str, Any], _: datetime) -> RenderableType:
    """Return the routes, the busiest first."""
    rows = sorted(answer["items"], key=lambda row: (-row["requests_per_s"], row["name"]))
    return render.table(
        "",
        ("ROUTE", "REQUESTS/S#", "FAIL#", "REFUSED#", "P50#", "P99#", "IN FLIGHT#", "ASKED AGAIN#", "BREAKER"),
        (
            (
                row["name"], render.figure(row["requests_per_s"]), render.share(row["failure_ratio"]),
                render.share(row["refused_ratio"]), render.seconds(row.get("latency_p50_s")),
                render.seconds(row.get("latency_p99_s")), row["in_flight"], again(row), render.state(row["breaker"]),
            )
            for row in rows
        ),
        "No routes.",
    )  # fmt: skip


def again(row: Mapping[str, Any]) -> str:
    """Return how many requests come for each first try, as `×1.8`; nothing where nobody retries too soon."""
    amplified = row.get("amplification") or 1.0
    return f"×{render.figure(amplified)}" if amplified >= AMPLIFIED else ""


def events(
    session: Session,
    since: Annotated[
        int | None, typer.Option("--since", min=0, help="Start after this event; default: only new ones.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Stop after so many.")] = None,
) -> None:
    """Print events as they happen, until Ctrl-C; goes on by itself after a restart of the sidecar."""
    left = limit
    for event in _followed(session, "" if since is None else str(since)):
        typer.echo(json.dumps(event, ensure_ascii=False) if session.wants_json else event_line(event))
        left = left - 1 if left is not None else None
        if left == 0:
            return


def _followed(session: Session, last_id: str) -> Iterator[Mapping[str, Any]]:
    connected = False
    while True:
        try:
            for event in session.client.events(last_id):
                last_id = str(event["sequence"])
                yield event
            connected = True
        except Failure as failure:
            if failure.code is not Exit.UNREACHABLE or not (connected or last_id):
                raise
        time.sleep(RECONNECT_S)  # the pace of reconnecting, not a synchronisation


def event_line(event: Mapping[str, Any]) -> str:
    """Return one event as a line: time, kind, who, what it is about, small facts."""
    at = datetime.fromisoformat(event["time"]).strftime("%H:%M:%SZ")
    about = [f"incident {event['incident']}" if event.get("incident") else "", event.get("scope") or ""]
    facts = [f"{name}={value}" for name, value in (event.get("body") or {}).items() if value not in (None, "")]
    words = [at, event["kind"], event["author"], *about, *facts]
    return " ".join("".join(c if c.isprintable() else "�" for c in str(word)) for word in words if word)
