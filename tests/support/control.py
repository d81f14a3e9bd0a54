"""The port `Control` in memory: a double of the controller's I/O for tests of the admin API alone."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Sequence

from sidecar.config.policies import Token
from sidecar.config.units import format_rate, format_ratio
from sidecar.controller.answers import Answers
from sidecar.controller.commands import (
    AddSilence,
    Asking,
    ClearOverride,
    CloseBreaker,
    Demote,
    Done,
    EndSilence,
    Missed,
    Promote,
    Rejected,
    RejectedKind,
    SetOverride,
    StartDrill,
    StopDrill,
    Tune,
)
from sidecar.controller.effects import Write
from sidecar.controller.ports import ConfigRefused, Document, Page, Unavailable
from sidecar.link.frames import Tap
from tests.support import documents as d

SECRETS = {"viewer": "viewer-secret", "operator": "operator-secret", "admin": "admin-secret"}


def token(role: str) -> Token:
    """Return a token of *role*, whose name is `a-ROLE`."""
    return Token(f"a-{role}", role, hashlib.sha256(SECRETS[role].encode()).hexdigest())


def _action(command: SetOverride) -> str:
    if command.rate_per_s is not None:
        return f"throttle={format_rate(command.rate_per_s)}"
    return f"throttle={format_ratio(command.share_ratio)}" if command.share_ratio is not None else command.action.value


class MemoryTapes:
    """A tape of two lines, one of the past and one of now."""

    async def lines(self, past_s: float, for_s: float) -> AsyncIterator[str]:
        for t in ([1.0] if past_s else []) + ([2.0] if for_s else []):
            yield json.dumps({"t": t, "route": "checkout", "requests": 1, "failures": 0}) + "\n"


class MemoryTaps:
    """What somebody who looks on is shown: the last filter, and requests that the test puts."""

    def __init__(self) -> None:
        self.wanted: list[Tap] = []
        self.full = False

    def requests(self, wanted: Tap) -> AsyncIterator[Document]:
        if self.full:
            raise Unavailable("8 taps are open", "close one")
        self.wanted.append(wanted)
        return self._all()

    async def _all(self) -> AsyncIterator[Document]:
        yield d.TAPPED


class MemoryProposals:
    """One open proposal."""

    def proposals(self, state: str | None) -> Sequence[Document]:
        return [d.PROPOSAL] if state in (None, "open") else []

    def proposal(self, number: int) -> Document | None:
        return d.PROPOSAL if number == d.PROPOSAL["id"] else None

    async def apply(self, number: int, author: str, confirm_within_s: float | None) -> Document:
        return {**self.dismiss(number, author, ""), "state": "applied", "version": 8, "applied": d.APPLIED}

    def dismiss(self, number: int, author: str, reason: str) -> Document:
        if number != d.PROPOSAL["id"]:
            raise ConfigRefused(404, f"there is no proposal {number}", "see proposal list")
        return {**d.PROPOSAL, "state": "dismissed", "decided_by": author}


class MemoryKeys:
    """A token of the file, and those that are issued."""

    def __init__(self) -> None:
        self.rows: dict[str, Document] = {"ops": d.TOKEN}

    def documents(self) -> Sequence[Document]:
        return list(self.rows.values())

    async def new(self, name: str, role: str, author: str) -> Document:
        if name in self.rows:
            raise ConfigRefused(409, f"a token '{name}' exists", f"take another name, or sidecar token revoke {name}")
        self.rows[name] = {**d.TOKEN, "name": name, "role": role, "source": "issued", "author": author}
        return {**self.rows[name], "token": "sidecar_0123"}

    def revoke(self, name: str, author: str) -> Document:
        if name not in self.rows:
            raise ConfigRefused(404, f"there is no token '{name}'", "`sidecar token list` shows them")
        return {**self.rows.pop(name), "revoked_time": d.NOW, "revoked_by": author}


class MemoryControl:
    """Answers from literal documents; remembers commands; keeps overrides and one config version's number."""

    def __init__(self) -> None:
        self.commands: list[Asking] = []
        self.kept: list[Sequence[Write]] = []
        self.settled = 0
        self.tapes = MemoryTapes()
        self.learning = MemoryProposals()
        self.taps = MemoryTaps()
        self.keyring = MemoryKeys()
        self.answers = Answers(self.store)
        self.applied: list[tuple[str, str, str, bool, float | None]] = []
        self.version_now = 7
        self.set_overrides: dict[str, Document] = {d.OVERRIDE["scope"]: d.OVERRIDE}
        self.valid_tokens: list[Token] = [token(role) for role in SECRETS]
        self.happened: list[Document] = [d.APPLY_EVENT, d.EVENT]
        self.more = asyncio.Condition()
        self.broken: Exception | None = None

    def __repr__(self) -> str:
        return f"<MemoryControl {len(self.commands)} commands, version {self.version_now}>"

    async def store(self, writes: Sequence[Write]) -> None:
        self.kept.append(writes)

    async def stored(self) -> bool:
        self.settled += 1
        return True

    def status(self) -> Document:
        if self.broken:
            raise self.broken
        return d.STATUS

    def controls(self) -> Sequence[Document]:
        return d.CONTROLS

    def routes(self) -> Sequence[Document]:
        return [d.ROUTE, d.QUIET_ROUTE]

    def series(self, route: str, window_s: float, step_s: float) -> Document | None:
        return {**d.SERIES, "step_s": step_s} if route == "checkout" else None

    def silences(self) -> Sequence[Document]:
        return [d.SILENCE]

    def drills(self) -> Sequence[Document]:
        return [d.DRILL]

    def isolations(self) -> Sequence[Document]:
        return [d.ISOLATION]

    def decision(self, decision_id: str) -> Document | None:
        return d.DECISION if decision_id == d.DECISION["id"] else None

    async def incidents(self, state: str | None, limit: int, cursor: str | None) -> Page:
        wanted = [d.INCIDENT] if state in (None, "open") and cursor is None else []
        return Page(wanted[:limit])

    async def incident(self, incident_id: int) -> Document | None:
        return d.INCIDENT if incident_id == 12 else None

    async def evidence(self, incident_id: int) -> Document | None:
        return d.EVIDENCE if incident_id == 12 else None

    async def postmortem(self, incident_id: int) -> str | None:
        return d.POSTMORTEM if incident_id == 12 else None

    async def report(self, incident_id: int) -> str | None:
        return d.REPORT if incident_id == 12 else None

    def overrides(self) -> Sequence[Document]:
        return list(self.set_overrides.values())

    async def command(self, command: Asking) -> Done | Rejected:  # noqa: C901, PLR0912  a case a command
        self.commands.append(command)
        match command:
            case SetOverride():
                row = {
                    **d.OVERRIDE, "scope": str(command.scope), "action": _action(command), "reason": command.reason,
                    "author": command.author,
                }  # fmt: skip
                self.set_overrides[str(command.scope)] = row
                return Done(row)
            case ClearOverride():
                ended = self.set_overrides.pop(str(command.scope), None)
                if ended is None:
                    return Rejected(RejectedKind.NOT_FOUND, f"no override on {command.scope}", "see override list")
                return Done(ended)
            case Promote() | Demote() | Missed():
                if command.control != d.RECORD["control"]:
                    return Rejected(
                        RejectedKind.NOT_FOUND, f"there is no control '{command.control}'", "see control list"
                    )
                return Done({"items": [d.RECORD]})
            case Tune():
                return Rejected(RejectedKind.CONFLICT, "nobody asks for that", "")
            case AddSilence():
                return Done({**d.SILENCE, "scope": str(command.scope), "reason": command.reason})
            case EndSilence():
                if command.silence != d.SILENCE["id"]:
                    return Rejected(
                        RejectedKind.NOT_FOUND, f"no silence {command.silence} is in force", "see silence list"
                    )
                return Done(d.SILENCE)
            case StartDrill() | StopDrill():
                if isinstance(command, StartDrill) and command.route != d.DRILL["route"]:
                    return Rejected(RejectedKind.NOT_FOUND, f"there is no route '{command.route}'", "see /routes")
                return Done(d.DRILL)
            case CloseBreaker():
                return Done({"route": command.route, "breaker": "closed"})
            case _:
                return self._incident(command.incident)

    def _incident(self, number: int) -> Done | Rejected:
        if number == 12:
            return Done(d.INCIDENT)
        if number == 13:
            return Rejected(RejectedKind.CONFLICT, "incident 13 is closed", "see incident show 13")
        return Rejected(RejectedKind.NOT_FOUND, f"there is no incident {number}", "see incident list")

    def client_key(self, header_value: str) -> str:
        return "h-" + hashlib.sha256(header_value.encode()).hexdigest()[:16]

    def config(self) -> Document:
        return {**d.CONFIG, "version": self.version_now}

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
        if if_match != self.version_now:
            raise ConfigRefused(412, f"the active version is {self.version_now}", "read it again")
        if "bad" in text:
            rows = [{"path": "bad", "line": 1, "column": 1, "problem": "unknown key", "hint": "remove it"}]
            raise ConfigRefused(422, "1 error", "correct it", rows)
        self.applied.append((text, author, reason, dry_run, confirm_within_s))
        if not dry_run:
            self.version_now += 1
        return {**d.APPLIED, "version": self.version_now, "dry_run": dry_run}

    async def confirm(self, author: str) -> Document:
        raise ConfigRefused(409, "no version waits for confirmation", "nothing to do")

    async def rollback(self, to: int | None, *, author: str, reason: str) -> Document:
        if to is not None and to > self.version_now:
            raise ConfigRefused(404, f"there is no version {to}", "see config history")
        self.version_now += 1
        return {**d.APPLIED, "version": self.version_now}

    async def versions(self, limit: int, cursor: str | None) -> Page:
        return Page([d.VERSION, d.OLDER][:limit], "6" if limit == 1 else None)

    async def version(self, number: int) -> Document | None:
        return {6: d.OLDER, 7: d.VERSION}.get(number)

    async def diff(self, older: int | None, newer: int | None, replay_s: float | None) -> Document:
        for number in (older, newer):
            if number is not None and number > self.version_now:
                raise ConfigRefused(404, f"there is no version {number}", "see config history")
        return d.DIFF

    async def audit(self, limit: int, cursor: str | None) -> Page:
        return Page(self.happened[::-1][:limit])

    async def verify(self) -> Document:
        return {"ok": True, "rows": len(self.happened), "first_bad": None, "problem": None}

    async def events(self, last_id: int | None) -> AsyncIterator[Document]:
        seen = len(self.happened) if last_id is None else sum(e["sequence"] <= last_id for e in self.happened)
        while True:
            async with self.more:
                await self.more.wait_for(lambda after=seen: len(self.happened) > after)
            yield self.happened[seen]
            seen += 1

    async def happen(self, event: Document) -> None:
        """Append one event and tell the streams."""
        async with self.more:
            self.happened.append(event)
            self.more.notify_all()

    async def notify_test(self, name: str) -> Document | None:
        if name != d.RECEIVER["name"]:
            return None
        return {"name": name, "type": "webhook", "ok": True, "attempts": 1, "problem": ""}

    def tokens(self) -> Sequence[Token]:
        return self.valid_tokens
