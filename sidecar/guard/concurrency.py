"""
At most so many requests between admission and end, for a route or for the service.

Theory
    `in_flight` counts every admitted request, whatever the mode, so that a limit that appears live knows the load that it
    meets. An observed limit also counts the requests `beyond` it, which it would have refused: they never were in flight
    in the world that it imagines, so it compares `in_flight − beyond`. The limit is fixed, or learned (`gradient.py`).

Priorities, at the service's limit
    The last permits are kept for those who need them most. A reserve only exists for priorities that some route has:
    without any `high` route `normal` ones may use all.

    priority   may use                                     refused
    --------   -----------------------------------------   --------------------------
    low        80 % of the permits                         first
    normal     95 %, or all where no route is high         then
    high       all                                         last
    probe      any number: orchestrators' health checks    never, by any limit

    One that asks again within its back-off while a retry storm rages (`spare.py`) may use 80 % of what its priority may,
    at the route's limit too.

Clients that drive the overload
    Where one client floods the service, a permit that becomes free is most likely taken by it, and the others starve. So
    each client that was refused at the service's limit is held back by its own record (Google SRE, *Handling Overload*,
    client-side throttling, kept for each priority apart):

        P(refused) = max(0, (requests − K·accepts)/(requests + 1))      K = 2

    Its requests that still reach the limit are then about twice what is accepted, whatever it sends; a client whose
    requests are mostly accepted is not touched. Instead of a die, P is added to a credit and a whole credit refuses one:
    in any run of requests the difference is less than one. All counts are halved every 30 s, and who was not refused in
    that time is forgotten.

What can go wrong
    Few requests decide nothing: a record begins with 10 accepted ones. Many clients: beyond `MAX_RECORDS` new ones are not
    held back. No overload: there are no records, and nothing of this costs anything: while there are, the service's `gate`
    is shut, so that each request is asked in full.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sidecar.facts import Mode
from sidecar.guard.gradient import Gradient2
from sidecar.guard.policies import ConcurrencyPolicy, Priority
from sidecar.reasons import Reason, Refusal

UNLIMITED: Final = 1 << 62
MAX_RECORDS: Final = 4096
K: Final = 2.0
AGAIN: Final = 0.8  # of the permits, for what asks again too soon
_RETRY_AFTER_S: Final = 1.0  # small: a permit returns with the next answer
_HALVED_S: Final = 30.0
_BEGINNING: Final = 10.0  # accepted requests
_SHUT: Final = -1


class Concurrency:
    """
    The permits of one route.

    Attributes:
        cap: The most that may be in flight in this worker.
        adaptive: Learns `cap`; None when it is fixed.
    """

    __slots__ = ("adaptive", "beyond", "cap", "in_flight", "observed", "rule")

    def __init__(self, rule: str) -> None:
        self.rule = rule
        self.in_flight = 0
        self.beyond = 0
        self.cap = UNLIMITED
        self.observed = False
        self.adaptive: Gradient2 | None = None

    def __repr__(self) -> str:
        return f"<Concurrency {self.in_flight}/{'∞' if self.limit is None else self.limit}>"

    @property
    def limit(self) -> int | None:
        """Return this worker's part of the limit; None when there is none."""
        return None if self.cap == UNLIMITED else self.cap

    def apply(self, policy: ConcurrencyPolicy | None, overall: Mode, workers: int, now: float) -> None:
        """Go on under *policy*; what is in flight stays counted, and what was learned is kept."""
        on = policy if policy is not None and Mode.OFF not in (policy.mode, overall) else None
        self.observed = on is not None and Mode.OBSERVE in (on.mode, overall)
        if on is None:
            self.adaptive = None
            self.limit_to(UNLIMITED)
            return
        most = -(-on.max_in_flight // workers)
        if on.min_in_flight is None:
            self.adaptive = None
            self.limit_to(most)
            return
        least = -(-on.min_in_flight // workers)
        if self.adaptive is None:
            self.adaptive = Gradient2(least, most, now)
        self.adaptive.apply(least, most)
        self.limit_to(int(self.adaptive.limit))

    def limit_to(self, cap: int) -> None:
        """Let at most *cap* be in flight from now on."""
        self.cap = cap

    def learn(self, latency_s: float | None, now: float) -> None:
        """Learn from a request that ended, before it gives its permit back: its latency, or None when it had no answer."""
        adaptive = self.adaptive
        if adaptive is None:
            return
        if latency_s is None:
            moved = adaptive.drop(self.in_flight, now)
        else:
            moved = adaptive.sample(latency_s, self.in_flight, now)
        if moved:
            self.limit_to(int(adaptive.limit))

    def full(self) -> bool:
        """Tell whether an enforced limit has no permit left."""
        return self.in_flight >= self.cap

    def would_be_full(self, cap: int | None = None) -> bool:
        """Tell whether the limit would have no permit left if it had refused all that it would have refused."""
        return self.in_flight - self.beyond >= (self.cap if cap is None else cap)

    def spare(self, cap: int | None = None) -> Refusal | None:
        """Return why a re-arrival is refused: the last permits are kept for first tries."""
        cap = self.cap if cap is None else cap
        if self.observed or cap == UNLIMITED or self.in_flight < max(1, int(AGAIN * cap)):
            return None
        return self.refusal(cap, f", {1.0 - AGAIN:.0%} of them kept for first tries")

    def refusal(self, cap: int | None = None, kept: str = "") -> Refusal:
        """Say no."""
        detail = f"{self.in_flight} of {self.cap if cap is None else cap} in flight{kept}"
        return Refusal(Reason.CONCURRENCY_LIMITED, _RETRY_AFTER_S, self.rule, detail)


class Reach:
    """
    How far one priority may go at the service's limit.

    Attributes:
        cap: The most that may be in flight when a request of this priority comes.
        gate: The same for the hot path, or less than none while clients are held back: then every request is asked.
    """

    __slots__ = ("cap", "gate", "share")

    def __init__(self, share: float) -> None:
        self.share = share
        self.cap = self.gate = UNLIMITED

    def __repr__(self) -> str:
        return f"<Reach {self.share:.0%} {self.cap}{' shut' if self.gate == _SHUT else ''}>"


class _Record:
    """What became of one client's requests of one priority at the service's limit."""

    __slots__ = ("accepts", "credit", "refused", "requests")

    def __init__(self) -> None:
        self.requests = self.accepts = _BEGINNING
        self.credit = 0.0
        self.refused = False

    def holds_back(self) -> bool:
        """Count one more request and tell whether it is refused because of the record."""
        self.credit += max(0.0, (self.requests - K * self.accepts) / (self.requests + 1.0))
        self.requests += 1.0
        if self.credit < 1.0:
            return False
        self.credit -= 1.0
        return True


class ServiceConcurrency(Concurrency):
    """The permits of the service, by priority and with a record of the clients that drive it to its limit."""

    __slots__ = ("_halved_at", "_records", "_shut", "reaches")

    def __init__(self) -> None:
        self.reaches = {priority: Reach(1.0) for priority in Priority}
        self._records: dict[tuple[str, Priority], _Record] = {}
        self._halved_at = 0.0
        self._shut = False
        super().__init__("service.concurrency")

    def reserve(self, priorities: Iterable[Priority]) -> None:
        """Keep permits for the *priorities* that routes have."""
        present = set(priorities)
        above_low = bool(present & {Priority.NORMAL, Priority.HIGH})
        self.reaches[Priority.LOW].share = 0.8 if above_low else 1.0
        self.reaches[Priority.NORMAL].share = 0.95 if Priority.HIGH in present else 1.0
        self._reach()

    def limit_to(self, cap: int) -> None:
        """Let at most *cap* be in flight from now on, and of lower priorities less."""
        self.cap = cap
        self._reach()

    def _reach(self) -> None:
        for reach in self.reaches.values():
            reach.cap = self.cap if reach.share == 1.0 else max(1, int(self.cap * reach.share))
            reach.gate = _SHUT if self._shut else reach.cap

    def ask(self, client: str, priority: Priority, now: float) -> Refusal | None:
        """Ask in full: the client's record, then the permits."""
        record = self._records.get((client, priority))
        if record is not None and record.holds_back():
            detail = f"this client: {record.accepts:.0f} of {record.requests:.0f} accepted"
            return Refusal(Reason.CONCURRENCY_LIMITED, _RETRY_AFTER_S, self.rule, detail)
        cap = self.reaches[priority].cap
        if self.in_flight < cap:
            if record is not None:
                record.accepts += 1.0
            return None
        if record is None and len(self._records) < MAX_RECORDS:
            record = self._records[client, priority] = _Record()
            record.requests += 1.0
            self._shut_gate(now)
        if record is not None:
            record.refused = True
        return self.refusal(cap)

    def _shut_gate(self, now: float) -> None:
        if not self._shut:
            self._shut, self._halved_at = True, now
            self._reach()

    def tick(self, now: float) -> None:
        """Let records fade; without any the gate opens."""
        if not self._shut or now - self._halved_at < _HALVED_S:
            return
        self._halved_at = now
        self._records = {key: record for key, record in self._records.items() if record.refused}
        for record in self._records.values():
            record.requests, record.accepts, record.refused = record.requests / 2.0, record.accepts / 2.0, False
        if not self._records:
            self._shut = False
            self._reach()
