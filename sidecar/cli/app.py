"""The command line: the tree of verbs, the global options, and what every exit code means."""

# ruff: noqa: FBT001, FBT002  typer reads the options from the signature

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sidecar import __version__
from sidecar.cli import (
    audit,
    check,
    config,
    control,
    drill,
    incident,
    override,
    proposal,
    silence,
    simulate,
    status,
    tap,
    token,
)
from sidecar.cli.client import Exit
from sidecar.cli.session import AdminOption, ColorOption, OutputOption, Session, TokenOption, WatchOption, command
from sidecar.cli.usage import Verbs

app = typer.Typer(
    name="sidecar",
    cls=Verbs,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A reverse proxy in front of one HTTP API that closes the incident loop.",
    epilog="Examples: sidecar run --upstream http://127.0.0.1:3000 · sidecar status · sidecar incident list.   "
    "Exit codes: 0 yes or done, 1 no or refused, 2 usage or invalid input, 3 cannot reach the sidecar.",
)
app.add_typer(incident.app, name="incident")
app.add_typer(override.app, name="override")
app.add_typer(config.app, name="config")
app.add_typer(control.app, name="control")
app.add_typer(proposal.app, name="proposal")
app.add_typer(drill.app, name="drill")
app.add_typer(silence.app, name="silence")
app.add_typer(token.app, name="token")
app.add_typer(audit.app, name="audit")
app.add_typer(control.notify, name="notify")
app.add_typer(control.breaker, name="breaker")
app.command("status", epilog="Example: sidecar status -w")(command(status.status))
app.command("top", epilog="Example: sidecar top -w")(command(status.top))
app.command("explain", epilog="Example: sidecar explain 5f2a-1c")(audit.explain)
app.command("events", epilog="Example: sidecar events -o json | jq .kind")(command(status.events))
app.command(
    "tap",
    epilog="Examples: sidecar tap --route checkout --status 5xx · sidecar tap --slower 200ms -o json · sidecar tap --refused",
)(command(tap.tap))
app.command(
    "simulate",
    epilog="Examples: sidecar simulate tape.jsonl -c config/sidecar.yaml -o json · "
    "sidecar simulate --record tape.jsonl --for 10m",
)(command(simulate.simulate))
app.command("check", epilog="Example: sidecar check -c config/sidecar.yaml")(command(check.check))


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"sidecar {__version__}")
        raise typer.Exit(Exit.DONE)


@app.callback()
def root(
    ctx: typer.Context,
    admin: AdminOption = None,
    token_file: TokenOption = None,
    output: OutputOption = None,
    watch: WatchOption = False,
    no_color: ColorOption = False,
    _shown: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Keep the global options for the verb behind them."""
    ctx.obj = Session(admin, token_file, output, watch, no_color)


@app.command(epilog="Examples: sidecar run --upstream http://127.0.0.1:3000 · sidecar run -c config/sidecar.yaml")
def run(
    config_file: Annotated[Path | None, typer.Option("-c", "--config", help="The configuration file.")] = None,
    upstream: Annotated[str | None, typer.Option("--upstream", help="The API behind, as http://HOST:PORT.")] = None,
    listen: Annotated[str | None, typer.Option("--listen", help="Where clients connect, as HOST:PORT.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes that serve.")] = None,
) -> None:
    """Run the sidecar until SIGTERM; SIGHUP reloads the file, SIGUSR2 lets the installed release take over."""
    # `python -m sidecar run` never comes this far: __main__ hands it to the supervisor without loading the CLI.
    given = {"-c": config_file, "--upstream": upstream, "--listen": listen, "--workers": workers}
    flags = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    os.execv(sys.executable, [sys.executable, "-m", "sidecar", "run", *flags])  # noqa: S606  itself


@app.command(epilog="Example: sidecar demo")
def demo(
    fast: Annotated[bool, typer.Option("--quiet", help="Only the stages' results.")] = False,
) -> None:
    """Tell the whole loop on real processes, in under two minutes; exit 0 only if every stage happened."""
    flags = ["--quiet"] if fast else []
    os.execv(sys.executable, [sys.executable, "-m", "sidecar.demo.story", *flags])  # noqa: S606  itself


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; never returns."""
    app(args=list(argv) if argv is not None else None, prog_name="sidecar")
