"""A worker's side of the limits that several workers share; alone it does nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sidecar.controller.shares import FLOOR, REST
from sidecar.guard.guard import Guard, Shares
from sidecar.link import frames
from sidecar.link.client import LinkClient

_UNTOLD: Final = 0


class Sharing:
    """
    Tells what is asked of the limits, and takes the shares of them.

    Args:
        worker, epoch: Who this is.
        workers: How many share; one alone says and hears nothing.
        guard: Whose limits they are.
        kept: Worker → bucket → share, from `worker-boot.json`. Who is not in it while others are begins with a floor,
            for they have the rest; without it everybody has an even part.
        now: Monotonic seconds.
    """

    def __init__(
        self,
        worker: int,
        epoch: str,
        workers: int,
        guard: Guard,
        kept: Mapping[int, Mapping[str, float]],
        now: float,
    ) -> None:
        self.workers = workers
        self._worker, self._epoch, self._guard = worker, epoch, guard
        self._sequence = _UNTOLD
        self._rest = 1.0 / workers
        if workers > 1 and kept:
            mine = kept.get(worker, {REST: FLOOR / workers})
            self._take(
                mine.get(REST, FLOOR / workers), {name: part for name, part in mine.items() if name != REST}, now
            )

    def __repr__(self) -> str:
        return f"<Sharing worker {self._worker} of {self.workers} told {self._sequence}>"

    def begin_link(self) -> float:
        """Begin a link, on which nothing was told yet; return the part of every limit that this worker has."""
        self._sequence = _UNTOLD
        return self._rest

    def turn(self, link: LinkClient, now: float, *, leaving: bool) -> None:
        """Tell what was asked since the last turn, four times a second."""
        if self.workers > 1:
            span_s, asked = self._guard.asked(now)
            self._say(link, span_s, asked, leaving=leaving)

    def take(self, link: LinkClient, shares: frames.Shares, now: float, *, leaving: bool) -> None:
        """Go on under *shares*, and say so."""
        self._take(shares.rest, shares.named, now)
        self._sequence = shares.sequence
        self._say(link, 0.0, {}, leaving=leaving)

    def _take(self, rest: float, named: Mapping[str, float], now: float) -> None:
        self._rest = rest
        self._guard.share(Shares(rest, named), now)

    def _say(self, link: LinkClient, span_s: float, asked: Mapping[str, float], *, leaving: bool) -> None:
        if link.connected:
            link.send(frames.Demand(self._worker, self._epoch, self._sequence, span_s, asked, leaving))
