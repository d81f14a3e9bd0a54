"""What is wrong with a config: every fault at once, each with its place and its remedy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

LONGEST_PATH: Final = 200


@dataclass(frozen=True, slots=True)
class ConfigError:
    """
    One fault.

    Attributes:
        path: The dotted key, as `routes.0.limit.rate`; empty when the whole text is meant.
        line, column: From 1, in the file's characters; 0 when the value did not come from a file.
        problem: What is wrong. Never quotes a secret.
        hint: What to type instead.
        file: The file's name, the environment variable or the flag that the value came from.
    """

    path: str
    line: int
    column: int
    problem: str
    hint: str
    file: str

    def __post_init__(self) -> None:
        if not self.path.isprintable() or len(self.path) > LONGEST_PATH:
            shown = "".join(c if c.isprintable() else "?" for c in self.path[:LONGEST_PATH])
            object.__setattr__(self, "path", shown)  # a key may hold anything; a log line must not

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.path + ': ' if self.path else ''}{self.problem} ({self.hint})"

    def to_json(self) -> dict[str, Any]:
        """Return it as a row of an answer; the file is told beside the rows."""
        return {
            "path": self.path, "line": self.line, "column": self.column, "problem": self.problem, "hint": self.hint,
        }  # fmt: skip


class ConfigErrors(Exception):  # noqa: N818 - the plural says what it holds
    """Everything that is wrong with one config, in the order in which a reader meets it."""

    def __init__(self, errors: Iterable[ConfigError]) -> None:
        unique = dict.fromkeys(errors)
        self.errors: tuple[ConfigError, ...] = tuple(sorted(unique, key=lambda e: (e.line, e.column, e.path)))
        super().__init__("\n".join(map(str, self.errors)))
