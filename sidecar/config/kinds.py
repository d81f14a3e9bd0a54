"""
What a kind of value is: how it is read, refused, written back and described, in one row for each.

The JSON Schema, the error messages and the reference page are made from the same row as the parsing, so they cannot
disagree. `fields.py` holds the rows.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Generic, TypeVar

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from sidecar.config.units import UnitError, shown

OWN_ERROR: Final = "sidecar"  # the pydantic error type whose context carries our own faults

T = TypeVar("T")
Word = TypeVar("Word", bound=StrEnum)
Step = str | int


@dataclass(frozen=True, slots=True)
class Fault:
    """
    What is wrong with a section or between sections.

    Attributes:
        at: Keys and indices from the section that finds it to the value that is wrong.
        problem, hint: As in `ConfigError`.
        needs: Top-level keys that must be valid themselves for this fault to be one.
    """

    at: tuple[Step, ...]
    problem: str
    hint: str
    needs: tuple[str, ...] = ()


def refuse(faults: Iterable[Fault]) -> PydanticCustomError:
    """Return the error in which pydantic carries *faults* to `load.py`."""
    return PydanticCustomError(OWN_ERROR, "not valid", {"faults": tuple(faults)})


def meant(word: str, known: Iterable[str]) -> str:
    """Return the one of *known* that *word* was probably meant to be; empty when none is near."""
    return next(iter(difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)), "")


def _same(value: object) -> object:
    return value


@dataclass(frozen=True, slots=True, eq=False)  # typing hashes it
class Kind(Generic[T]):
    """
    One kind of value, used as `Annotated[T, kind]`.

    Attributes:
        name: What the reference page calls it: `duration`, `rate`, …
        unit: What may be typed.
        read: From what YAML gives (null, boolean, integer, text, list, map) to the value; raises UnitError.
        write: From the value to its canonical spelling.
        schema: Its JSON Schema.
    """

    name: str
    unit: str
    read: Callable[[object], T]
    schema: Mapping[str, object]
    write: Callable[[Any], object] = _same

    def __get_pydantic_core_schema__(self, _source: object, _handler: GetCoreSchemaHandler) -> CoreSchema:
        """Tell pydantic to read and write with this row alone."""
        return core_schema.no_info_plain_validator_function(
            self._validate, serialization=core_schema.plain_serializer_function_ser_schema(self.write)
        )

    def _validate(self, value: object) -> T:
        try:
            return self.read(value)
        except UnitError as error:
            raise refuse([Fault((), error.problem, error.hint)]) from None


def text_schema(pattern: str, *examples: str) -> Mapping[str, object]:
    """Return the JSON Schema of texts that match *pattern* as a whole."""
    return {"type": "string", "pattern": f"^({pattern})$", "examples": list(examples)}


def count(low: int, high: int) -> Kind[int]:
    """Return the kind of a whole number from *low* to *high*."""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise UnitError(f"{shown(value)} is not a whole number", f"write a number from {low} to {high}, unquoted")
        if not low <= value <= high:
            raise UnitError(f"{value} is out of range", f"write a number from {low} to {high}")
        return value

    return Kind("integer", f"{low} to {high}", read, {"type": "integer", "minimum": low, "maximum": high})


def number(low: int, high: int) -> Kind[float]:
    """Return the kind of a number from *low* to *high*, whole or not."""

    def read(value: object) -> float:
        # A number with a point comes as its text, so that it is written back as it was.
        found = isinstance(value, int) or (
            isinstance(value, str) and re.fullmatch(r"[0-9]+(\.[0-9]+)?", value, re.ASCII)
        )
        if isinstance(value, bool) or not found:
            raise UnitError(f"{shown(value)} is not a number", f"write a number from {low} to {high}, as 2 or 2.5")
        if not low <= float(str(value)) <= high:
            raise UnitError(f"{shown(value)} is out of range", f"write a number from {low} to {high}")
        return float(str(value))

    return Kind("number", f"{low} to {high}", read, {"type": "number", "minimum": low, "maximum": high}, _whole)


def _whole(value: float) -> float | int:
    return int(value) if value == int(value) else value


def choice(values: type[Word], *, without: tuple[str, ...] = ()) -> Kind[Word]:
    """Return the kind of one word of *values*; those *without* mean nothing here."""
    words = [word.value for word in values if word.value not in without]

    def read(value: object) -> Word:
        if isinstance(value, str) and value in words:
            return values(value)
        near = meant(str(value), words)
        hint = f"did you mean {near}?" if near else f"write {' or '.join(words)}"
        raise UnitError(f"{shown(value)} is not one of {', '.join(words)}", hint)

    return Kind("word", ", ".join(words), read, {"enum": words}, lambda word: word.value)
