"""
One coarse timer wheel for every timeout of a worker.

Theory
------
A proxy sets a timer several times a request and almost none of them ever expires. So setting one must cost nothing and
precision is worth nothing: a timeout of 30 s that fires after 30.1 s is right. Two observations do it.

1. *Lazy moves.* A `Timer` has the moment at which it is due and the slot in which the wheel will look at it. Moving it
   **later** only writes the moment; the wheel meets the timer in its old slot, sees that it is not due and puts it
   into the right one. Only moving it **before** its slot touches the wheel. A keep-alive connection that alternates
   between `idle 60 s` and `response 30 s` touches the wheel once in 30 s, whatever its rate.
2. *One clock.* The wheel has one `call_later` of the event loop for all timers and only while it holds any: an idle
   worker sleeps.

Tables
------
    now ──► slot number = floor(at / SLOT_S)          _slots: slot number → the timers to look at

    call        due_at before     does
    set(at)     any, slot later   moves into the earlier slot
    set(at)     any, slot sooner  writes due_at
    stop()      any               due_at = never; leaves its slot at once, so that a closed connection is freed
    visit       due               stop, then call `expired(now)` (which may set the timer again)
    visit       not due           moves into the slot of due_at

What can go wrong
-----------------
* A timer never fires early: a slot is visited when it is over. It fires at most `SLOT_S` plus the loop's lag late.
* A clock that stands still or jumps forward fires what is due, once, in the order of the slots.
* `expired` raises: the others of the slot still fire, the error goes to the loop's exception handler.

Source: G. Varghese and T. Lauck, Hashed and hierarchical timing wheels, SOSP 1987; the lazy move is nginx's
`NGX_TIMER_LAZY_DELAY` taken to its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from sidecar import clock

SLOT_S: Final = 0.1
NEVER: Final = float("inf")


class Wheel:
    """
    The timers of one event loop.

    `now` is injected, so that tests move the time; `turn` is called by the loop's own timer.
    """

    __slots__ = ("_handle", "_loop", "_now", "_slots", "_turned")

    def __init__(self, loop: asyncio.AbstractEventLoop, now: Callable[[], float] = clock.now) -> None:
        self._loop = loop
        self._now = now
        self._slots: dict[int, set[Timer]] = {}
        self._turned = int(now() / SLOT_S)
        self._handle: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Wheel {len(self)} timers>"

    def __len__(self) -> int:
        return sum(len(timers) for timers in self._slots.values())

    def timer(self, expired: Callable[[float], None]) -> Timer:
        """Return a timer that is not set; it calls *expired* with the monotonic seconds at which it was found due."""
        return Timer(self, expired)

    def turn(self) -> None:
        """Fire what is due and come back while there is anything to wait for."""
        self._handle = None
        now = self._now()
        last = int(now / SLOT_S) - 1  # a slot that is not over yet may hold moments still to come
        if last >= self._turned:
            due = sorted(slot for slot in self._slots if slot <= last)
            self._turned = last + 1
            for slot in due:
                for timer in self._slots.pop(slot, ()):  # an earlier one may have stopped all of them
                    timer.visit(now)
        self._arm()

    def put(self, timer: Timer, due_at: float) -> int:
        """Let *timer* be looked at when *due_at* is past; return the slot."""
        slot = max(int(due_at / SLOT_S), self._turned)
        self._slots.setdefault(slot, set()).add(timer)
        if self._handle is None:
            self._arm()
        return slot

    def drop(self, timer: Timer, slot: int) -> None:
        """Forget *timer*, which is looked at in *slot*."""
        timers = self._slots.get(slot)
        if timers is not None:
            timers.discard(timer)
            if not timers:
                del self._slots[slot]

    def error(self, error: Exception) -> None:
        """Report what a timer's callback raised."""
        self._loop.call_exception_handler({"message": "a timeout's action failed", "exception": error})

    def _arm(self) -> None:
        if self._handle is None and self._slots:
            self._handle = self._loop.call_later(SLOT_S, self.turn)


class Timer:
    """One timeout: set, moved and stopped for nothing. Read `due_at` to see when it is due (`NEVER` when it is not)."""

    __slots__ = ("_expired", "_looked_at", "_slot", "_wheel", "due_at")

    def __init__(self, wheel: Wheel, expired: Callable[[float], None]) -> None:
        self._wheel = wheel
        self._expired = expired
        self._slot = -1
        self._looked_at = NEVER  # no later than this the wheel looks at the timer
        self.due_at = NEVER

    def __repr__(self) -> str:
        return "<Timer off>" if self.due_at == NEVER else f"<Timer due at {self.due_at:.1f}>"

    def set(self, due_at: float) -> None:
        """Let it expire at *due_at*, in place of whatever was set."""
        self.due_at = due_at
        if due_at < self._looked_at:
            self._leave()
            self._slot = self._wheel.put(self, due_at)
            self._looked_at = due_at

    def pause(self) -> None:
        """Let it not expire for now, at no cost: its place in the wheel is kept."""
        self.due_at = NEVER

    def stop(self) -> None:
        """Let it not expire, and leave the wheel: for the end of its owner's life."""
        self.due_at = NEVER
        self._leave()

    def visit(self, now: float) -> None:
        """Expire when due; else wait for the moment at which it will be (the wheel's call)."""
        self._slot, self._looked_at = -1, NEVER
        due_at = self.due_at
        if due_at > now:
            if due_at != NEVER:
                self.set(due_at)
            return
        self.due_at = NEVER
        try:
            self._expired(now)
        except Exception as error:  # one owner's fault must not cost the others their timeouts
            self._wheel.error(error)

    def _leave(self) -> None:
        if self._slot >= 0:
            self._wheel.drop(self, self._slot)
            self._slot, self._looked_at = -1, NEVER
