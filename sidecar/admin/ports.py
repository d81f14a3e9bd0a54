"""What the admin API needs of the controller; `controller/control.py` is it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sidecar.config.policies import Token
from sidecar.controller.commands import Command, Done, Rejected

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list, the newest first; `next` is the cursor of the following page or None."""

    items: Sequence[Document]
    next: str | None = None


class ConfigRefused(Exception):
    """
    A config change that was not made.

    Attributes:
        status: 409 (confirmation pending), 412 (not the current version), 422 (invalid), 404, or 503 (store).
        errors: Rows {path, line, column, problem, hint} of an invalid config.
    """

    def __init__(self, status: int, problem: str, hint: str = "", errors: Sequence[Document] = ()) -> None:
        super().__init__(problem)
        self.status = status
        self.problem = problem
        self.hint = hint
        self.errors = errors


class Control(Protocol):
    """The controller as its API sees it; every document has the shape that `contract.md` names."""

    # --- state
    def status(self) -> Document: ...
    def controls(self) -> Sequence[Document]: ...
    def routes(self) -> Sequence[Document]: ...
    def series(self, route: str, window_s: float, step_s: float) -> Document | None: ...
    def isolations(self) -> Sequence[Document]: ...
    def decision(self, decision_id: str) -> Document | None: ...

    # --- incidents, overrides, breakers
    async def incidents(self, state: str | None, limit: int, cursor: str | None) -> Page: ...
    async def incident(self, incident_id: int) -> Document | None: ...
    async def evidence(self, incident_id: int) -> Document | None: ...
    async def postmortem(self, incident_id: int) -> str | None: ...
    def overrides(self) -> Sequence[Document]: ...
    def command(self, command: Command) -> Done | Rejected: ...
    def client_key(self, header_value: str) -> str:
        """Return `h-` and 16 hex digits: the key that a header's value has here."""
        ...

    # --- config
    def config(self) -> Document:
        """Return {version, hash, state, text (masked), diverged_from_file, confirm_by_time}."""
        ...

    async def apply(
        self,
        text: str,
        *,
        author: str,
        reason: str,
        if_match: int,
        dry_run: bool,
        confirm_within_s: float | None,
    ) -> Document: ...
    async def confirm(self, author: str) -> Document: ...
    async def rollback(self, to: int | None, *, author: str, reason: str) -> Document: ...
    async def versions(self, limit: int, cursor: str | None) -> Page: ...
    async def version(self, number: int) -> Document | None: ...
    async def diff(self, older: int | None, newer: int | None) -> Document: ...

    # --- audit and events
    async def audit(self, limit: int, cursor: str | None) -> Page: ...
    async def verify(self) -> Document: ...
    def events(self, last_id: int | None) -> AsyncIterator[Document]:
        """Yield every event from now on (or after *last_id*), each with `sequence`, `kind`, `time`, …"""
        ...

    # --- who may
    def tokens(self) -> Sequence[Token]: ...
