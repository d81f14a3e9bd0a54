"""Two phases over workers on a real link: who counts, who refuses, who is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from sidecar.controller.rollout import Rollout
from tests.support.workers import Workers, linked, until


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    """A link without workers yet."""
    async with linked() as made:
        yield made


def rollout_over(workers: Workers, answer_s: float = 5.0) -> Rollout:
    """Return a rollout that hears the workers."""
    rollout = Rollout(workers.link, answer_s=answer_s)
    workers.on_ack, workers.on_lost = rollout.take, rollout.lost
    return rollout


async def test_all_prepare_then_all_commit(workers: Workers) -> None:
    """
    Both phases answer with everybody who has acknowledged, and no problem.
    """
    rollout = rollout_over(workers)
    everybody = await workers.join(3)
    prepared = await rollout.prepare(7, "text")
    assert prepared == ({0, 1, 2}, "")
    assert await rollout.commit(7, prepared[0]) == ({0, 1, 2}, "")
    assert [worker.orders for worker in everybody] == [[("Prepare", 7), ("Commit", 7)]] * 3


async def test_no_worker_is_nobody_to_wait_for(workers: Workers) -> None:
    """
    Without workers both phases are done at once: those who come boot from what is active.
    """
    assert await rollout_over(workers).prepare(7, "text") == (frozenset(), "")


async def test_a_refusal_is_told_with_the_worker(workers: Workers) -> None:
    """
    One worker that refuses is named with its problem; the others count as prepared.
    """
    rollout = rollout_over(workers)
    everybody = await workers.join(2)
    everybody[1].refuses = {"prepare": "no room"}
    assert await rollout.prepare(7, "text") == ({0}, "worker 1: no room")


async def test_silence_is_a_refusal(workers: Workers) -> None:
    """
    A worker that says nothing for the whole time has refused.
    """
    rollout = rollout_over(workers, answer_s=0.2)
    everybody = await workers.join(2)
    everybody[0].refuses = {"prepare": None}
    assert await rollout.prepare(7, "text") == ({1}, "worker 0: no answer within 0.2 s")


async def test_a_worker_that_dies_is_no_refusal(workers: Workers) -> None:
    """
    A worker whose link ends while it is waited for neither refuses nor counts.
    """
    rollout = rollout_over(workers)
    everybody = await workers.join(2)
    everybody[0].refuses = {"prepare": None}
    asking = asyncio.create_task(rollout.prepare(7, "text"))
    await until(lambda: everybody[0].orders)
    await everybody[0].leave()
    assert await asking == ({1}, "")


async def test_answers_to_something_else_do_not_count(workers: Workers) -> None:
    """
    An acknowledgement of another version or another phase leaves the question open.
    """
    rollout = rollout_over(workers, answer_s=0.3)
    (worker,) = await workers.join(1)
    worker.refuses = {"prepare": None}
    asking = asyncio.create_task(rollout.prepare(7, "text"))
    await until(lambda: worker.orders)
    worker.say("prepare", 6)
    worker.say("commit", 7)
    assert await asking == (frozenset(), "worker 0: no answer within 0.3 s")
    worker.say("prepare", 7)  # too late: nobody asks any more


async def test_bring_tells_one_worker_both(workers: Workers) -> None:
    """
    A worker that is behind is told to prepare and to commit, and nobody else is.
    """
    rollout = rollout_over(workers)
    everybody = await workers.join(2)
    rollout.bring(1, 9, "text")
    await until(lambda: len(everybody[1].orders) == 2)
    assert [worker.orders for worker in everybody] == [[], [("Prepare", 9), ("Commit", 9)]]
