"""
What all verbs share: the global options, and `command`, which gives a verb its session.

A verb is written as `def show(session: Session, number: int) -> None`. `command` adds the global options to its
signature, so that `sidecar incident show 12 -o json` works as well as `sidecar -o json incident show 12`, and turns a
`Failure` into its message and exit code.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, cast

import typer
from rich.console import Console, Group, RenderableType
from rich.markup import escape

from sidecar.cli.client import Answer, Client, Exit, Failure, find_admin, find_token, token_origin
from sidecar.cli.render import as_json, failure_lines

WATCH_S: Final = 1.0
PIPE_COLUMNS: Final = 160

View = Callable[[Any, datetime], RenderableType | Iterable[RenderableType]]


class Output(StrEnum):
    """How answers are printed."""

    TABLE = "table"
    JSON = "json"


AdminOption = Annotated[
    str | None, typer.Option("--admin", help="The admin API: http://HOST:PORT or unix:PATH.", rich_help_panel="Global")
]
TokenOption = Annotated[
    Path | None, typer.Option("--token-file", help="A file that holds the bearer token.", rich_help_panel="Global")
]
OutputOption = Annotated[Output | None, typer.Option("-o", "--output", help="table or json.", rich_help_panel="Global")]
WatchOption = Annotated[
    bool, typer.Option("-w", "--watch", help="Show again each second, until Ctrl-C.", rich_help_panel="Global")
]
ColorOption = Annotated[
    bool, typer.Option("--no-color", help="Plain text; NO_COLOR does the same.", rich_help_panel="Global")
]
GLOBALS: Final[Mapping[str, tuple[Any, Any]]] = {
    "admin": (AdminOption, None),
    "token_file": (TokenOption, None),
    "output": (OutputOption, None),
    "watch": (WatchOption, False),
    "no_color": (ColorOption, False),
}


@dataclass(frozen=True, slots=True)
class Session:
    """One run of the CLI: where it talks to, and how it prints."""

    admin: str | None = None
    token_file: Path | None = None
    output: Output | None = None
    watch: bool = False
    no_color: bool = False

    def merged(self, given: Mapping[str, Any]) -> Session:
        """Return this session with what was given behind the verb."""
        return replace(self, **{name: value for name, value in given.items() if value})

    @property
    def client(self) -> Client:
        """Connect with the token that was found."""
        origin = token_origin(self.token_file, os.environ)
        return Client(find_admin(self.admin), find_token(self.token_file, os.environ), origin)

    @property
    def console(self) -> Console:
        """Print to stdout, in color only where a person looks; a pipe gets wide lines, so that rows stay whole."""
        seen = sys.stdout.isatty()
        width = None if seen or "COLUMNS" in os.environ else PIPE_COLUMNS
        return Console(no_color=True if self.no_color else None, highlight=False, soft_wrap=not seen, width=width)

    @property
    def wants_json(self) -> bool:
        """Tell whether a script reads."""
        return self.output is Output.JSON

    def show(self, fetch: Callable[[], Answer], view: View) -> None:
        """
        Print what *fetch* returns, as JSON or as *view* makes it; again each second with `--watch`.

        A sidecar that stops answering while it is watched does not end the watch: the failure is shown until it is
        back.
        """
        if not self.watch:
            self.print(fetch(), view)
            return
        console = self.console
        with contextlib.suppress(KeyboardInterrupt):
            if self.wants_json or not console.is_terminal:
                while True:
                    self.print(fetch(), view)
                    time.sleep(WATCH_S)  # the pace of a person's eyes, not a synchronisation
            with console.screen(hide_cursor=True) as screen:
                while True:
                    screen.update(Group(*_attempt(fetch, view)))
                    time.sleep(WATCH_S)  # as above

    def print(self, answer: Answer, view: View) -> None:
        """Print one answer."""
        console = self.console
        if self.wants_json:
            console.file.write(as_json(answer.body))
            console.file.flush()  # a pipe is read document by document
            return
        for item in _items(view(answer.body, answer.now)):
            console.print(item)

    def done(self, answer: Answer, sentence: str) -> None:
        """Print what was done: the answer for a script, a sentence for a person (plain text, no markup)."""
        if isinstance(answer.body, Mapping) and answer.body.get("durable") is False:
            sentence += " Not stored yet: `sidecar status` says why."
        self.print(answer, lambda _, __: f"[green]✓[/] {escape(sentence)}")


def _items(made: RenderableType | Iterable[RenderableType]) -> Iterable[RenderableType]:
    # A Table is iterable by none of its methods, a str is: only what is made to hold several is taken apart.
    return made if isinstance(made, list | tuple | Iterator) else [cast("RenderableType", made)]


def _attempt(fetch: Callable[[], Answer], view: View) -> Iterable[RenderableType]:
    try:
        answer = fetch()
    except Failure as failure:
        if failure.code is not Exit.UNREACHABLE:
            raise
        return list(failure_lines(failure))
    return list(_items(view(answer.body, answer.now)))


def command(verb: Callable[..., None]) -> Callable[..., None]:
    """Give *verb* the global options, a `Session` as its first argument, and its failures their exit codes."""
    own = inspect.signature(verb, eval_str=True)
    params = [p for name, p in own.parameters.items() if name != "session"]
    context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in GLOBALS.items()
    ]

    @functools.wraps(verb)
    def run(*args: Any, ctx: typer.Context, **given: Any) -> None:
        base = ctx.obj if isinstance(ctx.obj, Session) else Session()
        session = base.merged({name: given.pop(name) for name in GLOBALS})
        try:
            verb(session, *args, **given)
        except Failure as failure:
            raise typer.Exit(fail(failure, no_color=session.no_color)) from failure

    keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in params]
    signature = own.replace(parameters=[*keyword_only, context, *shared])
    run.__signature__ = signature  # type: ignore[attr-defined]  # what typer reads the options from
    run.__annotations__ = {name: p.annotation for name, p in signature.parameters.items()} | {"return": None}
    return run


def fail(failure: Failure, *, no_color: bool) -> Exit:
    """Print *failure* to stderr and return its exit code."""
    console = Console(stderr=True, no_color=True if no_color else None, highlight=False, soft_wrap=True)
    for line in failure_lines(failure):
        console.print(line)
    return failure.code
