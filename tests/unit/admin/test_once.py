"""`Idempotency-Key`: one key, one call, one answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sidecar.controller.answers import MAX_ANSWERS, Answers
from sidecar.controller.commands import Acknowledge, Command, Done, Note
from sidecar.controller.effects import PutAnswer
from sidecar.controller.ports import Unavailable
from tests.support import documents as d
from tests.support.control import MemoryControl
from tests.unit.admin.conftest import Ask

KEY = {"Idempotency-Key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}


async def note(ask: Ask, text: str, role: str = "operator", **headers: str) -> tuple[int, Any, str | None]:
    async with ask("POST", "/incidents/12/notes", role, json={"text": text}, headers=headers or KEY) as response:
        return response.status, await response.json(), response.headers.get("Idempotency-Replayed")


async def test_a_repeated_call_is_carried_out_once(ask: Ask, control: MemoryControl) -> None:
    """
    The second call does nothing, and gets the first one's answer with a field that says so.
    """
    assert [await note(ask, "seen") for _ in range(3)] == [
        (200, d.INCIDENT, None), (200, d.INCIDENT, "true"), (200, d.INCIDENT, "true"),
    ]  # fmt: skip
    assert control.commands == [Note(12, "a-operator", "seen")]


async def test_a_key_belongs_to_one_call(ask: Ask, control: MemoryControl) -> None:
    """
    Another body, another path, or another query under the same key is 422, and is not carried out.
    """
    await note(ask, "seen")
    status, problem, _ = await note(ask, "another")
    assert (status, problem["detail"]) == (422, "this Idempotency-Key belongs to another call")
    async with ask("POST", "/incidents/12/confirm", "operator", headers=KEY) as response:
        assert response.status == 422
    assert len(control.commands) == 1


async def test_keys_of_two_tokens_are_two_keys(ask: Ask, control: MemoryControl) -> None:
    """
    What one token called, another one neither repeats nor sees.
    """
    assert [(await note(ask, "seen", role))[2] for role in ("operator", "admin")] == [None, None]
    assert len(control.commands) == 2


async def test_a_refusal_is_an_answer_too(ask: Ask) -> None:
    """
    A 409 is repeated with its status and words, as a problem.
    """
    found = []
    for _ in range(2):
        async with ask("POST", "/incidents/13/confirm", headers=KEY) as response:
            found.append((response.status, response.content_type, await response.json()))
            replayed = response.headers.get("Idempotency-Replayed")
    assert found[0] == found[1]
    assert (found[0][:2], replayed) == ((409, "application/problem+json"), "true")


async def test_a_fault_of_ours_is_not_kept(ask: Ask, control: MemoryControl) -> None:
    """
    After a 503 the same call with the same key is carried out.
    """
    whole = control.command
    answers = iter([Unavailable("the disk is full", "free some space")])

    async def command(given: Command) -> Done:
        error = next(answers, None)
        if error is not None:
            raise error
        return await whole(given)

    control.command = command
    assert [(await note(ask, "seen"))[0] for _ in range(2)] == [503, 200]


async def test_the_first_call_is_under_way(ask: Ask, control: MemoryControl) -> None:
    """
    A second one is told to ask again; once the first has its answer, so has the second.
    """
    begun, go_on = asyncio.Event(), asyncio.Event()
    whole = control.command

    async def command(given: Command) -> Done:
        begun.set()
        await go_on.wait()
        return await whole(given)

    control.command = command
    first = asyncio.create_task(note(ask, "seen"))
    await begun.wait()
    status, problem, _ = await note(ask, "seen")
    assert (status, problem["hint"]) == (409, "ask again in a second, with the same key")
    go_on.set()
    assert (await first)[0] == 200
    assert (await note(ask, "seen"))[2] == "true"


async def test_what_was_not_understood_keeps_nothing(ask: Ask, control: MemoryControl) -> None:
    """
    A body that does not fit is no call: the corrected one may use the same key.
    """
    assert (await note(ask, "   "))[0] == 422
    assert (await note(ask, "seen"))[0] == 200
    assert len(control.commands) == 1


@pytest.mark.parametrize("key", ["a b", "x" * 256, "ä"])
async def test_a_malformed_key(ask: Ask, control: MemoryControl, key: str) -> None:
    """
    A key that is no key is 400; nothing is done.
    """
    status, problem, _ = await note(ask, "seen", **{"Idempotency-Key": key})
    assert (status, problem["errors"][0]["path"]) == (400, "header.Idempotency-Key")
    assert control.commands == []


async def test_answers_are_stored_but_secrets_are_not(ask: Ask, control: MemoryControl) -> None:
    """
    What survives a restart is every answer except one that holds a token; in memory that one is repeated, too.
    """
    await note(ask, "seen")
    tokens = []
    for _ in range(2):
        async with ask("POST", "/tokens", json={"name": "ci", "role": "viewer"}, headers=KEY) as response:
            tokens.append((response.status, (await response.json())["token"]))
    assert tokens == [(200, "sidecar_0123")] * 2
    stored = [write for writes in control.kept for write in writes]
    assert [type(write) for write in stored] == [PutAnswer]
    again = Answers(control.store, [(write.key, write.document) for write in stored])
    assert again.find(stored[0].key) == stored[0].document


async def test_answers_are_bounded(control: MemoryControl) -> None:
    """
    The oldest leave when there are too many, or when they are too large together.
    """
    answers = Answers(control.store)
    row = {"fingerprint": "f", "status": 200, "media": "application/json", "headers": {}, "body": "x" * 10}
    for number in range(MAX_ANSWERS + 5):
        await answers.keep(str(number), row, secret=False)
    assert [answers.find(str(number)) is None for number in (0, 4, 5)] == [True, True, False]
    await answers.keep("large", {**row, "body": "x" * 3_999_999}, secret=False)
    assert answers.find(str(MAX_ANSWERS + 4)) is None
    assert answers.find("large") is not None


async def test_reading_takes_no_key(ask: Ask, control: MemoryControl) -> None:
    """
    A GET with a key is a GET: nothing is kept.
    """
    async with ask("GET", "/incidents/12", headers=KEY) as response:
        assert (response.status, "Idempotency-Replayed" in response.headers) == (200, False)
    assert control.kept == []
    async with ask("POST", "/incidents/12/acknowledge", headers=KEY) as response:
        assert response.status == 200
    assert control.commands == [Acknowledge(12, "a-admin")]


async def test_each_change_is_answered_when_it_is_stored(ask: Ask, control: MemoryControl) -> None:
    """
    A revoked token must not come back with the next controller: whatever changes waits for the store, reading does not.
    """
    async with ask("GET", "/tokens", "admin"):
        assert control.settled == 0
    async with ask("POST", "/tokens", "admin", json={"name": "ci", "role": "viewer"}):
        assert control.settled == 1
    async with ask("DELETE", "/tokens/ci", "admin", headers=KEY):
        assert control.settled == 2
