"""
Silences: set, ended, over; and what people are told once nothing keeps it from them any more.

Theory
    A silence stands between an incident and its receivers, and nowhere else: detection, isolation, the ladder, evidence and
    the timeline go on. What it kept is not lost: when it ends while its incident still runs, people are told of the
    incident as it is then, as loudly as it deserves.

What can go wrong
    The incident widens beyond the silence: it is told at once, for the wider scope is not covered.
    It lasts for ever: it has a ttl, 30 days at most, and stands in `status`.
"""

from __future__ import annotations

from typing import Final, assert_never

from sidecar.controller.book import Book
from sidecar.controller.commands import AddSilence, Done, EndSilence, Quieting, Rejected
from sidecar.controller.places import Places
from sidecar.decide import silence
from sidecar.decide.lease import AUTOMATION, later
from sidecar.decide.silence import Silence
from sidecar.facts import Moment
from sidecar.incident.words import duration, rfc3339

MAX_SILENCES: Final = 100
MAX_TTL_S: Final = 30 * 86_400.0


class Silencing:
    """
    Carries out what people say about silences.

    Args:
        book: What is so.
        places: Where incidents can be.
    """

    def __init__(self, book: Book, places: Places) -> None:
        self._book = book
        self._places = places

    def __repr__(self) -> str:
        return f"<Silencing {len(self._book.silences)}>"

    def carry_out(self, command: Quieting, now: Moment) -> Done | Rejected:
        """Set or end a silence, or say why not."""
        match command:
            case AddSilence():
                return self._add(command, now)
            case EndSilence():
                return self._end(command, now)
            case _:
                assert_never(command)

    def _add(self, command: AddSilence, now: Moment) -> Done | Rejected:
        scope = command.scope
        if not command.reason.strip():
            return Rejected.invalid("a silence needs a reason", "add --reason 'why', others will read it at 3 a.m.")
        if not 0 < command.ttl_s <= MAX_TTL_S:
            return Rejected.invalid(
                f"a ttl of {duration(command.ttl_s)} is not possible", "use --ttl between 1s and 30d, such as 2h"
            )
        nowhere = self._places.problem(scope)
        if nowhere is not None:
            return nowhere
        if len(self._book.silences) >= MAX_SILENCES:
            problem = f"{MAX_SILENCES} silences are in force"
            return Rejected.conflict(problem, "`sidecar silence list` shows them; end one")
        made = Silence(
            self._book.number_silence(), scope, command.author, command.reason.strip(), now, later(now, command.ttl_s)
        )
        self._book.put_silences([*self._book.silences, made])
        body = {"id": made.id, "ttl_s": command.ttl_s, "reason": made.reason}
        self._book.event("silence.added", now, author=command.author, scope=scope, body=body)
        self._touch(made)
        return Done(silence.document(made))

    def _end(self, command: EndSilence, now: Moment) -> Done | Rejected:
        found = next((each for each in self._book.silences if each.id == command.silence), None)
        if found is None:
            problem = f"no silence {command.silence} is in force"
            return Rejected.not_found(problem, "`sidecar silence list` shows what is")
        self._over(found, command.author, "ended", now)
        self._tell(now)
        return Done({**silence.document(found), "end_time": rfc3339(now.unix)})

    def turn(self, now: Moment) -> None:
        """End what is over, and tell what is no longer silenced."""
        for found in [each for each in self._book.silences if each.end.at <= now.at]:
            self._over(found, AUTOMATION, "expired", now)
        self._tell(now)

    def _over(self, found: Silence, author: str, why: str, now: Moment) -> None:
        self._book.put_silences([each for each in self._book.silences if each.id != found.id])
        self._book.event("silence.ended", now, author=author, scope=found.scope, body={"id": found.id, "why": why})
        self._touch(found)

    def _touch(self, changed: Silence) -> None:
        """Store the incidents whose document shows it."""
        for incident in self._book.running():
            if changed.scope.contains(incident.scope):
                self._book.put_incident(incident)

    def _tell(self, now: Moment) -> None:
        for number in sorted(self._book.hushed):
            incident = self._book.incidents.get(number)
            if incident is None or not incident.running:
                self._book.hushed.discard(number)
            elif silence.covering(self._book.silences, incident.scope) is None:
                self._book.hushed.discard(number)
                self._book.notify("opened", number, now)
