"""
How a detector's memory becomes a plain JSON document and comes back, with its times moved to the present clock.

Every object lists its fields once: `KEPT` are values (numbers, texts, lists or arrays of them), `TIMES` are monotonic seconds or
None. A restored memory is moved by (now − when it was saved): the time in between was not observed, so it counts for
nothing, neither as silence nor as age. That also makes a document of another boot usable.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

Document = dict[str, Any]
Names = tuple[str, ...]


class Keeps(Protocol):
    """An object whose memory is its listed fields."""

    KEPT: ClassVar[Names]
    TIMES: ClassVar[Names]


def keep(subject: Keeps) -> Document:
    """Return the listed fields of *subject* as a JSON object; lists are copied."""
    row: Document = {}
    for name in subject.KEPT:
        value = getattr(subject, name)
        row[name] = list(value) if isinstance(value, list | array) else value
    for name in subject.TIMES:
        row[name] = getattr(subject, name)
    return row


def revive(subject: Keeps, row: Mapping[str, Any], shift_s: float) -> None:
    """
    Put what `keep` returned back into *subject*, its times moved by *shift_s*.

    Fields that the document lacks (it is from an older release) stay as the constructor left them.
    """
    for name in subject.KEPT:
        if name in row:
            value, was = row[name], getattr(subject, name)
            if isinstance(was, array):
                value = array(was.typecode, value)
            setattr(subject, name, list(value) if isinstance(value, list) else value)
    for name in subject.TIMES:
        if name in row:
            at = row[name]
            setattr(subject, name, None if at is None else at + shift_s)
