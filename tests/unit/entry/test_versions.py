"""What a worker answers to Prepare and Commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.config.certificates import CertificateError
from sidecar.config.policies import Compiled
from sidecar.entry.compiling import compile_now
from sidecar.entry.told import Told
from sidecar.entry.versions import Versions
from sidecar.link.frames import Ack, Prepare

TOLD = Told("worker-0", 0, "e", 0, (), -1, Path("/nowhere"), None, {}, {})
TEXT = "upstream: {endpoints: ['http://127.0.0.1:1']}\n"
Apply = Callable[[Compiled, int], None]


@pytest.fixture
def compiled() -> Compiled:
    return compile_now(TEXT, name="a test", flags={})


def made(compiled: Compiled, apply: Apply) -> tuple[Versions, asyncio.Queue[Ack]]:
    """Return the versions of a worker that runs TEXT, and what it answers."""
    answers: asyncio.Queue[Ack] = asyncio.Queue()
    return Versions(TOLD, (TEXT, compiled), apply, answers.put_nowait), answers


async def test_what_was_prepared_is_in_force_after_commit(compiled: Compiled) -> None:
    """
    A text that runs already is compiled no second time; both steps are answered without a problem.
    """
    applied: list[tuple[Compiled, int]] = []
    versions, answers = made(compiled, lambda *what: applied.append(what))
    versions.prepare(Prepare(7, TEXT))
    assert await answers.get() == Ack(TOLD.index, "prepare", 7)
    await versions.commit(7)
    assert answers.get_nowait() == Ack(TOLD.index, "commit", 7)
    assert applied == [(compiled, 7)]


async def test_what_was_not_prepared_is_refused(compiled: Compiled) -> None:
    """
    Neither before a Prepare nor for another version is anything applied.
    """
    versions, answers = made(compiled, lambda *_: pytest.fail("applied"))
    await versions.commit(1)
    versions.prepare(Prepare(2, TEXT))
    await answers.get()
    await versions.commit(3)
    assert answers.get_nowait().problem == "version 3 was not prepared here"


async def test_a_version_that_cannot_be_in_force_says_why(compiled: Compiled) -> None:
    """
    Certificate files that changed since Prepare: the answer names the file.
    """

    def failing(*_: object) -> None:
        raise CertificateError("tls.certificate", "/etc/tls.crt", "cannot be read")

    versions, answers = made(compiled, failing)
    versions.prepare(Prepare(2, TEXT))
    await answers.get()
    await versions.commit(2)
    assert answers.get_nowait() == Ack(TOLD.index, "commit", 2, "/etc/tls.crt cannot be read")
