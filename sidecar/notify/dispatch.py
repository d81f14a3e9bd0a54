"""
Who is told what, and when: a bounded queue, a budget and a patient worker for each receiver.

Theory
    `notify` never waits and never fails: alerting must not slow down containment. Each receiver has its own queue and
    task, so one that hangs delays nobody else. Of what waits, a page goes first. A message that found the budget
    spent is *held*; when there is room again everything held leaves as one digest.

Table
    queue              budget           next message
    of a drill         –                that one, alone: a person asked for it, and it takes nothing from real ones
    a new page         room             that page, alone
    pages held         room             one digest of all that waits
    others held        room             one digest of all that waits
    nothing held       room             the oldest, alone
    anything           spent            none: what waits is held

    A message is tried until it arrives, is refused for good, or `PATIENCE_S` is over: pauses double from 1 s to 60 s,
    jittered by half; all tries of a receiver, whatever for, are paced by an `AsyncLimiter`.

What can go wrong
    The queue is full: the oldest that is no page is dropped. Every drop, and every message that was given up, is
    counted as lost, shown in `views()` and logged. A receiver is taken out of the config: what waited for it is lost
    too. A receiver's address changes: what waits goes to the new one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog
from aiolimiter import AsyncLimiter

from sidecar import clock
from sidecar.config.policies import ReceiverPolicy
from sidecar.controller.effects import Alert
from sidecar.incident.words import clock as clock_text
from sidecar.incident.words import rfc3339
from sidecar.notify.budget import Budget
from sidecar.notify.log import LogReceiver
from sidecar.notify.message import Failed, Message, Receiver, Sent
from sidecar.notify.webhook import WebhookReceiver

MAX_WAITING: Final = 100
MAX_DIGEST_LINES: Final = 20
MAX_FOLDED_CHARS: Final = 2_000
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
LONGEST_ASKED_S: Final = 300.0
PATIENCE_S: Final = 900.0
TRIES_PER_S: Final = 1.0
TEST_TEXT: Final = "This is a test message of the sidecar. Nothing has happened."
_log = structlog.get_logger("notify")


def receiver_of(policy: ReceiverPolicy) -> Receiver:
    """Return the receiver that *policy* describes."""
    return LogReceiver() if policy.type == "log" else WebhookReceiver(policy)


def _nobody_asks(name: str, number: int) -> None:
    """Take what nobody wants to know."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The times of one worker; other than the defaults only in tests."""

    first_pause_s: float = FIRST_PAUSE_S
    longest_pause_s: float = LONGEST_PAUSE_S
    patience_s: float = PATIENCE_S
    tries_per_s: float = TRIES_PER_S


class Worker:
    """One receiver's queue and the task that empties it."""

    def __init__(
        self,
        policy: ReceiverPolicy,
        receiver: Receiver,
        budget: Budget,
        pace: Pace,
        arrived: Callable[[str, Message], None],
    ) -> None:
        self.policy = policy
        self.receiver = receiver
        self._arrived = arrived
        self._budget = budget
        self._pace = pace
        self._limiter = AsyncLimiter(max(1.0, pace.tries_per_s), max(1.0, pace.tries_per_s) / pace.tries_per_s)
        self._waiting: deque[Message] = deque()
        self._held = self._page_held = False
        self._delivering = False
        self._woken = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._sent = self._failed = self._lost = self._folded = 0
        self._problem = ""
        self._last_time: str | None = None
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"notify {policy.name}")

    def __repr__(self) -> str:
        return f"<Worker {self.policy.name}: {len(self._waiting)} waiting, {self._sent} sent, {self._lost} lost>"

    def put(self, message: Message) -> None:
        """Queue *message*; makes room by dropping the oldest that is no page."""
        if len(self._waiting) >= MAX_WAITING:
            oldest = next((m for m in self._waiting if not m.urgent), self._waiting[0])
            self._waiting.remove(oldest)
            self._lose(oldest, "the queue is full")
        self._waiting.append(message)
        self._idle.clear()
        self._woken.set()

    def view(self) -> dict[str, Any]:
        """Return its counters as a document."""
        return {
            "name": self.policy.name,
            "type": self.policy.type,
            "sent": self._sent,
            "failed": self._failed,
            "lost": self._lost,
            "folded": self._folded,
            "waiting": len(self._waiting) + self._delivering,
            "held_until_time": self._held_until(),
            "problem": self._problem,
            "last_time": self._last_time,
        }

    async def attempt(self, message: Message) -> Sent | Failed:
        """Try *message* once, outside queue and budget."""
        async with self._limiter:
            outcome = await self.receiver.send(message)
        self._note(outcome)
        return outcome

    async def close(self, grace_s: float) -> None:
        """Give what may leave now *grace_s* seconds, then stop; the rest is lost."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        while self._waiting:
            self._lose(self._waiting.popleft(), "the receiver is closed")

    async def _run(self) -> None:
        while True:
            await self._deliver(await self._next())

    async def _next(self) -> Message:
        while True:
            self._woken.clear()
            message, wait_s = self._pick(clock.now())
            if message is not None:
                return message
            # Idle also while the budget is spent: a process that ends does not wait an hour for it.
            self._idle.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._woken.wait()

    def _pick(self, now: float) -> tuple[Message | None, float | None]:
        """Return the next message, or how long to wait for one (None: until there is one)."""
        if not self._waiting:
            return None, None
        practice = next((m for m in self._waiting if m.practice), None)
        if practice is not None:
            self._waiting.remove(practice)
            return practice, None
        page = next((m for m in self._waiting if m.urgent), None)
        wait_s = self._budget.wait_s(now, urgent=page is not None)
        if wait_s > 0:
            self._held = True
            self._page_held = self._page_held or page is not None
            return None, wait_s
        self._budget.spend(now)
        fold = self._page_held or (self._held and page is None)
        made = self._fold() if fold and len(self._waiting) > 1 else self._take(page)
        return self._with_notice(made, now), None

    def _with_notice(self, message: Message, now: float) -> Message:
        """Say in the last message that the budget allows that silence does not mean quiet."""
        wait_s = self._budget.wait_s(now, urgent=True)
        if wait_s <= 0:
            return message
        until = clock_text(clock.wall().timestamp() + wait_s)
        notice = f"budget   spent: what comes before {until} waits for one digest; until then look at `sidecar status`"
        return replace(message, text=f"{message.text}\n{notice}")

    def _held_until(self) -> str | None:
        """Return when what waits may leave; None when nothing is held."""
        now = clock.now()
        wait_s = self._budget.wait_s(now, urgent=any(m.urgent for m in self._waiting))
        return rfc3339(clock.wall().timestamp() + wait_s) if self._waiting and wait_s > 0 else None

    def _fold(self) -> Message:
        made = digest(list(self._waiting))
        self._folded += len(self._waiting)
        self._waiting.clear()
        self._held = self._page_held = False
        return made

    def _take(self, page: Message | None) -> Message:
        made = page or self._waiting[0]
        self._waiting.remove(made)
        self._held = self._held and bool(self._waiting)
        self._page_held = False
        return made

    async def _deliver(self, message: Message) -> None:
        self._delivering = True
        try:
            await self._persist(message)
        except asyncio.CancelledError:
            self._lose(message, "the receiver is closed")
            raise
        finally:
            self._delivering = False

    async def _persist(self, message: Message) -> None:
        give_up_at = clock.now() + self._pace.patience_s
        pause_s = self._pace.first_pause_s
        while True:
            outcome = await self.attempt(message)
            if isinstance(outcome, Sent):
                self._arrived(self.policy.name, message)
                return
            jittered_s = pause_s * (0.5 + clock.random_bits(16) / 2**17)
            asked_s = min(outcome.retry_after_s or 0.0, LONGEST_ASKED_S)
            wait_s = max(jittered_s, asked_s)
            if outcome.final or clock.now() + wait_s > give_up_at:
                self._lose(message, outcome.problem)
                return
            await asyncio.sleep(wait_s)
            pause_s = min(2 * pause_s, self._pace.longest_pause_s)

    def _note(self, outcome: Sent | Failed) -> None:
        match outcome:
            case Sent():
                self._sent += 1
                self._problem = ""
                self._last_time = rfc3339(clock.wall().timestamp())
            case Failed(problem):
                self._failed += 1
                self._problem = problem

    def _lose(self, message: Message, why: str) -> None:
        self._lost += 1
        _log.error("an alert was lost", receiver=self.policy.name, kind=message.kind, id=message.id, why=why)


class Dispatcher:
    """
    Tells every receiver. Needs a running event loop.

    Args:
        receivers: Whom to tell; `apply` changes them live.
        make: Makes a receiver of its policy.
        budget: Makes one receiver's budget.
        pace: The workers' times.

    Attributes:
        arrived: Called with the receiver's name and the incident's number when a message of it was taken.
    """

    def __init__(
        self,
        receivers: Sequence[ReceiverPolicy] = (),
        *,
        make: Callable[[ReceiverPolicy], Receiver] = receiver_of,
        budget: Callable[[], Budget] = Budget,
        pace: Pace | None = None,
    ) -> None:
        self._make = make
        self._budget = budget
        self._pace = pace or Pace()
        self._workers: dict[str, Worker] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False
        self.arrived: Callable[[str, int], None] = _nobody_asks
        self.apply(receivers)

    def __repr__(self) -> str:
        return f"<Dispatcher {list(self._workers.values())}>"

    def apply(self, receivers: Sequence[ReceiverPolicy]) -> None:
        """Go on with these receivers; one that stays keeps its queue, counters and budget."""
        names = {policy.name for policy in receivers}
        for gone in [name for name in self._workers if name not in names]:
            leaving = asyncio.get_running_loop().create_task(self._workers.pop(gone).close(0.0))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
        for policy in receivers:
            known = self._workers.get(policy.name)
            if known is None:
                self._workers[policy.name] = Worker(
                    policy, self._make(policy), self._budget(), self._pace, self._has_arrived
                )
            elif known.policy != policy:
                known.policy, known.receiver = policy, self._make(policy)

    def _has_arrived(self, name: str, message: Message) -> None:
        for number in {message.incident.get("id"), *(row["incident"] for row in message.folded)} - {None}:
            self.arrived(name, int(number))

    def notify(self, alert: Alert) -> None:
        """Queue *alert* for every receiver; returns at once."""
        if self._closed:
            return
        message = Message(
            id=clock.token_bytes(8).hex(),
            kind=alert.kind,
            incident=alert.incident,
            text=alert.text,
            urgent=alert.urgent,
            time=rfc3339(clock.wall().timestamp()),
        )
        for worker in self._workers.values():
            worker.put(message)

    def views(self) -> list[dict[str, Any]]:
        """Return the receivers' counters: {name, type, sent, failed, lost, folded, waiting, held_until_time, problem, last_time}."""
        return [worker.view() for worker in self._workers.values()]

    async def test(self, name: str) -> dict[str, Any] | None:
        """Send a test message now, once: {name, type, ok, attempts, problem}; None when there is no such receiver."""
        worker = self._workers.get(name)
        if worker is None:
            return None
        identity, now = clock.token_bytes(8).hex(), rfc3339(clock.wall().timestamp())
        outcome = await worker.attempt(Message(identity, "test", {}, TEST_TEXT, urgent=False, time=now))
        problem = outcome.problem if isinstance(outcome, Failed) else ""
        return {"name": name, "type": worker.policy.type, "ok": not problem, "attempts": 1, "problem": problem}

    async def close(self, grace_s: float = 3.0) -> None:
        """Stop; what may be sent at once gets *grace_s* seconds. Later alerts are ignored."""
        self._closed = True
        await asyncio.gather(*(worker.close(grace_s) for worker in self._workers.values()), *self._leaving)


def digest(messages: Sequence[Message]) -> Message:
    """Return one message that says what all of *messages* say."""
    latest = messages[-1]
    lines = [f"{len(messages)} messages in one, because the hour's budget was spent:"]
    lines += [
        f"- {m.time[11:19]}Z {m.kind}: {m.text.strip().partition(chr(10))[0]}" for m in messages[:MAX_DIGEST_LINES]
    ]
    if len(messages) > MAX_DIGEST_LINES:
        lines.append(f"- and {len(messages) - MAX_DIGEST_LINES} more")
    return Message(
        id=clock.token_bytes(8).hex(),
        kind="digest",
        incident=latest.incident,
        text="\n".join(lines),
        urgent=any(m.urgent for m in messages),
        time=latest.time,
        folded=[
            {"kind": m.kind, "incident": m.incident.get("id"), "text": m.text[:MAX_FOLDED_CHARS], "time": m.time}
            for m in messages
        ],
    )
