"""
What incidents teach, as proposals that a person applies or dismisses.

Theory
    When an incident has ended, and again whenever a person says what it was, it is studied: the stored history is
    replayed with a few changed settings (`studying.py`, beside the controller). What is worth a person's time becomes a
    proposal. Nothing is changed without a person: `apply` makes a new config version of the text that runs *then*, with
    the proposal's settings in it, which reverts by itself unless it is confirmed.

Tables
    open → applied       a version was made of it, or its rule is in force
    applied → open       its version was not confirmed and reverted
    applied → applied    a later version has taken it out, and a person wants it again
    open → dismissed     a person said no;  applied → dismissed: a rule is lifted
    open → superseded    its incident was studied again

What can go wrong
    The text changed since: the settings are put into the present text; where they have no place any more it is a
    conflict that says so. The study fails or takes too long: it is logged, nothing is proposed. The store is down:
    proposals live in memory and are stored when it is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import structlog

from sidecar import clock
from sidecar.config.diff import Change, diff
from sidecar.config.edit import EditError, put
from sidecar.config.errors import ConfigError
from sidecar.controller.commands import Tune
from sidecar.controller.configuring import Configuring
from sidecar.controller.effects import AppendEvent, PutProposal, Write
from sidecar.controller.ports import ConfigRefused, Document
from sidecar.controller.replaying import ReplayError, Replays
from sidecar.incident.learn import predicted
from sidecar.incident.rules import Rule
from sidecar.incident.words import rfc3339
from sidecar.replay.learned import Learned

STUDIED: Final = frozenset(
    ("incident.resolved", "verdict.confirmed", "verdict.false_positive", "verdict.benign")
)  # after these events
CONFIRM_WITHIN_S: Final = 120.0
DAY_S: Final = 86_400.0
LONGEST_DAYS: Final = 7
MAX_KEPT: Final = 200
PRIVATE: Final = ("settings",)

Incidents = Callable[[], Awaitable[Sequence[Document]]]


class Learning:
    """
    Studies incidents and keeps the proposals.

    Args:
        configuring: Applies.
        replays: Studies.
        put_: Where proposals and their events are stored.
        incidents: Returns the incidents, the newest first, in their public shape.
        learned: Returns what verdicts have taught.
        teach: Carries a step out.
    """

    def __init__(
        self,
        configuring: Configuring,
        replays: Replays,
        put_: Callable[[Sequence[Write]], None],
        incidents: Incidents,
        learned: Callable[[], Learned],
        teach: Callable[[Tune], object],
    ) -> None:
        self._configuring = configuring
        self._replays = replays
        self._put = put_
        self._incidents = incidents
        self._learned = learned
        self._teach = teach
        self._proposals: dict[int, dict[str, Any]] = {}
        self._next = 1
        self._waiting: dict[int, None] = {}
        self._news = asyncio.Event()
        self._log = structlog.get_logger("learning")
        configuring.judge = self.faults
        configuring.on_changed = self.settle

    def __repr__(self) -> str:
        return f"<Learning {len(self._proposals)} proposals, {len(self._waiting)} incidents wait>"

    def restore(self, documents: Sequence[Document]) -> None:
        """Go on with what the store kept, the newest first."""
        self._proposals = {row["id"]: dict(row) for row in reversed(documents)}
        self._next = max(self._proposals, default=0) + 1
        self.settle()

    def settle(self) -> None:
        """Open again what was applied as a version that has reverted."""
        for row in self._proposals.values():
            version = (
                self._configuring.version(row["version"]) if row["state"] == "applied" and row["version"] else None
            )
            if version is not None and version.state == "reverted":
                why = f"version {row['version']} was not confirmed and reverted"
                row |= {"state": "open", "decided_time": None, "decided_by": None, "reason": why, "version": None}
                self._keep(row, "proposal.reopened", "automation", {"reason": why})

    # --- studying ---------------------------------------------------------------------------------------------------

    def heard(self, event: AppendEvent) -> None:
        """Take note of what happened; an incident that has ended, or was judged, is studied soon."""
        if event.kind in STUDIED and event.incident is not None:
            self._waiting[event.incident] = None
            self._news.set()

    async def run(self) -> None:
        """Study what waits, one incident after another, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                number = next(iter(self._waiting))
                del self._waiting[number]
                try:
                    await self._study(number)
                except ReplayError as error:
                    self._log.warning("an incident could not be studied", incident=number, problem=str(error))
                except Exception:  # what one incident teaches must not end the learning from others
                    self._log.exception("the study of an incident failed", incident=number)

    async def _study(self, number: int) -> None:
        past = await self._incidents()
        incident = next((row for row in past if row["id"] == number), None)
        if incident is None or incident["resolved_time"] is None or incident.get("drill") or incident.get("observed"):
            return
        from sidecar.controller.studying import Study  # noqa: PLC0415  a start needs no replay

        active = self._configuring.active
        routes = tuple(rule.name for rule in active.compiled.proxy.routes)
        window_s = DAY_S * min(max(LONGEST_DAYS / len(routes), 1.0), LONGEST_DAYS)
        material = await self._replays.material(window_s, routes)
        source = self._configuring.source
        environ, flags = dict(source.environ), dict(source.flags)
        asked = Study(material, incident, tuple(past), active.row.text, environ, flags, self._learned())
        lesson = await self._replays.study(asked)
        self._propose(number, lesson.proposals)
        for step in lesson.steps:
            self._teach(Tune(number, step.route, step.detector, step.hidden, step.hides_confirmed))

    def _propose(self, number: int, found: Sequence[Mapping[str, Any]]) -> None:
        known = [row for row in self._proposals.values() if row["incident"] == number]
        decided = [row["settings"] or row["rule"] for row in known if row["state"] in ("applied", "dismissed")]
        for row in known:
            if row["state"] == "open":
                self._decide(row, "superseded", "automation", "")
        for made in found:
            if (made["settings"] or made["rule"]) in decided:
                continue
            row = {
                "id": self._next, "incident": number, "state": "open", "made_time": _now(), "decided_time": None,
                "decided_by": None, "reason": None, "version": None, **made,
            }  # fmt: skip
            self._next += 1
            self._keep(row, "proposal.made", "automation", {"kind": made["kind"], "why": made["why"]})

    # --- reading ----------------------------------------------------------------------------------------------------

    def proposals(self, state: str | None) -> list[Document]:
        """Return the proposals, the newest first."""
        rows = sorted(self._proposals.values(), key=lambda row: -row["id"])
        return [_public(row) for row in rows if state is None or row["state"] == state]

    def proposal(self, number: int) -> Document | None:
        """Return one proposal."""
        row = self._proposals.get(number)
        return None if row is None else _public(row)

    # --- deciding ---------------------------------------------------------------------------------------------------

    async def apply(self, number: int, author: str, confirm_within_s: float | None) -> Document:
        """
        Make a new version of it, or put its rule in force.

        Raises:
            ConfigRefused: 404, 409, or as an apply of its text.
        """
        row = self._known(number)
        if row["state"] != "open" and (row["state"] != "applied" or row["rule"] is not None):
            raise _decided(row)
        if row["rule"] is not None:
            return self._decide(row, "applied", author, "")
        text = self._text(row)
        active = self._configuring.active.version
        reason = f"proposal {number}: {row['why']}"[:500]
        applied = await self._configuring.apply(
            text, author=author, reason=reason, if_match=active, dry_run=False, source="proposal",
            confirm_within_s=CONFIRM_WITHIN_S if confirm_within_s is None else confirm_within_s,
        )  # fmt: skip
        row["version"] = applied["version"]
        return {**self._decide(row, "applied", author, ""), "applied": applied}

    def dismiss(self, number: int, author: str, reason: str) -> Document:
        """
        Say no to it; lifts a rule that is in force.

        Raises:
            ConfigRefused: 404, or 409 when it was decided already.
        """
        row = self._known(number)
        lifted = row["state"] == "applied" and row["rule"] is not None
        if row["state"] != "open" and not lifted:
            raise _decided(row)
        return self._decide(row, "dismissed", author, reason)

    def faults(self, changes: Sequence[Change]) -> list[ConfigError]:
        """Return what the rules in force say against *changes*."""
        rules = [row for row in self._proposals.values() if row["state"] == "applied" and row["rule"] is not None]
        return [fault for row in rules for change in changes if (fault := _fault(row, change)) is not None]

    def _known(self, number: int) -> dict[str, Any]:
        row = self._proposals.get(number)
        if row is None:
            raise ConfigRefused(404, f"there is no proposal {number}", "`sidecar proposal list` shows them")
        return row

    def _text(self, row: Mapping[str, Any]) -> str:
        active = self._configuring.active.row.text
        text = active
        try:
            for path, value in row["settings"]:
                text = put(text, path, value)
        except EditError as error:
            raise ConfigRefused(
                409,
                f"proposal {row['id']} does not fit the active text: {error}",
                "change it by hand: config apply FILE",
            ) from error
        if not diff(active, text):
            if row["state"] == "applied":
                raise _decided(row)
            raise ConfigRefused(
                409, f"proposal {row['id']} changes nothing any more", f"sidecar proposal dismiss {row['id']}"
            )
        return text

    def _decide(self, row: dict[str, Any], state: str, author: str, reason: str) -> Document:
        row |= {"state": state, "decided_time": _now(), "decided_by": author, "reason": reason or None}
        self._keep(row, f"proposal.{state}", author, {"version": row["version"], "reason": reason})
        return _public(row)

    def _keep(self, row: dict[str, Any], kind: str, author: str, body: Mapping[str, Any]) -> None:
        self._proposals[row["id"]] = row
        facts = {"id": row["id"], **{key: value for key, value in body.items() if value not in (None, "")}}
        event = AppendEvent(kind, clock.wall().timestamp(), author, row["incident"], "", facts)
        self._put([PutProposal(row["id"], row["state"], dict(row)), event])
        while len(self._proposals) > MAX_KEPT:
            del self._proposals[min(self._proposals)]


def _now() -> str:
    return rfc3339(clock.wall().timestamp())


def _public(row: Mapping[str, Any]) -> dict[str, Any]:
    shown = {key: value for key, value in row.items() if key not in PRIVATE}
    shown["effect"] = {**row["effect"], "words": predicted(row["kind"], row["effect"])}
    if row["rule"] is not None:
        shown["rule"] = {**row["rule"], "words": Rule.from_json(row["rule"]).words}
    return shown


def _decided(row: Mapping[str, Any]) -> ConfigRefused:
    place = f" as version {row['version']}" if row["version"] else ""
    hint = "`sidecar config history` shows it" if place else "`sidecar proposal list --state open`"
    return ConfigRefused(409, f"proposal {row['id']} is {row['state']}{place}", hint)


def _fault(row: Mapping[str, Any], change: Change) -> ConfigError | None:
    rule = Rule.from_json(row["rule"])
    if not rule.forbids(change.path, change.new):
        return None
    return ConfigError(
        change.path, 0, 0,
        f"{change.new} is below the {rule} that normal traffic needs: incident {row['incident']} began so",
        f"write {rule} or more, or lift the rule: sidecar proposal dismiss {row['id']}", "config",
    )  # fmt: skip
