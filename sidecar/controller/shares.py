"""
One limit over several workers: who may use which part of it, and how the parts move.

Theory
    A limit's rate is one whole. Every worker holds a *share* of it, and for each bucket, at every moment, whatever is on
    its way and whoever has died,

        Σ shares ≤ 1

    With that the workers together pass no more than the limit (`guard/bucket.py` says why bursts need no moving). So a
    share can only grow by what others gave back, and given back is what a worker has *acknowledged*: until then the
    larger of its old and its new share counts as held. A shrink is pushed at once; the growth that it pays for follows
    one round trip later.

    Four times a second each worker tells what was asked of each bucket, in units of the whole limit. These demands are
    smoothed (half of the way in 0.25 s) and give the shares that are aimed at, with a floor φ = 1 %/N for everybody, so
    that nobody is ever cut off:

        Σ asked ≤ 1 − Nφ    shareᵢ = φ + askedᵢ + (1 − Nφ − Σ asked)/N      everybody what it asks, the rest evenly
        Σ asked > 1 − Nφ    shareᵢ = φ + (1 − Nφ)·askedᵢ/Σ asked            in proportion: all refuse alike

    While the limit is not reached every worker so has room to grow at once; when it is, nothing is left unused but the
    floors. After demand has moved, 1.5 s later less than 5 % of the rate is in the wrong place.

Tables
    a worker          its share
    awaited           of a first Hello of N workers the others hold an even part, as if they were silent
    joined            what it holds is known when it has acknowledged; until then no share of anybody grows
    silent            stays held: it may be alive behind a lost link, and keeps its last share
    silent for 10 s   is free: a living worker is back within a second, a hung one is killed after 5 s
    left (drained)    is free when its link ends

    a bucket          is named to the workers while it is asked for; others have the share of `*`: an even part

What can go wrong
    The controller dies: shares stay. Its successor starts from what `worker-boot.json` says, and nothing grows before every
    worker has acknowledged. A worker does not read: its old share stays held, the others cannot grow. Too many buckets:
    beyond `MAX_NAMED` new ones keep an even part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sidecar.link.frames import Demand, Hello, Shares

REST: Final = "*"
DEAD_S: Final = 10.0
FLOOR: Final = 0.01  # of the limit, for all workers together
MAX_NAMED: Final = 1024
_HALF_S: Final = 0.25
_STILL: Final = 0.005  # of the limit: a smaller change is not worth a frame
_NOTHING: Final = 1e-3  # of the limit: less is no demand
_EXACT: Final = 1e-9

Pushes = list[tuple[int, Shares]]


def split(asked: Sequence[float]) -> list[float]:
    """Return the shares of one limit by what each worker asks of it, both in units of the limit; their sum is 1."""
    floor = FLOOR / len(asked)
    pool, total = 1.0 - FLOOR, sum(asked)
    if total <= pool:
        return [floor + each + (pool - total) / len(asked) for each in asked]
    return [floor + pool * each / total for each in asked]


@dataclass(slots=True)
class _Member:
    """
    One worker.

    Attributes:
        acked, pushed: Bucket → share: what it surely ran with last, and what it was told last.
        sequence: Of `pushed`; 0 when it was not told yet.
        sure: It has acknowledged under this controller.
        asked: Bucket → smoothed demand.
        heard: It has said what is asked; until then it is taken to ask for what it has.
    """

    epoch: str
    acked: dict[str, float]
    pushed: dict[str, float]
    sequence: int = 0
    sure: bool = False
    lost_at: float | None = None
    leaving: bool = False
    heard: bool = False
    asked: dict[str, float] = field(default_factory=dict)

    def held(self, name: str) -> float:
        """Return the most that it may be using of bucket *name*."""
        return max(self.acked.get(name, self.acked[REST]), self.pushed.get(name, self.pushed[REST]))

    def told(self, name: str) -> float:
        """Return what it was told last."""
        return self.pushed.get(name, self.pushed[REST])

    def asks(self, name: str) -> float:
        """Return what it asks of bucket *name*."""
        return self.asked.get(name, 0.0) if self.heard or name == REST else self.told(name)

    def take(self, demand: Demand) -> None:
        """Smooth what it asks; the first time there is nothing to smooth with."""
        kept = 0.5 ** (demand.span_s / _HALF_S) if self.heard else 0.0
        self.heard = True
        names = {**self.asked, **demand.asked}
        mixed = {n: kept * self.asked.get(n, 0.0) + (1.0 - kept) * demand.asked.get(n, 0.0) for n in names}
        self.asked = {name: part for name, part in mixed.items() if part > _NOTHING}


class Allocator:
    """
    The shares of all workers.

    Args:
        kept: Worker → bucket → share, as the last controller left them; see `slots`.
        now: Monotonic seconds.
    """

    def __init__(self, kept: Mapping[int, Mapping[str, float]], now: float) -> None:
        self._members = {
            worker: _Member("", dict(shares), dict(shares), lost_at=now) for worker, shares in kept.items()
        }
        self._sequence = 0
        self._hungry = False  # some share would grow if there were room

    def __repr__(self) -> str:
        members = (
            f"{worker}:{member.pushed[REST]:.2f}+{len(member.pushed) - 1}" for worker, member in self._members.items()
        )
        return f"<Allocator {' '.join(members)}>"

    # --- events ---------------------------------------------------------------------------------------------------

    def joined(self, worker: int, hello: Hello, now: float) -> Pushes:
        """Take a worker that says Hello; what it was told is said again."""
        epoch, share = hello.epoch, hello.share
        if not self._members:
            self._await(hello.workers, now)
        known = self._members.get(worker)
        if known is None:
            # Of those that are awaited one has come.
            self._members.pop(next((index for index in self._members if index < 0), worker), None)
        if known is None:
            known = self._members[worker] = _Member(epoch, {REST: share}, {REST: share})
        elif known.epoch != epoch:
            # Its predecessor is dead (an index is not given twice), or was another controller's: it read `slots`.
            known.acked = dict(known.pushed)
            known.epoch, known.sure, known.heard, known.asked = epoch, False, False, {}
        known.lost_at, known.leaving = None, False
        return [self._push(worker, known)]

    def asks(self, worker: int, demand: Demand, now: float) -> Pushes:
        """Take what a worker asks, or its acknowledgement; return what can be pushed because of that."""
        member = self._members.get(worker)
        if member is None or member.epoch != demand.epoch:
            return []
        member.leaving = demand.leaving
        if demand.span_s > 0.0:
            member.take(demand)
        if demand.sequence != member.sequence or member.acked is member.pushed:
            return []
        member.acked, member.sure = member.pushed, True
        # One turn for all acknowledgements of the last one, and only if somebody waits for what they give back.
        whole = all(each.acked is each.pushed for each in self._members.values() if each.lost_at is None)
        return self.turn(now) if whole and self._hungry else []

    def lost(self, worker: int, now: float) -> None:
        """Take the end of a worker's link."""
        member = self._members.get(worker)
        if member is not None:
            member.lost_at = now

    def turn(self, now: float) -> Pushes:
        """Move the shares towards what is asked, about four times a second; return what is to be told to whom."""
        self._bury(now)
        names = self._names()
        reached = {worker: member for worker, member in self._members.items() if member.lost_at is None}
        if not reached:
            return []
        self._hungry = False
        drafts: dict[int, dict[str, float]] = {worker: {} for worker in reached}
        for name in names:
            for worker, share in self._shares(name).items():
                if worker in drafts:
                    drafts[worker][name] = share
        self._leave_out(drafts)
        pushes = []
        for worker, member in reached.items():
            if drafts[worker] != member.pushed:
                member.pushed = drafts[worker]
                pushes.append(self._push(worker, member))
        return pushes

    def slots(self) -> dict[int, dict[str, float]]:
        """Return what each worker was told last, for a successor of it or of this controller."""
        return {worker: dict(member.pushed) for worker, member in self._members.items() if worker >= 0}

    def _await(self, workers: int, now: float) -> None:
        """Hold an even part for each of *workers* that has not said Hello yet: it was born with it."""
        for index in range(1, workers + 1):
            even = {REST: 1.0 / workers}
            self._members[-index] = _Member("", even, dict(even), lost_at=now)

    # --- the parts of a turn ----------------------------------------------------------------------------------------

    def _bury(self, now: float) -> None:
        for worker, member in list(self._members.items()):
            if member.lost_at is not None and (member.leaving or now - member.lost_at >= DEAD_S):
                del self._members[worker]

    def _names(self) -> Iterable[str]:
        """Return the buckets that are spoken of, `*` among them: those that are told first, then new ones as far as there is room."""
        members = self._members.values()
        told = dict.fromkeys(name for member in members for name in (*member.pushed, *member.acked))
        new = dict.fromkeys(name for member in members for name in member.asked if name not in told)
        return [*told, *list(new)[: max(0, MAX_NAMED - len(told))]]

    def _shares(self, name: str) -> dict[int, float]:
        """Return what each worker is to have of bucket *name*: the aim, as far as nobody holds more than it gave back."""
        members = self._members
        asked = [member.asks(name) for member in members.values()]
        aims = dict(zip(members, split(asked), strict=True))
        if any(asked) and all(abs(aims[worker] - member.told(name)) <= _STILL for worker, member in members.items()):
            return {worker: member.told(name) for worker, member in members.items()}
        held = {worker: member.held(name) for worker, member in members.items()}
        growth = {
            worker: max(0.0, aims[worker] - held[worker]) if member.lost_at is None else 0.0
            for worker, member in members.items()
        }
        wanted = sum(growth.values())
        free = 1.0 - sum(held.values()) if all(member.sure for member in members.values()) else 0.0
        paid = min(1.0, max(0.0, free) / wanted) if wanted > _EXACT else 0.0
        self._hungry = self._hungry or (wanted > _EXACT and paid < 1.0)
        return {
            worker: aims[worker] if growth[worker] <= 0.0 or paid == 1.0 else held[worker] + growth[worker] * paid
            for worker in members
        }

    def _leave_out(self, drafts: Mapping[int, dict[str, float]]) -> None:
        """Name no bucket that nobody asks for and of which everybody has what it has of the rest."""
        asked = {name for member in self._members.values() for name in member.asked}
        lost = [member for member in self._members.values() if member.lost_at is not None]
        names = {name for draft in drafts.values() for name in draft} - asked - {REST}
        for name in names:
            even = all(abs(draft[name] - draft[REST]) <= _EXACT for draft in drafts.values())
            if even and not any(name in member.pushed for member in lost):
                for draft in drafts.values():
                    del draft[name]

    def _push(self, worker: int, member: _Member) -> tuple[int, Shares]:
        self._sequence += 1
        member.sequence = self._sequence
        named = {name: share for name, share in member.pushed.items() if name != REST}
        return worker, Shares(self._sequence, member.pushed[REST], named)
