"""What the admin API needs of the controller: the port `Control`, which `controller/control.py` implements."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sidecar.config.errors import ConfigError
from sidecar.config.policies import Token
from sidecar.controller.commands import Asking, Done, Rejected
from sidecar.link.frames import Tap

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list, the newest first; `next` is the cursor of the following page or None."""

    items: Sequence[Document]
    next: str | None = None


class ConfigRefused(Exception):  # noqa: N818  named as what it says
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

    @classmethod
    def invalid(cls, errors: Sequence[ConfigError]) -> ConfigRefused:
        """Return the refusal of a config with these errors."""
        rows = [error.to_json() for error in errors]
        count = f"{len(rows)} error{'s' if len(rows) > 1 else ''}"
        return cls(422, f"{count} in the configuration; the active one stays in force", "", rows)

    @property
    def words(self) -> str:
        """Return all of it in one line, for the log."""
        rows = [f"{row['path']}: {row['problem']} ({row['hint']})" for row in self.errors]
        return "; ".join([self.problem, *rows])


class Unavailable(Exception):  # noqa: N818  named as what it says
    """
    A read that cannot be answered now (the store is down): the API answers 503.

    Attributes:
        problem: What is wrong.
        hint: What to do.
    """

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint


class TapeSource(Protocol):
    """What is recorded all the time."""

    def lines(self, past_s: float, for_s: float) -> AsyncIterator[str]:
        """
        Yield whole lines of a tape: what is remembered of the last *past_s*, then the next *for_s* second by second.

        Bounded: for a reader that falls far behind the iteration ends early.
        """
        ...


class TapSource(Protocol):
    """What happens to single requests."""

    def requests(self, wanted: Tap) -> AsyncIterator[Document]:
        """
        Return each request that fits *wanted*, as it ends; its id and time to live do not count.

        Raises:
            Unavailable: when too many look on.
        """
        ...


class Proposals(Protocol):
    """What incidents taught."""

    def proposals(self, state: str | None) -> Sequence[Document]:
        """Return the proposals, the newest first (schema `Proposal`)."""
        ...

    def proposal(self, number: int) -> Document | None:
        """Return one proposal."""
        ...

    async def apply(self, number: int, author: str, confirm_within_s: float | None) -> Document:
        """Make a version of it, or put its rule in force; raise ConfigRefused when it was not."""
        ...

    def dismiss(self, number: int, author: str, reason: str) -> Document:
        """Say no to it; raise ConfigRefused when it was decided already."""
        ...


class KeptAnswers(Protocol):
    """What calls with an Idempotency-Key were answered."""

    def find(self, key: str) -> Document | None:
        """Return what was kept under *key*, for a day."""
        ...

    async def keep(self, key: str, document: Document, *, secret: bool) -> None:
        """Keep an answer; a *secret* one is not stored."""
        ...


class Keys(Protocol):
    """The bearer tokens."""

    def documents(self) -> Sequence[Document]:
        """Return every token that is known, without its hash (schema `Token`)."""
        ...

    async def new(self, name: str, role: str, author: str) -> Document:
        """Issue a token; its secret stands once in the document. Raise ConfigRefused or Unavailable when it was not."""
        ...

    def revoke(self, name: str, author: str) -> Document:
        """Refuse a token from now on; raise ConfigRefused when it was not."""
        ...


class Control(Protocol):
    """
    The controller as its API sees it; every document has the shape that `contract.md` and `admin/schemas.py` name.

    Lists that may grow without end come as a `Page`; a cursor is the digits of a number, as the page before gave it.
    """

    @property
    def tapes(self) -> TapeSource:
        """Return the recorder."""
        ...

    @property
    def taps(self) -> TapSource:
        """Return those who look on."""
        ...

    @property
    def learning(self) -> Proposals:
        """Return what incidents taught."""
        ...

    @property
    def answers(self) -> KeptAnswers:
        """Return what calls with an Idempotency-Key were answered."""
        ...

    @property
    def keyring(self) -> Keys:
        """Return the tokens."""
        ...

    def status(self) -> Document:
        """Return what is going on (schema `Status`, without `token`, which the API adds)."""
        ...

    def controls(self) -> Sequence[Document]:
        """Return the inventory: {name, route, state: `off|observe|enforce|cannot run`, why}."""
        ...

    def routes(self) -> Sequence[Document]:
        """Return the routes with their traffic now (schema `Route`)."""
        ...

    def series(self, route: str, window_s: float, step_s: float) -> Document | None:
        """Return {route, step_s, items: [{time, …}]} of the last *window_s*; None for an unknown route."""
        ...

    def silences(self) -> Sequence[Document]:
        """Return the silences in force (schema `Silence`)."""
        ...

    def drills(self) -> Sequence[Document]:
        """Return the drills, the newest first (schema `Drill`)."""
        ...

    def isolations(self) -> Sequence[Document]:
        """Return the isolations in force."""
        ...

    def decision(self, decision_id: str) -> Document | None:
        """Return {id, reason, time, …} of a recent refusal."""
        ...

    async def incidents(self, state: str | None, limit: int, cursor: str | None) -> Page:
        """Return incidents, the newest first."""
        ...

    async def incident(self, incident_id: int) -> Document | None:
        """Return one incident."""
        ...

    async def evidence(self, incident_id: int) -> Document | None:
        """Return what was frozen at its detection."""
        ...

    async def postmortem(self, incident_id: int) -> str | None:
        """Return its post-mortem draft, in Markdown."""
        ...

    async def report(self, incident_id: int) -> str | None:
        """Return the post-mortem as an HTML page; None for an unknown one."""
        ...

    def overrides(self) -> Sequence[Document]:
        """Return the overrides in force."""
        ...

    async def command(self, command: Asking) -> Done | Rejected:
        """Do what a person asks, at once; the answer waits a moment for the store, and says `durable` as it is then."""
        ...

    async def stored(self) -> bool:
        """Wait a moment until the store has everything that was asked for, and tell whether it has."""
        ...

    def client_key(self, header_value: str) -> str:
        """Return `h-` and 16 hex digits: the key that a header's value has here."""
        ...

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
    ) -> Document:
        """Apply a config on every worker (schema `Applied`); raise ConfigRefused when it was not."""
        ...

    async def confirm(self, author: str) -> Document:
        """Keep the version that waits for confirmation and return it; raise ConfigRefused (409) when none does."""
        ...

    async def rollback(self, to: int | None, *, author: str, reason: str) -> Document:
        """Run the text of version *to*, or of the one before, again (schema `Applied`)."""
        ...

    async def versions(self, limit: int, cursor: str | None) -> Page:
        """Return the versions, the newest first."""
        ...

    async def version(self, number: int) -> Document | None:
        """Return one version with its text (masked)."""
        ...

    async def diff(self, older: int | None, newer: int | None, replay_s: float | None) -> Document:
        """
        Return {from, to, changes}, and `replay` of the last *replay_s* when given.

        Raises:
            ConfigRefused: 404 for an unknown version.
            Unavailable: when the replay was not finished.
        """
        ...

    async def audit(self, limit: int, cursor: str | None) -> Page:
        """Return the events, the newest first: {sequence, time, kind, author, incident, scope, body}."""
        ...

    async def verify(self) -> Document:
        """Return {ok, rows, first_bad, problem} of the hash chain."""
        ...

    def events(self, last_id: int | None) -> AsyncIterator[Document]:
        """
        Yield every event from now on, or after *last_id*, each with at least `sequence`, `kind` and `time`.

        Bounded: for a reader that falls far behind the iteration ends; it comes back with its last id.
        """
        ...

    async def notify_test(self, name: str) -> Document | None:
        """Send a test message to one receiver: {name, type, ok, attempts, problem}; None when there is no such one."""
        ...

    def tokens(self) -> Sequence[Token]:
        """Return the tokens that are valid at this moment."""
        ...
