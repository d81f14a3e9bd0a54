"""What is stored every minute: the detectors' memory, their shadow records, and one aggregate a route."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, Final

from sidecar.controller.book import Book
from sidecar.controller.effects import PutBaseline, PutRollup
from sidecar.controller.history import History
from sidecar.controller.tutor import Tutor
from sidecar.detect.bank import Bank
from sidecar.facts import Moment, RouteSecond, Scope
from sidecar.measure import histogram

MINUTE_S: Final = 60
MOST_CLIENTS: Final = 8  # of a minute, each as [requests, failures, refused]


class Upkeep:
    """
    Minutes and baselines.

    Args:
        bank: Whose memory is saved.
        history: Where a minute's seconds come from.
        tutor: Whose scorecards are saved.
        now: The moment of the start.
    """

    def __init__(self, bank: Bank, history: History, tutor: Tutor, now: Moment) -> None:
        self._bank = bank
        self._history = history
        self._tutor = tutor
        self._minute = int(now.unix // MINUTE_S)
        self._began_at = now.at
        self._saved: dict[str, Any] = {}
        self._running: dict[int, Scope] = {}

    def __repr__(self) -> str:
        return f"<Upkeep minute {self._minute}>"

    def turn(self, book: Book, rows: Sequence[RouteSecond], now: Moment) -> None:
        """Close the minute when it is over; tell which lasting shifts have become normal by age."""
        for shift in self._bank.take_rebaselined():
            body = {"route": shift.route, "detector": shift.detector.value}
            book.event("detect.rebaselined", now, body=body)
        running = {incident.id: incident.scope for incident in book.running()}
        ended = [scope for number, scope in self._running.items() if number not in running]
        self._running = running
        minute = int(now.unix // MINUTE_S)
        if minute == self._minute:
            if ended:  # else a controller that starts within this minute would hear what is over
                self.save(book, now, {route for scope in ended for route in self._history.routes_of(scope)})
            return
        for route in [row.route for row in rows]:
            seconds = self._history.window((route,), self._began_at, now.at)
            if any(second.arrivals or second.judged for second in seconds):
                book.emit(PutRollup(route, self._minute * MINUTE_S, rollup(seconds)))
        self._minute, self._began_at = minute, now.at
        self.save(book, now)
        book.forget()

    def save(self, book: Book, now: Moment, routes: Collection[str] | None = None) -> None:  # noqa: ARG002  every event carries its moment
        """Store the memory of every route, or of *routes*, and the records of detectors, where they changed since the last time."""
        self._tutor.save()
        for route, document in self._bank.snapshot(routes).items():
            content = {key: value for key, value in document.items() if key != "saved_at"}
            if self._saved.get(route) != content:
                self._saved[route] = content
                book.emit(PutBaseline(route, document))


def rollup(seconds: Sequence[RouteSecond]) -> dict[str, Any]:
    """Return the aggregate of some seconds of one route."""
    refused: Counter[str] = Counter()
    for second in seconds:
        refused.update(second.refused)
    latency = histogram.merge(*(second.latency for second in seconds))
    clients: dict[str, list[int]] = {}
    for second in seconds:
        for key, client in second.clients.items():
            row = clients.setdefault(key, [0, 0, 0])
            row[:] = row[0] + client.requests + client.refused, row[1] + client.failures, row[2] + client.refused
    heaviest = sorted(clients, key=lambda key: (-clients[key][0], key))[:MOST_CLIENTS]
    return {
        "arrivals": sum(second.arrivals for second in seconds),
        "successes": sum(second.successes for second in seconds),
        "failures": sum(second.failures for second in seconds),
        "ignored": sum(second.ignored for second in seconds),
        "cancelled": sum(second.cancelled for second in seconds),
        "trips": sum(second.trips for second in seconds),
        "refused": dict(refused),
        "latency": [[index, latency[index]] for index in sorted(latency)],
        "clients": {key: clients[key] for key in heaviest},
    }
