"""Several workers' guards and the controller's allocator on one clock that only the test moves, with frames that take time."""

from __future__ import annotations

from dataclasses import replace

from sidecar.controller.shares import Allocator
from sidecar.guard.guard import Guard, Shares, Ticket
from sidecar.guard.policies import GuardPolicy
from sidecar.link.frames import Demand, Hello
from sidecar.link.frames import Shares as SharesFrame
from tests.support.playbook import ROUTE, SUCCESS

TURN_S = 0.25


class Crew:
    """
    N workers of one limit.

    Args:
        policy: What every worker runs.
        delay_s: How long a frame is on its way.
    """

    def __init__(self, policy: GuardPolicy, workers: int, *, delay_s: float = 0.002) -> None:
        self.now = 0.0
        self.workers = workers
        self.guards = [Guard(replace(policy, workers=workers), 0.0) for _ in range(workers)]
        self.allocator = Allocator({}, 0.0)
        self.connected = [True] * workers
        self.admitted: list[tuple[float, int, str]] = []
        self._sequences = [0] * workers
        self._delay_s = delay_s
        self._flying: list[tuple[float, int, SharesFrame | Demand | Hello]] = []
        self._turn_at = TURN_S
        for worker in range(workers):
            self._fly(worker, self._hello(worker))

    # --- traffic and time ---------------------------------------------------------------------------------------

    def send(self, worker: int, count: int = 1, *, client: str = "k1", route: str = ROUTE) -> int:
        """Send *count* requests to *worker*; return how many passed."""
        bound, passed = self.guards[worker].route(route), 0
        for _ in range(count):
            ticket = bound.admit(client, self.now)
            if isinstance(ticket, Ticket):
                bound.settle(ticket, SUCCESS, self.now)
                self.admitted.append((self.now, worker, client))
                passed += 1
        return passed

    def run(self, seconds: float, rates: dict[tuple[int, str], float], *, step_s: float = 0.01) -> int:
        """Let time pass with these requests a second by worker and client; return how many passed."""
        passed, end = 0, self.now + seconds
        due = dict.fromkeys(rates, 0.0)
        while self.now < end - 1e-9:
            self.step(step_s)
            for (worker, client), rate in rates.items():
                due[worker, client] += rate * step_s
                count = int(due[worker, client] + 1e-9)
                due[worker, client] -= count
                passed += self.send(worker, count, client=client)
        return passed

    def step(self, seconds: float) -> None:
        """Move the clock, deliver what arrives and let everybody take its turns."""
        self.now += seconds
        while self._turn_at <= self.now:
            self._turn_at += TURN_S
            for worker in range(self.workers):
                if self.connected[worker]:
                    self._ask(worker)
            self._told(self.allocator.turn(self.now))
        self._deliver()

    def cut(self, worker: int) -> None:
        """End a worker's link: what is on its way is lost."""
        self.connected[worker] = False
        self._flying = [row for row in self._flying if row[1] != worker]
        self.allocator.lost(worker, self.now)

    def mend(self, worker: int) -> None:
        """Let the worker connect again."""
        self.connected[worker] = True
        self._sequences[worker] = 0
        self._fly(worker, self._hello(worker))

    def new_controller(self) -> None:
        """Kill the controller; its successor knows what `worker-boot.json` says."""
        kept = self.allocator.slots()
        self._flying = []
        self.allocator = Allocator(kept, self.now)
        for worker in range(self.workers):
            if self.connected[worker]:
                self.mend(worker)

    # --- what can be looked at ------------------------------------------------------------------------------------

    def held(self, name: str) -> float:
        """Return the sum of what the workers run with of bucket *name*."""
        return sum(guard._shared.shares.of(name) for guard in self.guards)

    def most_in(self, window_s: float, client: str | None = None) -> int:
        """Return the most that passed within any window of this length, ends included."""
        moments = [at for at, _, key in self.admitted if client in (None, key)]
        first = most = 0
        for last, at in enumerate(moments):
            while at - moments[first] > window_s:
                first += 1
            most = max(most, last - first + 1)
        return most

    # --- frames ---------------------------------------------------------------------------------------------------

    def _ask(self, worker: int) -> None:
        span_s, asked = self.guards[worker].asked(self.now)
        self._fly(worker, Demand(worker, f"e{worker}", self._sequences[worker], span_s, asked))

    def _hello(self, worker: int) -> Hello:
        return Hello(worker, f"e{worker}", 1, 1, workers=self.workers, share=1.0 / self.workers)

    def _fly(self, worker: int, frame: SharesFrame | Demand | Hello) -> None:
        self._flying.append((self.now + self._delay_s, worker, frame))

    def _told(self, pushes: list[tuple[int, SharesFrame]]) -> None:
        for worker, frame in pushes:
            if self.connected[worker]:
                self._fly(worker, frame)

    def _deliver(self) -> None:
        while True:
            ready = next((row for row in self._flying if row[0] <= self.now), None)
            if ready is None:
                return
            self._flying.remove(ready)
            _, worker, frame = ready
            match frame:
                case SharesFrame(sequence, rest, named):
                    self.guards[worker].share(Shares(rest, named), self.now)
                    self._sequences[worker] = sequence
                    self._fly(worker, Demand(worker, f"e{worker}", sequence))
                case Demand():
                    self._told(self.allocator.asks(worker, frame, self.now))
                case Hello():
                    self._told(self.allocator.joined(worker, frame, self.now))
