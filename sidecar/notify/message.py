"""What a receiver is handed, and what it answers: the vocabulary of this package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

FORMAT: int = 1


@dataclass(frozen=True, slots=True)
class Message:
    """
    One message to people; what receivers send is made from it alone.

    Attributes:
        id: Stable across retries, so that a receiver can tell a repetition.
        kind: The alert's kind, `digest` or `test`.
        incident: The incident's document; of a digest the latest one's; empty for a test.
        text: Plain text, ready to be read at 3 a.m.
        urgent: Pages.
        time: RFC 3339 UTC of the alert.
        folded: The alerts in a digest: {kind, incident, text, time}; empty otherwise.
    """

    id: str
    kind: str
    incident: Mapping[str, Any]
    text: str
    urgent: bool
    time: str
    folded: Sequence[Mapping[str, Any]] = ()

    @property
    def practice(self) -> bool:
        """Tell whether it is about a drill."""
        return bool(self.incident.get("drill")) and not self.urgent and not self.folded

    def document(self) -> dict[str, Any]:
        """Return the JSON document that leaves the process."""
        document: dict[str, Any] = {
            "version": FORMAT,
            "id": self.id,
            "kind": self.kind,
            "time": self.time,
            "urgent": self.urgent,
            "text": self.text,
            "commands": list(self.incident.get("commands", ())),
            "incident": dict(self.incident),
        }
        return document | ({"folded": list(self.folded)} if self.folded else {})


@dataclass(frozen=True, slots=True)
class Sent:
    """It arrived."""


@dataclass(frozen=True, slots=True)
class Failed:
    """
    It did not.

    Attributes:
        problem: Why, in one sentence without secrets.
        final: A repetition would fail as well.
        retry_after_s: The receiver asked for this pause; None when it did not.
    """

    problem: str
    final: bool = False
    retry_after_s: float | None = None


class Receiver(Protocol):
    """Sends one message, once."""

    async def send(self, message: Message) -> Sent | Failed:
        """Try to deliver *message*; never raises but on cancellation."""
        ...
