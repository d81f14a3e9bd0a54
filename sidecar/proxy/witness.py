"""
Who is told of single requests as they end: the access log, and the people who look on (`sidecar tap`).

Theory
------
Nearly every request ends well and nobody wants to hear of it, so the question comes first and costs one call (0.1 µs):
only for a request that somebody wants are its facts put together. The access log wants all that failed or were refused,
and of the others a part, spread evenly and without chance: `sample` makes a pattern of yes and no that repeats.

Tables
------
    who           wants                                                bounded by
    access log    a reason, or a status of 400 and above; else         the sink, which counts what it drops
                  every k-th
    each tap      what its filter lets through, until its time is      `SHOWN_PER_S` a second; what is beyond is counted
                  over                                                 and told with the next one

What can go wrong
-----------------
* The controller dies with a tap open: the tap is not renewed and ends after its `ttl_s`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import cycle
from typing import Final

from sidecar.facts import RequestFacts
from sidecar.link import frames
from sidecar.reasons import TABLE, Party, Reason

LOG: Final = 1
TAP: Final = 2
SHOWN_PER_S: Final = 50
MAX_TAPS: Final = 16
_LONGEST: Final = 10_000  # turns until the pattern repeats: the smallest share is 0.01 %
_GUARDS: Final = frozenset(reason.value for reason, row in TABLE.items() if row.party is Party.GUARD)


class Witness:
    """The listeners of one worker; *send* takes what a tap shows, and may drop it."""

    __slots__ = ("_always", "_log", "_next", "_send", "_share", "_taps")

    def __init__(self, send: Callable[[frames.Tapped], object]) -> None:
        self._send = send
        self._taps: dict[str, _Tap] = {}
        self._log: Callable[[RequestFacts], None] | None = None
        self._share = Fraction(0)
        self._always = 0
        self._next = cycle((0,)).__next__

    def __repr__(self) -> str:
        return f"<Witness {'logs' if self._log else 'does not log'}, {len(self._taps)} taps>"

    def log_to(self, log: Callable[[RequestFacts], None] | None, sample_ratio: float) -> None:
        """Tell *log* from now on (None: nobody), of the successes *sample_ratio*."""
        self._log = log
        self._share = Fraction(sample_ratio).limit_denominator(_LONGEST) if log is not None else Fraction(0)
        self._arrange()

    def _arrange(self) -> None:
        """Prepare the answers of `wants`."""
        tap, log = TAP if self._taps else 0, LOG if self._log is not None else 0
        part, whole = self._share.as_integer_ratio()
        turns = [(turn + 1) * part // whole - turn * part // whole for turn in range(whole)]
        self._always = tap | log
        self._next = cycle([tap | log if yes else tap for yes in turns]).__next__

    def wants(self, status: int, reason: Reason | None) -> int:
        """Return who wants to hear of a request, as a sum of `LOG` and `TAP`; once for each request. The hot path."""
        return self._next() if status < 400 and reason is None else self._always

    def take(self, wanted: int, facts: RequestFacts, now: float) -> None:
        """Tell *facts* to those who are *wanted*."""
        if wanted & LOG and self._log is not None:
            self._log(facts)
        if wanted & TAP:
            for tap in tuple(self._taps.values()):
                if tap.end_at > now and tap.fits(facts) and tap.spend():
                    self._send(frames.Tapped(tap.wanted.id, tap.take_missed(), replace(facts, path="")))

    def tap(self, wanted: frames.Tap, now: float) -> None:
        """Begin a tap, or let it go on, or end it."""
        known = self._taps.get(wanted.id)
        if known is not None:
            known.end_at = now + wanted.ttl_s
        elif len(self._taps) < MAX_TAPS:
            self._taps[wanted.id] = _Tap(wanted, now + wanted.ttl_s)
        self._sweep(now)

    def second(self, now: float) -> None:
        """Begin a new second: taps may show again, and those whose time is over end."""
        for tap in self._taps.values():
            tap.left = SHOWN_PER_S
        self._sweep(now)

    def _sweep(self, now: float) -> None:
        """Forget the taps whose time is over."""
        self._taps = {name: tap for name, tap in self._taps.items() if tap.end_at > now}
        if bool(self._taps) != bool(self._always & TAP):
            self._arrange()


class _Tap:
    """One person who looks on."""

    __slots__ = ("_missed", "end_at", "left", "wanted")

    def __init__(self, wanted: frames.Tap, end_at: float) -> None:
        self.wanted = wanted
        self.end_at = end_at
        self.left = SHOWN_PER_S
        self._missed = 0

    def fits(self, facts: RequestFacts) -> bool:
        """Tell whether *facts* are what is looked for."""
        wanted = self.wanted
        return (
            (not wanted.route or wanted.route == facts.route)
            and (not wanted.client or wanted.client == facts.client)
            and wanted.least_status <= facts.status <= wanted.most_status
            and facts.total_s >= wanted.slower_s
            and (not wanted.refused or facts.reason in _GUARDS)
        )

    def spend(self) -> bool:
        """Take one of this second's places; count the request as missed when there is none."""
        if not self.left:
            self._missed += 1
            return False
        self.left -= 1
        return True

    def take_missed(self) -> int:
        """Return how many were missed since it was asked last."""
        missed, self._missed = self._missed, 0
        return missed
