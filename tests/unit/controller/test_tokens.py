"""Tokens over a real journal: shown once, kept by their hash, revoked at once and for good."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.policies import Token
from sidecar.controller.journal import Journal
from sidecar.controller.ports import ConfigRefused, Unavailable
from sidecar.controller.tokens import MARK_TOKENS, Keyring
from sidecar.store.store import Store


def named(name: str, role: str = "admin", secret: str = "s") -> Token:
    return Token(name, role, hashlib.sha256(secret.encode()).hexdigest())


FIRST = named("admin.token")


class Bench:
    """A journal over a real file, and keyrings that live one after the other on it."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.file: list[Token] = []
        self.events: list[Any] = []
        self.journal = Journal(state, lambda _, event: self.events.append(event))

    async def keyring(self, first: Token | None = FIRST) -> Keyring:
        marks: dict[str, str] = await self.journal.read(lambda store: store.marks())
        return Keyring(lambda: tuple(self.file), first, self.journal, marks.get(MARK_TOKENS, ""))

    def stored(self) -> str:
        store = Store(self.state)
        try:
            return str(store.marks())
        finally:
            store.close()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path / "state")
    await made.journal.open()
    yield made
    await made.journal.close()


def good(tokens: Sequence[Token]) -> list[str]:
    return [token.name for token in tokens]


async def test_an_issued_token_is_good_at_once_and_after_a_restart(bench: Bench) -> None:
    """
    The secret is in the answer alone; what is stored and listed is no more than its hash, and the name.
    """
    keys = await bench.keyring()
    made = await keys.new("ci", "operator", "ops")
    assert (made["name"], made["role"], made["author"]) == ("ci", "operator", "ops")
    digest = hashlib.sha256(made["token"].encode()).hexdigest()
    for keyring in (keys, await bench.keyring()):
        assert [(t.name, t.role, t.sha256) for t in keyring.valid()][1:] == [("ci", "operator", digest)]
        assert [row["name"] for row in keyring.documents()] == ["admin.token", "ci"]
        assert digest not in str(keyring.documents())
    assert made["token"] not in bench.stored()
    assert [(event.kind, event.author, event.body) for event in bench.events] == [
        ("token.issued", "ops", {"name": "ci", "role": "operator"})
    ]


async def test_a_revoked_token_stays_revoked(bench: Bench) -> None:
    """
    After a restart too; its name may be given again, to another secret.
    """
    keys = await bench.keyring()
    old = await keys.new("ci", "viewer", "ops")
    row = keys.revoke("ci", "ops")
    assert (row["revoked_by"], row["revoked_time"] is not None) == ("ops", True)
    assert good(keys.valid()) == ["admin.token"]
    again = await bench.keyring()
    assert good(again.valid()) == ["admin.token"]
    new = await again.new("ci", "viewer", "ops")
    assert new["token"] != old["token"]
    assert [(r["name"], r["revoked_by"]) for r in again.documents()] == [
        ("admin.token", None), ("ci", None), ("ci", "ops"),
    ]  # fmt: skip
    with pytest.raises(ConfigRefused, match="there is no token 'nobody'"):
        again.revoke("nobody", "ops")


async def test_a_token_of_the_file_can_be_revoked(bench: Bench) -> None:
    """
    It stays refused while the file names it; the file's new secret under that name is good.
    """
    bench.file = [named("ada"), named("bob", "operator", "b")]
    keys = await bench.keyring()
    assert keys.revoke("bob", "ada")["source"] == "file"
    assert good(keys.valid()) == ["ada"]
    assert good((await bench.keyring()).valid()) == ["ada"]
    bench.file = [named("ada"), named("bob", "operator", "new")]
    assert good(keys.valid()) == ["ada", "bob"]


async def test_the_first_token_counts_until_the_file_names_one(bench: Bench) -> None:
    """
    Issued tokens do not switch it off; a token of the file does.
    """
    keys = await bench.keyring()
    await keys.new("ci", "admin", "ops")
    assert good(keys.valid()) == ["admin.token", "ci"]
    bench.file = [named("ada", secret="a")]
    assert good(keys.valid()) == ["ada", "ci"]


async def test_nobody_revokes_the_token_that_he_uses(bench: Bench) -> None:
    """
    So an admin is always left; with another admin's token it is possible.
    """
    keys = await bench.keyring()
    with pytest.raises(ConfigRefused, match="is the token that you use") as refused:
        keys.revoke("admin.token", "admin.token")
    assert refused.value.status == 409
    await keys.new("ada", "admin", "admin.token")
    keys.revoke("admin.token", "ada")
    assert good(keys.valid()) == ["ada"]
    assert keys.documents()[-1]["source"] == "first"


async def test_a_name_is_one_token(bench: Bench) -> None:
    """
    A second token of a name that is in use is refused, whatever the first one's source.
    """
    keys = await bench.keyring()
    with pytest.raises(ConfigRefused, match=r"a token 'admin\.token' exists"):
        await keys.new("admin.token", "viewer", "ops")


async def test_nothing_is_issued_that_is_not_stored(bench: Bench) -> None:
    """
    With the store down there is no such token, and no event.
    """
    broken = Journal(bench.state / "sidecar.db", lambda _, event: bench.events.append(event))  # a file is no directory
    keys = Keyring(lambda: (), FIRST, broken, "")
    with pytest.raises(Unavailable):
        await keys.new("ci", "viewer", "ops")
    assert good(keys.valid()) == ["admin.token"]
    assert bench.events == []
