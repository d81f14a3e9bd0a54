"""Queue, budget, digest, retries and losses of the dispatcher, on a receiver that answers by script."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import structlog

from sidecar.config.policies import ReceiverPolicy
from sidecar.controller.effects import Alert
from sidecar.notify.budget import Budget
from sidecar.notify.dispatch import MAX_WAITING, Dispatcher, Pace, digest
from sidecar.notify.log import LogReceiver
from sidecar.notify.message import Failed, Message, Sent
from tests.support import documents as d

PAGER = ReceiverPolicy("pager", "webhook", "http://127.0.0.1/")
FAST = Pace(first_pause_s=0.001, longest_pause_s=0.002, patience_s=5.0, tries_per_s=1000.0)


class Script:
    """A receiver that answers what the script says, then `Sent` for ever; `arrived` tells each try."""

    def __init__(self, *answers: Sent | Failed, gate: asyncio.Event | None = None) -> None:
        self.answers = list(answers)
        self.tries: list[Message] = []
        self.gate = gate
        self.arrived: asyncio.Queue[Message] = asyncio.Queue()

    async def send(self, message: Message) -> Sent | Failed:
        self.tries.append(message)
        self.arrived.put_nowait(message)
        if self.gate is not None:
            await self.gate.wait()
        return self.answers.pop(0) if self.answers else Sent()

    async def messages(self, count: int) -> list[Message]:
        """Return the next *count* tries."""
        async with asyncio.timeout(5.0):
            return [await self.arrived.get() for _ in range(count)]


def alert(kind: str = "opened", *, urgent: bool = False, incident: int = 12) -> Alert:
    return Alert(kind, {**d.INCIDENT, "id": incident}, f"{kind} {incident}\nmore", urgent)


def dispatcher(script: Script, receivers: Sequence[ReceiverPolicy] = (PAGER,), **given: Any) -> Dispatcher:
    return Dispatcher(receivers, make=lambda _: script, pace=given.pop("pace", FAST), **given)


def view(made: Dispatcher, **expected: Any) -> dict[str, Any]:
    [row] = made.views()
    return {name: row[name] for name in expected}


async def test_alert_arrives_once() -> None:
    """An alert becomes one message with the incident's words and commands."""
    script = Script()
    made = dispatcher(script)
    made.notify(alert("escalated", urgent=True))
    [message] = await script.messages(1)
    await made.close()
    assert (message.kind, message.text, message.urgent) == ("escalated", "escalated 12\nmore", True)
    assert message.document()["commands"] == d.INCIDENT["commands"]
    expected = {"sent": 1, "failed": 0, "lost": 0, "waiting": 0, "problem": ""}
    assert view(made, **expected) == expected
    assert made.views()[0]["last_time"].endswith("Z")


async def test_retries_keep_the_id() -> None:
    """A message is tried again under the same id until it arrives; each failed try is counted."""
    script = Script(Failed("answered 500"), Failed("answered 429", retry_after_s=0.001))
    made = dispatcher(script)
    made.notify(alert())
    tries = await script.messages(3)
    await made.close()
    assert len({message.id for message in tries}) == 1
    expected = {"sent": 1, "failed": 2, "lost": 0, "problem": ""}
    assert view(made, **expected) == expected


async def test_final_refusal_is_lost_and_the_next_goes_on() -> None:
    """A message that was refused for good is counted as lost and does not block the next."""
    script = Script(Failed("answered 400", final=True))
    made = dispatcher(script)
    made.notify(alert("opened"))
    made.notify(alert("resolved"))
    assert [message.kind for message in await script.messages(2)] == ["opened", "resolved"]
    await made.close()
    expected = {"sent": 1, "failed": 1, "lost": 1}
    assert view(made, **expected) == expected


async def test_patience_ends() -> None:
    """After the bounded time a message is given up and the loss shown with its cause."""
    script = Script(*[Failed("answered 503")] * 1000)
    made = dispatcher(script, pace=Pace(0.01, 0.01, 0.03, 1000.0))
    made.notify(alert())
    async with asyncio.timeout(5.0):
        await made.close(grace_s=5.0)
    expected = {"sent": 0, "lost": 1, "waiting": 0, "problem": "answered 503"}
    assert view(made, **expected) == expected
    assert view(made, failed=0)["failed"] >= 2


async def test_budget_folds_the_rest_into_one_digest() -> None:
    """Four ordinary messages go out alone, a page on top, and what was held leaves as one digest."""
    script = Script()
    made = dispatcher(script, budget=lambda: Budget(hour_s=0.4))
    for number in range(1, 8):
        made.notify(alert(incident=number))
    assert [message.incident["id"] for message in await script.messages(4)] == [1, 2, 3, 4]
    made.notify(alert("escalated", urgent=True, incident=9))
    [page] = await script.messages(1)
    assert (page.kind, page.urgent, page.incident["id"]) == ("escalated", True, 9)
    [folded] = await script.messages(1)
    await made.close()
    assert (folded.kind, [row["incident"] for row in folded.folded]) == ("digest", [5, 6, 7])
    assert "- " + folded.time[11:19] + "Z opened: opened 5" in folded.text
    expected = {"sent": 6, "folded": 3, "lost": 0}
    assert view(made, **expected) == expected


async def test_the_last_message_of_the_hour_says_so() -> None:
    """Whoever reads it knows that silence does not mean quiet; until when stands in the view, too."""
    script = Script()
    made = dispatcher(script, budget=lambda: Budget(per_hour=2, reserve=0))
    for number in range(1, 5):
        made.notify(alert(urgent=True, incident=number))
    first, last = await script.messages(2)
    assert "budget" not in first.text
    assert last.text.splitlines()[-1].startswith("budget   spent: what comes before ")
    assert made.views()[0]["held_until_time"] is not None
    await made.close()
    assert made.views()[0]["held_until_time"] is None


async def test_a_drill_takes_nothing_from_the_budget() -> None:
    """What a drill says goes out though the hour is spent, and a real page after it still has its place."""
    script = Script()
    made = dispatcher(script, budget=lambda: Budget(per_hour=1, reserve=0))
    drilled = {**d.INCIDENT, "id": 3, "drill": True}
    for kind in ("opened", "escalated", "resolved"):
        made.notify(Alert(kind, drilled, kind, False))
    made.notify(alert(urgent=True, incident=4))
    tries = await script.messages(4)
    made.notify(Alert("resolved", drilled, "resolved", False))
    tries += await script.messages(1)
    await made.close()
    assert [message.incident["id"] for message in tries] == [3, 3, 3, 4, 3]


async def test_what_arrived_is_told_once_it_was_taken() -> None:
    """The receiver's name and the incident's number, not at the try that failed."""
    script, taken = Script(Failed("answered 500")), asyncio.Queue[tuple[str, int]]()
    made = dispatcher(script)
    made.arrived = lambda name, number: taken.put_nowait((name, number))
    made.notify(alert())
    async with asyncio.timeout(5.0):
        assert await taken.get() == ("pager", 12)
    await made.close()
    assert (len(script.tries), taken.qsize()) == (2, 0)


async def test_page_storm_is_bounded_too() -> None:
    """Six pages go out alone; the rest of a storm leaves as one urgent digest."""
    script = Script()
    made = dispatcher(script, budget=lambda: Budget(hour_s=0.4))
    for number in range(1, 31):
        made.notify(alert(urgent=True, incident=number))
    tries = await script.messages(7)
    await made.close()
    assert [message.kind for message in tries] == ["opened"] * 6 + ["digest"]
    assert (tries[-1].urgent, len(tries[-1].folded)) == (True, 24)
    assert "- and 4 more" in tries[-1].text.splitlines()


async def test_full_queue_drops_the_oldest_that_is_no_page() -> None:
    """A receiver that hangs holds a bounded number of messages; pages stay, losses are counted."""
    gate = asyncio.Event()
    script = Script(gate=gate)
    made = dispatcher(script)
    made.notify(alert(incident=1))
    await script.messages(1)
    made.notify(alert(urgent=True, incident=2))
    for number in range(3, MAX_WAITING + 3):
        made.notify(alert(incident=number))
    expected = {"lost": 1, "waiting": MAX_WAITING + 1}
    assert view(made, **expected) == expected
    gate.set()
    assert [message.incident["id"] for message in await script.messages(2)] == [2, 4]
    await made.close()


async def test_one_that_hangs_delays_nobody_else() -> None:
    """Each receiver has its own queue."""
    hanging, quick = Script(gate=asyncio.Event()), Script()
    other = ReceiverPolicy("chat", "webhook", "http://127.0.0.1/chat")
    made = Dispatcher([PAGER, other], make=lambda p: hanging if p is PAGER else quick, pace=FAST)
    made.notify(alert())
    [message] = await quick.messages(1)
    assert message.kind == "opened"
    await made.close(grace_s=0.0)


async def test_apply_keeps_what_stays() -> None:
    """A receiver whose address changes keeps its counters; one that is gone is not told; a new one is."""
    first, second = Script(), Script()
    moved = ReceiverPolicy("pager", "webhook", "http://127.0.0.1/new")
    made = Dispatcher([PAGER], make=lambda p: first if p is PAGER else second, pace=FAST)
    made.notify(alert("opened"))
    await first.messages(1)
    made.apply([moved])
    made.notify(alert("resolved"))
    assert [message.kind for message in await second.messages(1)] == ["resolved"]
    await made.close()
    assert view(made, sent=0) == {"sent": 2}
    assert len(first.tries) == 1


async def test_apply_ends_what_is_gone() -> None:
    """A receiver that leaves the config is no longer shown or told."""
    script = Script()
    made = dispatcher(script)
    made.apply([])
    made.notify(alert())
    await made.close()
    assert (made.views(), script.tries) == ([], [])


async def test_close_counts_what_it_could_not_send() -> None:
    """What waits when the process ends is lost, and alerts after that are ignored."""
    script = Script(gate=asyncio.Event())
    made = dispatcher(script)
    made.notify(alert(incident=1))
    await script.messages(1)
    made.notify(alert(incident=2))
    await made.close(grace_s=0.01)
    made.notify(alert(incident=3))
    expected = {"lost": 2, "waiting": 0}
    assert view(made, **expected) == expected


async def test_spent_budget_does_not_hold_up_the_end() -> None:
    """A process that ends does not wait an hour for a digest."""
    script = Script()
    made = dispatcher(script)
    for number in range(1, 8):
        made.notify(alert(incident=number))
    await script.messages(4)
    async with asyncio.timeout(2.0):
        await made.close(grace_s=60.0)
    assert view(made, lost=0) == {"lost": 3}


async def test_test_message_says_what_happened() -> None:
    """A test goes around queue and budget, once, and says why it did not arrive."""
    script = Script(Failed("answered 401", final=True))
    made = dispatcher(script, budget=lambda: Budget(per_hour=1, reserve=1))
    assert await made.test("pager") == {
        "name": "pager", "type": "webhook", "ok": False, "attempts": 1, "problem": "answered 401",
    }  # fmt: skip
    assert (await made.test("pager") or {})["ok"] is True
    assert await made.test("nobody") is None
    assert [message.kind for message in script.tries] == ["test", "test"]
    await made.close()


async def test_log_receiver_writes_one_line() -> None:
    """The log receiver writes a structured line with what a person needs."""
    with structlog.testing.capture_logs() as lines:
        outcome = await LogReceiver().send(Message("id", "opened", d.INCIDENT, "text", urgent=True, time=d.NOW))
    assert outcome == Sent()
    [line] = lines
    assert (line["event"], line["log_level"], line["incident"], line["commands"]) == (
        "alert", "error", 12, d.INCIDENT["commands"],
    )  # fmt: skip


@pytest.mark.parametrize("count", [2, 20])
def test_digest_names_each_message(count: int) -> None:
    """A digest has one line a message and the latest incident."""
    messages = [Message(str(n), "updated", {"id": n}, f"text {n}", urgent=False, time=d.NOW) for n in range(count)]
    made = digest(messages)
    assert (made.incident, len(made.text.splitlines()), made.urgent) == ({"id": count - 1}, count + 1, False)
