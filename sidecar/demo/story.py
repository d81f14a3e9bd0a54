"""`sidecar demo`: tells the whole loop on real processes; exit 0 only if every stage happened as measured."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.markup import escape

from sidecar import clock
from sidecar.demo import stages
from sidecar.demo.stages import Check
from sidecar.demo.world import CLIENTS, SHORT, World, WorldError
from sidecar.incident.words import duration


@dataclass(frozen=True, slots=True)
class Stage:
    """One chapter: its title, what it does, and where an operator would look."""

    title: str
    act: Callable[[World], Iterator[Check]]
    look: str


STORY: Final = (
    Stage("Measure: steady traffic, baselines", stages.warm_up, "sidecar status · sidecar control list"),
    Stage(
        "A bad config is found, suspected and rolled back",
        stages.bad_config,
        "sidecar config history · sidecar config diff",
    ),
    Stage("One client fails: only it is throttled", stages.one_client, "sidecar incident list"),
    Stage(
        "An outage: detect, isolate, verify, recover",
        stages.outage,
        "sidecar incident show ID · GET /incidents/ID/evidence",
    ),
    Stage("A false alarm is released, and stays released", stages.false_alarm, "sidecar incident show ID"),
    Stage("Learn: the draft and the record", stages.learn, "sidecar incident postmortem ID · sidecar audit verify"),
)


def tell(world: World, console: Console, *, quiet: bool) -> list[str]:
    """Tell every stage and return the titles of those that did not happen as expected."""
    failed: list[str] = []
    for number, stage in enumerate(STORY, start=1):
        began = clock.now()
        console.print(f"\n[bold]{number}. {escape(stage.title)}[/]")
        console.print(f"   [dim]{escape((stage.act.__doc__ or '').strip())}[/]")
        well = True
        for check in stage.act(world):
            well = well and check.ok
            if not quiet or not check.ok:
                mark = "[green]✓[/]" if check.ok else "[red]✗[/]"
                console.print(f"   {mark} {escape(check.expected)}: [bold]{escape(check.measured)}[/]")
        console.print(f"   [dim]look: {escape(stage.look)}   ({duration(clock.now() - began)})[/]")
        if not well:
            failed.append(stage.title)
    return failed


def crowded(load: float, cores: int) -> str:
    """Return the advice for a machine that has other work: slow answers are then real, and not the story's."""
    if load <= cores:
        return ""
    return (
        f"This machine has a load of {load:.1f} on {cores} cores: other work makes answers slow, and that is detected, too. "
        "Run it again when the machine is idle."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit code."""
    parser = argparse.ArgumentParser(prog="sidecar demo", description=__doc__)
    parser.add_argument("--quiet", action="store_true", help="only the stages' results")
    given = parser.parse_args(argv)
    console = Console(highlight=False, soft_wrap=True)
    began = clock.now()
    try:
        with World() as world:
            clients = ", ".join(f"{c.key} {sum(rate for *_, rate in c.mix):.0f}/s" for c in CLIENTS)
            console.print("[bold]The whole incident loop, on real processes[/]")
            console.print(f"sidecar {world.url} · admin {world.admin_url} · clients: {clients}")
            token = world.folder / "state" / "admin.token"
            console.print("[dim]while it runs, for the commands below, in another terminal:[/]")
            console.print(f"  export SIDECAR_ADMIN={world.admin_url} SIDECAR_TOKEN_FILE={token}")
            console.print("short times for the demo: " + ", ".join(f"{name} {value}" for name, value in SHORT.items()))
            failed = tell(world, console, quiet=given.quiet)
            if failed:
                for words in (("incident", "list"), ("audit", "list", "--limit", "40")):
                    console.print(f"\n[dim]sidecar {' '.join(words)}\n{escape(world.cli(*words).stdout)}[/]")
                console.print(f"[dim]{escape(world.log.read_text(errors='replace')[-3000:])}[/]")
    except WorldError as error:
        sys.stderr.write(f"sidecar demo: {error}\n")
        return 1
    took = duration(clock.now() - began)
    if failed:
        console.print(
            f"\n[red]✗ {len(failed)} of {len(STORY)} stages did not happen as expected ({took}):[/] {', '.join(failed)}"
        )
        console.print(crowded(os.getloadavg()[0], os.cpu_count() or 1))
        return 1
    console.print(f"\n[green]✓ all {len(STORY)} stages happened as measured, in {took}[/]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
