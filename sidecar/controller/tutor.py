"""
What people's verdicts do to the detectors: thresholds, scorecards, demotions.

Theory
    Thresholds and records are kept by (route, detector): whom the incident's claims came from. A confirmation moves
    the threshold down at once. A false positive first makes silent what is no larger than it was (`size.py`), and moves the
    threshold up only after the stored history was replayed with it (`learning.py` asks for that, and comes back with `Tune`): a step
    that would have hidden a confirmed incident is not taken. A detector whose precision falls below one half is demoted
    to observe, until a person promotes it. One that observes, by a demotion or by the config, is heard: what it would
    have raised is a would-have incident, of which nobody is told and for which nothing is done. How far those agree with
    what people said, of them or of other incidents about the same at the time, stands in its shadow record.

What can go wrong
    A verdict is changed: its old step is taken back first. A control that is no detector has its mode from the config:
    promoting it is a conflict that says which setting to change. A controller is killed: at most a minute of a shadow record
    is lost, never when it began.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Any, Final

from sidecar.controller.book import Book
from sidecar.controller.commands import Demote, Done, Missed, Promote, Rejected, Tune
from sidecar.controller.effects import PutMark
from sidecar.decide.lease import AUTOMATION
from sidecar.decide.policies import ListenPolicy
from sidecar.decide.size import Sizes, silent_words, size_of
from sidecar.detect.bank import Bank
from sidecar.detect.tuning import SERVICE, STEPS, Key, Tuning
from sidecar.facts import Detector, Mode, Moment, Scope, ScopeKind, Signal
from sidecar.incident.lifecycle import Incident, Verdict
from sidecar.incident.scorecard import CONFIG, Judgement, Scorecard

MARK_TUNING: Final = "engine.tuning"
MARK_SCORECARDS: Final = "engine.scorecards"
PREFIX: Final = "detect."
SERVICE_WORD: Final = "service"
_CONFIGURED: Final = {  # controls whose mode is a setting, and which
    "limit.service": "service.limit.mode",
    "limit.route": "routes.ROUTE.limit.mode",
    "limit.per_client": "routes.ROUTE.limit.mode",
    "concurrency.service": "service.concurrency.mode",
    "concurrency": "routes.ROUTE.concurrency.mode",
    "breaker": "routes.ROUTE.breaker.mode",
    "rearrivals": "service.rearrivals",
    "respond.isolation": "respond.mode",
    "respond.rollback": "respond.rollback",
}


def key_of(signal: Signal) -> Key:
    """Return whose claim it is: the route's detector, or the service's."""
    return _whose(signal.scope), signal.detector


def _whose(scope: Scope) -> str:
    return SERVICE if scope.kind in (ScopeKind.SERVICE, ScopeKind.ENDPOINT) else scope.name


class Tutor:
    """
    Keeps tuning and scorecards.

    Args:
        book: Where changes are stored and told.
        bank: Whose thresholds move.

    Attributes:
        tuning: In force.
        cards: By (route, detector).
        audible, observed: This second's signals of those that are listened to, and of those that only observe.
    """

    def __init__(self, book: Book, bank: Bank) -> None:
        self._book = book
        self._bank = bank
        self._heard: frozenset[Key] = frozenset()
        self._stored: dict[Key, Scorecard] = {}
        self._listen = ListenPolicy()
        self._growing: set[int] | None = None
        self.tuning = Tuning()
        self.cards: dict[Key, Scorecard] = {}
        self.audible: tuple[Signal, ...] = ()
        self.observed: tuple[Signal, ...] = ()

    def __repr__(self) -> str:
        return f"<Tutor {len(self.cards)} scorecards, {len(self.demoted)} demoted>"

    @property
    def demoted(self) -> frozenset[Key]:
        """Return whom nobody listens to now."""
        return frozenset(key for key, card in self.cards.items() if card.demoted is not None)

    def mode_of(self, key: Key) -> Mode:
        """Return how far this detector is listened to now: as the config says, and only observing while it is demoted."""
        mode = self._listen.mode_of(*key)
        return Mode.OBSERVE if mode is Mode.ENFORCE and key in self.demoted else mode

    def deaf(self, key: Key) -> tuple[str, str]:
        """Return why a detector that does not enforce does not, and what makes it enforce again."""
        mode = self._listen.mode_of(*key)
        if mode is Mode.ENFORCE:
            return f"{name_of(key)} is demoted", f"sidecar control promote {name_of(key)}"
        state = "is off" if mode is Mode.OFF else "only observes"
        return f"{name_of(key)} {state} by the config", f"set {self._setting(key)} to enforce and apply it"

    @property
    def sizes(self) -> Sizes:
        """Return how large the incidents were that people judged."""
        return self._book.sizes

    def start(self, tuning: Tuning, demoted: Collection[Key], sizes: Sizes, unix: float) -> None:
        """Begin with what was learnt elsewhere: for a replay."""
        self.tuning = tuning
        self._book.put_sizes(sizes)
        self._bank.tune(tuning)
        self.cards = {key: Scorecard().demote(unix, AUTOMATION) for key in demoted}

    def restore(self, marks: Mapping[str, str]) -> None:
        """Take up what the store kept."""
        if MARK_TUNING in marks:
            self.tuning = Tuning.from_json(json.loads(marks[MARK_TUNING]))
            self._bank.tune(self.tuning)
        for route, name, row in json.loads(marks.get(MARK_SCORECARDS, "[]")):
            self.cards[route, Detector(name)] = Scorecard.from_json(row)
        self._stored = dict(self.cards)
        self._heard = self.demoted  # what sounds in the first second was counted before

    # --- every second -----------------------------------------------------------------------------------------------

    def listen(self, policy: ListenPolicy, whole: Mode = Mode.ENFORCE) -> None:
        """
        Listen as the config says from now on; a detector that it no longer lets observe is listened to again.

        Args:
            policy: Of single detectors.
            whole: Of detection; while all of it only observes, nobody is paged.
        """
        self._listen, self._book.pages_people = policy, whole is Mode.ENFORCE
        for key, card in self.cards.items():
            if card.by == CONFIG and policy.mode_of(*key) is Mode.ENFORCE:
                self.cards[key] = card.heard_again()

    def listened(self, signals: Sequence[Signal], now: Moment) -> tuple[Signal, ...]:
        """Return the *signals* of detectors that are not off, and part them into those that raise and those that would."""
        self._measure()
        modes = {key: self._listen.mode_of(*key) for key in map(key_of, signals)}
        for key in [key for key, mode in modes.items() if mode is Mode.OBSERVE and key not in self.demoted]:
            self.cards[key] = self.cards.get(key, Scorecard()).demote(now.unix, CONFIG)
            self.save()
        quiet = self.demoted & modes.keys()
        heard = tuple(signal for signal in signals if modes[key_of(signal)] is not Mode.OFF)
        self.audible = tuple(signal for signal in heard if key_of(signal) not in quiet)
        self.observed = tuple(signal for signal in heard if key_of(signal) in quiet)
        sounding = frozenset(key_of(signal) for signal in self.observed)
        for key in sounding:
            self.cards[key] = self.cards[key].shadow(began=key not in self._heard)
        self._heard = sounding
        return heard

    def _measure(self) -> None:
        """Take the size of what was confirmed while it went on, once it has ended."""
        incidents = self._book.incidents
        if self._growing is None:
            self._growing = {i.id for i in self._book.running() if i.verdict is Verdict.CONFIRMED}
        for number in [n for n in self._growing if n not in incidents or not incidents[n].running]:
            self._growing.remove(number)
            if number in incidents:
                self._weigh(incidents[number])

    # --- verdicts ---------------------------------------------------------------------------------------------------

    def judged(self, incident: Incident, now: Moment) -> None:
        """Take what a person said of *incident*."""
        said = incident.verdict
        if said is Verdict.PENDING or incident.drill:
            return
        self._weigh(incident)
        for key, claim in {key_of(claim.signal): claim for claim in incident.claims}.items():
            card = self.cards.get(key, Scorecard())
            old = card.of(incident.id)
            if old is not None and old.verdict == said.value:
                continue
            if old is not None and old.step:
                self.tuning = self.tuning.moved(*key, -old.step)
            step = STEPS["confirmed"] if said is Verdict.CONFIRMED else 0.0
            self.tuning = self.tuning.moved(*key, step) if step else self.tuning
            score = max(claim.worst.score, claim.signal.score)
            hushed_at = self.tuning.offset(*key) + score - claim.worst.threshold
            row = Judgement(incident.id, said.value, now.unix, *self._cost(incident, now), step, hushed_at)
            self.cards[key] = card.judge(row)
            self._look(key, now)
        self._store()

    def _weigh(self, incident: Incident) -> None:
        """Keep how large it was, as a person judged it."""
        real = incident.verdict is Verdict.CONFIRMED
        told = real or incident.verdict is Verdict.FALSE_POSITIVE
        claims = incident.claims if told else ()
        self._book.put_sizes(self._book.sizes.judged(incident.id, [size_of(incident, claim) for claim in claims]))
        if real and incident.running and self._growing is not None:
            self._growing.add(incident.id)

    def _cost(self, incident: Incident, now: Moment) -> tuple[float, int, float]:
        isolations = [self._book.isolations[name] for name in incident.isolations if name in self._book.isolations]
        refused_s = sum((i.ended or now).at - i.started.at for i in isolations)
        return incident.opened.at - incident.onset.at, self._book.pages[incident.id], max(refused_s, 0.0)

    def _look(self, key: Key, now: Moment) -> None:
        card = self.cards[key]
        silent = {row.incident for row in card.judged if self.sizes.learnt(row.incident, key[1])}
        if card.demoted is None and card.too_often_wrong(self.tuning.offset(*key), silent):
            self._demote(key, AUTOMATION, now)

    def _demote(self, key: Key, by: str, now: Moment) -> None:
        self.cards[key] = self.cards.get(key, Scorecard()).demote(now.unix, by)
        if any(key_of(signal) == key for signal in self.audible):
            self._heard |= {key}  # what sounds now was raised before
        body = {"control": name_of(key), "why": self.cards[key].words()}
        self._book.event("control.demoted", now, author=by, scope=_scope(key), body=body)

    # --- commands -----------------------------------------------------------------------------------------------------

    def carry_out(
        self, command: Promote | Demote | Missed | Tune, routes: Collection[str], now: Moment
    ) -> Done | Rejected:
        """Do what a person, or the replay of history, asks."""
        if isinstance(command, Tune):
            return self._tune(command, now)
        keys = self._keys(command.control, routes)
        if isinstance(keys, Rejected):
            return keys
        fixed = next((key for key in keys if self._listen.mode_of(*key) is not Mode.ENFORCE), None)
        if fixed is not None and not isinstance(command, Missed):
            problem = f"the mode of {name_of(fixed)} comes from the config"
            return Rejected.conflict(problem, f"set {self._setting(fixed)} and apply it")
        shadows = {}
        for key in keys:
            match command:
                case Promote():
                    card = self.cards.get(key, Scorecard())
                    shadow = shadows[key] = self.document(key)["record"]["demoted"]
                    self.cards[key] = card.promote(now.unix)
                    body = {"control": name_of(key), "shadow": shadow, "reason": command.reason}
                    self._book.event("control.promoted", now, author=command.author, scope=_scope(key), body=body)
                case Demote():
                    self._demote(key, command.author, now)
                case Missed():
                    self.tuning = self.tuning.moved(*key, STEPS["missed"])
                    self._forget(key)
                    body = {"control": name_of(key), "reason": command.reason}
                    self._book.event("verdict.missed", now, author=command.author, scope=_scope(key), body=body)
        self._store()
        return Done({"items": [{**self.document(key), "shadow": shadows.get(key)} for key in keys]})

    def _forget(self, key: Key) -> None:
        """Let nothing be silent any more because it, or what is as large, was called false."""
        about = [row for row in self.sizes.rows if (_whose(row.scope), row.detector) == key]
        self._book.put_sizes(self.sizes.forgotten(about))
        marks = self._book.marks
        false = [m for m in marks if m.verdict == "false_positive" and (_whose(m.scope), m.detector) == key]
        self._book.put_marks([mark for mark in marks if mark not in false])

    def _keys(self, control: str, routes: Collection[str]) -> list[Key] | Rejected:
        name, _, route = control.partition(":")
        hint = "`sidecar control list` shows the controls; name one as detect.errors:ROUTE"
        if (setting := _CONFIGURED.get(name)) is not None:
            problem = f"the mode of {name} comes from the config"
            return Rejected.conflict(problem, f"set {setting.replace('ROUTE', route or 'ROUTE')} and apply it")
        detector = next((each for each in Detector if name == f"{PREFIX}{each}"), None)
        if detector is None:
            return Rejected.not_found(f"there is no control '{name}'", hint)
        if route and route != SERVICE_WORD and route not in routes:
            return Rejected.not_found(f"there is no route '{route}'", f"the routes are {', '.join(routes)}")
        if route:
            return [(SERVICE if route == SERVICE_WORD and route not in routes else route, detector)]
        return [(each, detector) for each in routes]

    def _setting(self, key: Key) -> str:
        own = f"routes.{key[0]}." if key in self._listen.routes else ""
        return f"{own}detect.detectors.{key[1]}"

    def _tune(self, command: Tune, now: Moment) -> Done | Rejected:
        key = (command.route, command.detector)
        card = self.cards.get(key, Scorecard())
        old = card.of(command.incident)
        if old is None or old.verdict != Verdict.FALSE_POSITIVE.value or old.step:
            return Rejected.conflict("the verdict has changed meanwhile", "nothing to do")
        body = {"control": name_of(key), "hidden": command.hidden}
        if command.hides_confirmed:
            body["because"] = f"it would have hidden {command.hides_confirmed} confirmed"
            self._book.event("detect.tuning_withheld", now, incident=command.incident, scope=_scope(key), body=body)
        else:
            self.tuning = self.tuning.moved(*key, STEPS["false_positive"])
            self.cards[key] = card.judge(replace(old, step=STEPS["false_positive"]))
            body["offset"] = round(self.tuning.offset(*key), 3)
            self._book.event("detect.tuned", now, incident=command.incident, scope=_scope(key), body=body)
            self._store()
        return Done(self.document(key))

    # --- storing and showing --------------------------------------------------------------------------------------------

    def restate(self) -> None:
        """Store everything anew."""
        self._store()

    def _store(self) -> None:
        self._bank.tune(self.tuning)
        self._book.emit(PutMark(MARK_TUNING, json.dumps(self.tuning.to_json(), separators=(",", ":"))))
        self._store_cards()

    def save(self) -> None:
        """Store the scorecards if they changed: a shadow record grows every second, and is stored every minute."""
        if self.cards != self._stored:
            self._store_cards()

    def _store_cards(self) -> None:
        self._stored = dict(self.cards)
        rows = [[route, detector.value, card.to_json()] for (route, detector), card in sorted(self.cards.items())]
        self._book.emit(PutMark(MARK_SCORECARDS, json.dumps(rows, separators=(",", ":"))))

    def document(self, key: Key) -> dict[str, Any]:
        """Return one scorecard in its public shape."""
        card = self.cards.get(key, Scorecard())
        state = {"control": name_of(key), "route": key[0] or SERVICE_WORD, "detector": key[1].value}
        scopes = dict.fromkeys(row.scope for row in self.sizes.rows if (_whose(row.scope), row.detector) == key)
        record = {**card.document(), "silent": self.sizes.silent(scopes, key[1])}
        if record["demoted"] is not None:
            record["demoted"] |= dict(zip(("confirmed", "false_positive"), self._agreement(key), strict=True))
        return {**state, "offset": round(self.tuning.offset(*key), 3), "record": record}

    def demotions(self) -> list[dict[str, str]]:
        """Return who only observes since a demotion, and why."""
        keys = sorted(key for key in self.demoted if self.cards[key].by != CONFIG)
        return [{"control": name_of(key), "why": self._why(key)} for key in keys]

    def _why(self, key: Key) -> str:
        return self.cards[key].words(*self._agreement(key))

    def _agreement(self, key: Key) -> tuple[int, int]:
        """Count what it would have raised since it observes: that people confirmed, and that they called false."""
        shadow = self.cards[key].demoted
        since = shadow.since_unix if shadow is not None else 0.0
        rows = self._book.incidents.values()
        said: Counter[Verdict] = Counter()
        for row in rows:
            if row.observed and row.opened.unix >= since and any(key_of(claim.signal) == key for claim in row.claims):
                others = (other.verdict for other in rows if not other.observed and _together(row, other))
                said[row.verdict if row.verdict is not Verdict.PENDING else next(others, Verdict.PENDING)] += 1
        return said[Verdict.CONFIRMED], said[Verdict.FALSE_POSITIVE]

    def annotate(self, controls: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the inventory with each detector's record, and with those that are demoted as observing."""
        return [self._annotated(row) if row["name"].startswith(PREFIX) else row for row in controls]

    def _annotated(self, row: dict[str, Any]) -> dict[str, Any]:
        key = (row["route"], Detector(row["name"].removeprefix(PREFIX)))
        found = self.document(key)
        card, mode = self.cards.get(key), self._listen.mode_of(*key)
        shown = row | {"id": name_of(key), "offset": found["offset"], "record": found["record"]}
        if mode is Mode.OFF:
            return shown | {"state": "off", "why": f"by {self._setting(key)}"}
        if row["state"] != "off" and not row.get("why") and found["record"]["silent"]:
            shown["why"] = "; ".join(map(silent_words, found["record"]["silent"]))
            shown["why"] += f"; told again with: sidecar control missed {name_of(key)}"
        if row["state"] == "off" or (mode is Mode.ENFORCE and (card is None or card.demoted is None)):
            return shown
        why = self._why(key) if card is not None and card.demoted is not None else "observes by the config"
        hint = f"; back with: sidecar control promote {name_of(key)}" if mode is Mode.ENFORCE else ""
        return shown | {"state": "observe", "why": why + hint}


def _together(one: Incident, other: Incident) -> bool:
    """Tell whether two incidents were about the same at the same time."""
    related = one.scope.contains(other.scope) or other.scope.contains(one.scope)
    ends = [row.resolved.unix if row.resolved is not None else inf for row in (one, other)]
    return related and max(one.onset.unix, other.onset.unix) <= min(ends)


def name_of(key: Key) -> str:
    """Return how a person names it: `detect.errors:checkout`."""
    return f"{PREFIX}{key[1].value}:{key[0] or SERVICE_WORD}"


def _scope(key: Key) -> Scope:
    return Scope.route(key[0]) if key[0] else Scope.service()
