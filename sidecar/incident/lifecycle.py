"""
An incident: one cause, what it did, what was done about it, and what a person said.

Theory
    Three things are independent and never mixed: the *state* (where the work stands), the *verdict* (what a person
    said it was) and the *resolution* (how it ended). An incident ends by evidence or by a person, never by a timer on a
    signal that still sounds. Whatever comes back within `FOLD_S` is the same incident: it is reopened and its flap
    counter rises, so that a flapping service is one page and not forty.

Tables
    open → acknowledged           a person looks;  back to open when nothing is heard of them for 15 min
    open, acknowledged → mitigated    the recovery of its isolation has begun;  back when a step fails
    open, acknowledged, mitigated → resolved    recovered | released | superseded | expired
    resolved → closed             a person has done what was left
    resolved → open               the same scope is abnormal again within `FOLD_S`: a flap

What can go wrong
    Two detectors see one cause: claims are kept by detector and scope, and a second one joins.
    A route breaks while one of its clients has an incident: the older incident widens, so that one cause is one number.
    A restart: `to_store` holds every field, wall moments rule, because an incident is for people.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from sidecar.facts import Action, Detector, Moment, Scope, Signal

FOLD_S: Final = 300.0  # behaviour.md: signals on the same scope within 5 min are one cause
QUIET_SCORE: Final = 0.2  # detection.md: an alarm closes below 0.2·h
IDLE_S: Final = 5.0
SPEAKING: Final = 20  # requests from which a ratio says something
MAX_CLAIMS: Final = 12


class IncidentState(StrEnum):
    """Where the work stands."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    MITIGATED = "mitigated"
    RESOLVED = "resolved"
    CLOSED = "closed"


class Verdict(StrEnum):
    """What a person said that it is."""

    PENDING = "pending"
    CONFIRMED = "confirmed"
    FALSE_POSITIVE = "false_positive"
    BENIGN = "benign"


class Resolution(StrEnum):
    """How it ended."""

    RECOVERED = "recovered"
    RELEASED = "released"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"


class Severity(StrEnum):
    """Severe pages at once."""

    WARNING = "warning"
    SEVERE = "severe"


RUNNING: Final = frozenset({IncidentState.OPEN, IncidentState.ACKNOWLEDGED, IncidentState.MITIGATED})


@dataclass(frozen=True, slots=True)
class Claim:
    """
    One signal as its incident remembers it.

    Attributes:
        signal: As it was when last heard.
        worst: As it was when it was furthest from normal, on at least `SPEAKING` requests if it ever had as many; its
            `excess` is the most that there was.
        since: Its onset, on both clocks.
        heard: The last moment at which it sounded above the clear level and did not only fade.
        sounding: It is in alarm now.
    """

    signal: Signal
    worst: Signal
    since: Moment
    heard: Moment
    sounding: bool = True

    @property
    def key(self) -> tuple[Detector, Scope]:
        """Return what tells claims apart."""
        return self.signal.detector, self.signal.scope


@dataclass(frozen=True, slots=True)
class Suspect:
    """
    A config version that was applied shortly before the onset and touches the scope.

    Attributes:
        version, author, source, unix: Of the applied version.
        back_to: The version that was active before; what `sidecar config rollback` would restore.
        changes: Rows {path, old, new}, secrets masked.
    """

    version: int
    back_to: int
    author: str
    source: str
    unix: float
    changes: tuple[dict[str, object], ...] = ()


@dataclass(frozen=True, slots=True)
class Proposal:
    """What automation did, would have done, or waits to be told to do."""

    scope: Scope
    action: Action
    share_ratio: float


@dataclass(frozen=True, slots=True)
class Narrowest:
    """
    The part of an incident's scope that explains it: `dimension` is `client`, `path`, `endpoint` or `method`.

    Attributes:
        share_ratio: Its part of the change.
        requests, failures: Its own, at the moment of detection.
    """

    dimension: str
    name: str
    share_ratio: float
    requests: int
    failures: int


@dataclass(frozen=True, slots=True)
class Affected:
    """
    Who is affected: ranked (name, requests, failures), the heaviest first, at the moment of detection.

    Attributes:
        share_ratio: Requests of the scope among all requests of its routes.
        method: The one method that explains the change; empty when several do.
        narrowest: What within the scope it is; None when it is all of it.
    """

    share_ratio: float = 0.0
    requests: int = 0
    failures: int = 0
    method: str = ""
    clients: tuple[tuple[str, int, int], ...] = ()
    paths: tuple[tuple[str, int, int], ...] = ()
    narrowest: Narrowest | None = None


@dataclass(frozen=True, slots=True)
class Impact:
    """
    What it cost so far.

    Attributes:
        failed: Requests of the scope that the upstream failed.
        refused: Requests that our isolations refused.
        judged: Of `refused`, those for which trial traffic of the same seconds says how they would have ended.
        spared: Of `judged`, the expected number that would have succeeded.
        seconds: With at least one failed or refused request.
    """

    failed: int = 0
    refused: int = 0
    judged: int = 0
    spared: float = 0.0
    seconds: int = 0

    @property
    def would_have_succeeded_ratio(self) -> float | None:
        """Return the collateral: the part of the refused that would have succeeded; None while no trial says it."""
        return self.spared / self.judged if self.judged else None


@dataclass(frozen=True, slots=True)
class Ticked:
    """A step of the runbook that a person has done, by its text: the list changes with the leading signal."""

    text: str
    author: str
    unix: float


@dataclass(frozen=True, slots=True)
class Incident:
    """
    One incident.

    Attributes:
        opened, onset: When it was detected, and when it began.
        acknowledged, acknowledged_by, spoke: Who looks, since when, and when they last said something.
        unanswered: Since when the question is unanswered; the ladder counts from here.
        rungs: Rungs of the ladder that have been climbed.
        isolated, mitigated, resolved, closed: When each happened first (resolved and closed: last).
        suspect, rolled_back: The first suspect; whether automation has rolled it back (once at most).
        proposal: See there. `ruling`: why automation did not isolate; empty when it did.
        quote: An old verdict on the same fingerprint, quoted.
        drill: It was made by a drill: nobody is paged, nothing is learnt from it.
        observed: A would-have incident of detectors that only observe: nobody is told, nothing is done.
        ticks: Steps of the runbook that were done.
        idle: No request of its routes came or waited for `IDLE_S`: what is said of them is past.
        budget_reached: More passes than the policy's share, because of the blast-radius budget.
    """

    id: int
    scope: Scope
    opened: Moment
    onset: Moment
    unanswered: Moment
    state: IncidentState = IncidentState.OPEN
    verdict: Verdict = Verdict.PENDING
    resolution: Resolution | None = None
    severity: Severity = Severity.WARNING
    claims: tuple[Claim, ...] = ()
    isolations: tuple[str, ...] = ()
    acknowledged: Moment | None = None
    acknowledged_by: str = ""
    spoke: Moment | None = None
    rungs: int = 0
    isolated: Moment | None = None
    mitigated: Moment | None = None
    resolved: Moment | None = None
    closed: Moment | None = None
    flaps: int = 0
    suspect: Suspect | None = None
    rolled_back: bool = False
    proposal: Proposal | None = None
    ruling: str = ""
    quote: str = ""
    budget_reached: bool = False
    idle: bool = False
    drill: bool = False
    observed: bool = False
    ticks: tuple[Ticked, ...] = ()
    affected: Affected = field(default_factory=Affected)
    impact: Impact = field(default_factory=Impact)

    def __repr__(self) -> str:
        return f"<incident {self.id} {self.scope} {self.state} {self.verdict}>"

    @property
    def running(self) -> bool:
        """Tell whether it still asks for anything."""
        return self.state in RUNNING

    @property
    def lead(self) -> Claim:
        """Return the claim that says most about what is wrong: on the incident's own scope if there is one."""
        return min(self.claims, key=lambda c: (c.signal.scope != self.scope, _RANK.index(c.signal.detector)))

    @property
    def detectors(self) -> tuple[Detector, ...]:
        """Name who claims it, in order of weight."""
        return tuple(d for d in _RANK if any(claim.signal.detector is d for claim in self.claims))

    def quiet_s(self, now: Moment) -> float:
        """Return the seconds since any of its signals was last heard."""
        return now.at - max((claim.heard.at for claim in self.claims), default=self.opened.at)


_RANK: Final = (
    Detector.ERRORS, Detector.LATENCY, Detector.TRIP, Detector.REFUSALS, Detector.SURGE, Detector.SILENCE,
    Detector.BURN, Detector.DRIFT,
)  # fmt: skip


def hear(incident: Incident, signals: tuple[Signal, ...], now: Moment) -> Incident:
    """Take this second's signals: known claims are updated, new ones join, missing ones have stopped sounding."""
    known = {claim.key: replace(claim, sounding=False) for claim in incident.claims}
    for signal in signals:
        key = (signal.detector, signal.scope)
        since = Moment(signal.since_at, now.unix - (now.at - signal.since_at))
        old = known.get(key)
        loud = signal.score >= QUIET_SCORE * signal.threshold and not signal.fading
        heard = now if loud or old is None else old.heard
        # The first onset stays: a signal that falls silent and sounds again is the same claim.
        worst = _worse(old.worst, signal) if old else signal
        if old is not None:
            worst = replace(worst, excess=max(old.worst.excess, signal.excess))
        known[key] = Claim(signal, worst, old.since if old else since, heard)
    severe = any(signal.severe for signal in signals)
    severity = Severity.SEVERE if severe else incident.severity
    claims = sorted(known.values(), key=lambda claim: claim.heard.at, reverse=True)[:MAX_CLAIMS]
    return replace(incident, claims=tuple(sorted(claims, key=lambda claim: claim.since.at)), severity=severity)


def _worse(old: Signal, new: Signal) -> Signal:
    if new.detector is Detector.SILENCE:  # the fewer requests, the worse: no request at all says the most
        return new if new.value < old.value else old
    if new.detector is Detector.TRIP:  # a breaker needs no sample, and what came after its opening says nothing of it
        return new if new.value > old.value else old
    if (old.sample >= SPEAKING) != (new.sample >= SPEAKING):
        return old if old.sample >= SPEAKING else new
    return new if new.value - new.baseline > old.value - old.baseline else old


def acknowledge(incident: Incident, author: str, now: Moment) -> Incident:
    """Somebody looks: the ladder stops. A mitigated incident stays mitigated."""
    state = IncidentState.ACKNOWLEDGED if incident.state is IncidentState.OPEN else incident.state
    return replace(incident, state=state, acknowledged=incident.acknowledged or now, acknowledged_by=author, spoke=now)


def withdraw(incident: Incident, now: Moment) -> Incident:
    """The person who acknowledged it has gone quiet: the question is open again and the ladder starts anew."""
    state = IncidentState.OPEN if incident.state is IncidentState.ACKNOWLEDGED else incident.state
    return replace(incident, state=state, acknowledged_by="", spoke=None, unanswered=now, rungs=0)


def mitigate(incident: Incident, now: Moment) -> Incident:
    """The recovery has begun."""
    return replace(incident, state=IncidentState.MITIGATED, mitigated=incident.mitigated or now)


def relapse(incident: Incident) -> Incident:
    """The recovery has failed at its first step."""
    state = IncidentState.ACKNOWLEDGED if incident.acknowledged_by else IncidentState.OPEN
    return replace(incident, state=state)


def resolve(incident: Incident, resolution: Resolution, now: Moment) -> Incident:
    """It has ended: whatever still sounds is the fading of its alarm."""
    claims = tuple(replace(claim, sounding=False) for claim in incident.claims)
    return replace(incident, state=IncidentState.RESOLVED, resolution=resolution, resolved=now, claims=claims)


def close(incident: Incident, now: Moment) -> Incident:
    """A person has done what was left."""
    return replace(incident, state=IncidentState.CLOSED, closed=now)


def reopen(incident: Incident, now: Moment) -> Incident:
    """The same cause is back: one flap more, the question is asked anew, and what a person confirmed stays so."""
    return replace(
        incident,
        state=IncidentState.OPEN,
        resolution=None,
        resolved=None,
        acknowledged_by="",
        spoke=None,
        unanswered=now,
        rungs=0,
        flaps=incident.flaps + 1,
    )


def widen(incident: Incident, scope: Scope) -> Incident:
    """Its cause reaches further than was seen at first."""
    return replace(incident, scope=scope)
