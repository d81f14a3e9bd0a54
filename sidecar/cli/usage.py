"""Usage errors as all other errors read: what is wrong and where, and a line to type."""

from __future__ import annotations

import sys
from typing import Any, Final, NoReturn

import typer
from typer.core import TyperGroup

from sidecar.cli.client import Exit, Failure
from sidecar.cli.session import fail

_WORDS: Final = (
    ("Value error, ", ""),
    ("Input should be a valid integer, unable to parse string as an integer", "write a whole number"),
    ("Input should be a valid number, unable to parse string as a number", "write a number"),
    ("Input should be", "it should be"),
)


class Verbs(TyperGroup):
    """The root of the tree of verbs."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run, and tell a usage error with what to type; typer's own would only name the help."""
        standalone_mode = extra.pop("standalone_mode", True)
        try:
            code = super().main(*args, **{**extra, "standalone_mode": False})
        except typer.Abort:
            sys.exit(Exit.REFUSED)
        except Exception as error:
            # typer's own exceptions moved between its releases; all of them can format their message.
            if not standalone_mode or not hasattr(error, "format_message"):
                raise
            _told(error)
        if standalone_mode:
            sys.exit(code if isinstance(code, int) else Exit.DONE)
        return code


def _told(error: Any) -> NoReturn:
    context = getattr(error, "ctx", None)
    if context is not None and type(error).__name__ == "NoArgsIsHelpError":
        sys.exit(Exit.USAGE)  # the help was printed
    problem = " ".join(str(error.format_message()).split())
    for old, new in _WORDS:
        problem = problem.replace(old, new)
    sys.exit(fail(Failure(Exit.USAGE, problem.rstrip("."), _hint(context)), no_color="--no-color" in sys.argv))


def _hint(context: Any) -> str:
    """Return what to type instead: the verbs there are, or the example of this one."""
    if context is None:
        return "sidecar --help lists the commands"
    commands = getattr(context.command, "commands", {})
    if commands:
        return f"{context.command_path} {' | '.join(sorted(commands))}"
    example = str(context.command.epilog or "").partition(": ")[2].partition(" · ")[0]
    return example or f"{context.command_path} --help"
