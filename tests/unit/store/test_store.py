"""The store on real files."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from sidecar.controller.effects import (
    AppendEvent,
    PutAnswer,
    PutBaseline,
    PutEvidence,
    PutIncident,
    PutIsolation,
    PutMark,
    PutOverride,
    PutRollup,
    PutSeconds,
    PutVersion,
    SetVersionState,
    Write,
)
from sidecar.store import audit, writes
from sidecar.store.errors import Cause, StoreError
from sidecar.store.schema import MIGRATIONS
from sidecar.store.store import Store
from sidecar.store.writes import must_reach_disk

VERSION = PutVersion(
    1, "listen: x\n", "h1", "ops", "first", "file", "active", 10.0, [{"path": "a", "old": 1, "new": 2}]
)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "var"


@pytest.fixture
def store(state: Path) -> Iterator[Store]:
    made = Store.open(state)
    yield made
    made.close()


def event(n: int = 1, **given: Any) -> AppendEvent:
    return replace(AppendEvent("incident.opened", 1000.0 + n, "automation", None, "service", {"n": n}), **given)


def edit(state: Path, statement: str, values: Sequence[object] = ()) -> None:
    """Change the file behind the store's back, as a hand with sqlite3 would."""
    connection = sqlite3.connect(state / "sidecar.db")
    with connection:
        connection.execute(statement, values)
    connection.close()


def test_everything_is_read_as_it_was_written(store: Store, state: Path) -> None:
    """Every kind of write comes back, also from a store that is opened anew."""
    store.write(
        [
            VERSION,
            PutIncident(1, "open", 10.0, {"id": 1, "title": "grüße \udce9", "scopes": ("a", "b")}),
            PutEvidence(1, MappingProxyType({"series": [1, 2]})),
            PutIsolation("isolation-1", False, {"id": "isolation-1"}),
            PutIsolation("isolation-2", True, {"id": "isolation-2"}),
            PutOverride("o1", False, {"id": "o1"}),
            PutBaseline("shop", {"p": 0.1}),
            PutRollup("shop", 60, {"n": 1}),
            PutMark("last", "x"),
            event(1, incident=1),
        ]
    )
    again = Store.open(state)

    for opened in (store, again):
        assert opened.version(1) == {
            "version": 1, "text": "listen: x\n", "hash": "h1", "author": "ops", "reason": "first", "source": "file",
            "state": "active", "unix": 10.0, "changes": [{"path": "a", "old": 1, "new": 2}],
        }  # fmt: skip
        assert opened.incident(1) == {"id": 1, "title": "grüße \udce9", "scopes": ["a", "b"]}
        assert opened.evidence(1) == {"series": [1, 2]}
        assert (opened.isolations(), opened.isolations(ended=True)) == (
            [{"id": "isolation-1"}],
            [{"id": "isolation-2"}],
        )
        assert (opened.overrides(), opened.overrides(ended=True)) == ([{"id": "o1"}], [])
        assert opened.baselines() == {"shop": {"p": 0.1}}
        assert opened.rollups("shop", since_unix=0, until_unix=61) == [{"minute_unix": 60, "n": 1}]
        assert opened.rollups("shop", since_unix=61, until_unix=99) == []
        assert opened.marks() == {"last": "x"}
        [row] = opened.events(incident=1)
        assert (row["sequence"], row["kind"], row["body"], row["unix"]) == (1, "incident.opened", {"n": 1}, 1001.0)
        assert opened.last_incident_id() == 1
    again.close()


def test_answers_live_a_day(store: Store, state: Path) -> None:
    """Kept answers are read in their order, and leave with the first one that is a day younger."""
    store.write([PutAnswer("b", 200.0, {"status": 409}), PutAnswer("a", 100.0, {"status": 200})])
    assert store.answers(since_unix=0.0, limit=9) == [("a", {"status": 200}), ("b", {"status": 409})]
    assert (
        store.answers(since_unix=150.0, limit=9) == store.answers(since_unix=0.0, limit=1) == [("b", {"status": 409})]
    )
    store.write([PutAnswer("c", 86_550.0, {"status": 200})])
    assert [key for key, _ in Store.open(state).answers(since_unix=0.0, limit=9)] == ["b", "c"]


def test_what_is_not_there_is_none(store: Store) -> None:
    """A missing row is None or empty, never an error."""
    assert (store.version(1), store.incident(1), store.evidence(1), store.active_version()) == (None, None, None, None)
    assert (store.events(), store.incidents(), store.versions(), store.marks()) == ([], [], [], {})
    assert store.last_incident_id() == 0


def test_putting_again_replaces(store: Store) -> None:
    """Incidents, isolations, overrides, baselines, rollups and marks are replaced under their key."""
    for state, ended in (("open", False), ("closed", True)):
        store.write(
            [
                PutIncident(1, state, 1.0, {"state": state}),
                PutOverride("o", ended, {"state": state}),
                PutIsolation("i", ended, {"state": state}),
                PutBaseline("r", {"state": state}),
                PutRollup("r", 60, {"state": state}),
                PutMark("k", state),
            ]
        )

    assert store.incidents() == store.overrides(ended=True) == store.isolations(ended=True) == [{"state": "closed"}]
    assert (store.overrides(), store.marks(), store.baselines()) == ([], {"k": "closed"}, {"r": {"state": "closed"}})


def test_pages_of_incidents_versions_and_events(store: Store) -> None:
    """Lists come newest first with a cursor; events also in order, after a sequence."""
    store.write([PutIncident(n, "open" if n % 2 else "closed", 1.0, {"id": n}) for n in range(1, 8)])
    store.write([replace(VERSION, version=n) for n in range(1, 8)])
    store.write([event(n, incident=n % 2) for n in range(1, 8)])

    def numbers(rows: list[dict[str, Any]], name: str) -> list[int]:
        return [row[name] for row in rows]

    assert numbers(store.incidents(limit=2), "id") == [7, 6]
    assert numbers(store.incidents(limit=2, before=6), "id") == [5, 4]
    assert numbers(store.incidents(states=["open"]), "id") == [7, 5, 3, 1]
    assert numbers(store.versions(limit=3, before=5), "version") == [4, 3, 2]
    assert numbers(store.events(after=5), "sequence") == [6, 7]
    assert numbers(store.events(newest_first=True, limit=2), "sequence") == [7, 6]
    assert numbers(store.events(newest_first=True, before=6, limit=2), "sequence") == [5, 4]
    assert numbers(store.events(incident=1, after=1), "sequence") == [3, 5, 7]
    assert numbers(store.events(incident=0, newest_first=True), "sequence") == [6, 4, 2]


def test_active_version_is_the_newest_active_one(store: Store) -> None:
    """What runs after a restart is the newest version that is active or waits for its confirmation."""
    store.write([VERSION, replace(VERSION, version=2), replace(VERSION, version=3, state="failed")])
    assert store.active_version() == store.version(2)

    store.write([SetVersionState(2, "reverted")])
    assert store.active_version() == store.version(1)


def test_batch_is_all_or_nothing(store: Store) -> None:
    """When one write is refused nothing of its batch is there, no event and no gap in their sequence."""
    store.write([event(1)])

    with pytest.raises(StoreError) as found:
        store.write([event(2), PutMark("k", "v"), SetVersionState(99, "active")])

    assert found.value.cause is Cause.REFUSED
    assert not found.value.retryable
    assert store.marks() == {}
    assert [row["sequence"] for row in store.write([event(3)])] == [2]
    assert store.verify()["ok"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (PutEvidence(1, {"a": 1}), PutEvidence(1, {"a": 2})),
        (VERSION, replace(VERSION, text="other")),
    ],
    ids=["evidence", "version"],
)
def test_what_is_frozen_is_never_changed(first: Write, second: Write, store: Store) -> None:
    """Evidence and config versions are written once: the same again is accepted, another content is refused."""
    store.write([first])
    store.write([first])

    with pytest.raises(StoreError, match="already stored and never changed"):
        store.write([second])


def test_repeating_a_version_keeps_its_state(store: Store) -> None:
    """A batch that is repeated because its answer was lost does not bring an old state back."""
    store.write([VERSION])
    store.write([SetVersionState(1, "superseded")])
    store.write([VERSION])

    version = store.version(1)
    assert version is not None
    assert version["state"] == "superseded"


@pytest.mark.parametrize("body", [{"at": object()}, {1 + 1j: 1}, {("a", "b"): 1}], ids=["object", "complex", "tuple"])
def test_what_is_no_json_is_refused(body: dict[str, Any], store: Store) -> None:
    """A document that cannot be stored is refused, and the store goes on."""
    with pytest.raises(StoreError, match="not storable") as found:
        store.write([event(1, body=body)])

    assert found.value.cause is Cause.REFUSED
    assert [row["sequence"] for row in store.write([event(2)])] == [1]


def test_text_that_is_no_unicode_is_stored(store: Store) -> None:
    """A client key with stray bytes does not poison the journal."""
    store.write([event(1, scope="client:shop:\udcff")])

    assert store.events()[0]["scope"] == "client:shop:\\udcff"
    assert store.verify()["ok"]


def test_what_a_person_was_told_is_synced() -> None:
    """Batches that are answered to a person reach the disk before the answer, automation's own do not wait for it."""
    assert must_reach_disk([VERSION])
    assert must_reach_disk([SetVersionState(1, "active")])
    assert must_reach_disk([event(1), event(2, author="ops")])
    assert not must_reach_disk([event(1), PutIncident(1, "open", 1.0, {}), PutRollup("r", 1, {})])


def test_files_are_private(store: Store, state: Path) -> None:
    """The directory is 0700; the database, its side files and the key are 0600."""
    store.write([event(1)])

    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in state.iterdir()} == dict.fromkeys(
        ["sidecar.db", "sidecar.db-wal", "sidecar.db-shm", "install.key"], 0o600
    )


def test_newer_schema_is_refused_untouched(state: Path) -> None:
    """A store that a newer release wrote is refused with the remedy, and stays as it is."""
    Store.open(state).close()
    edit(state, f"PRAGMA user_version={len(MIGRATIONS) + 2}")

    with pytest.raises(StoreError, match=r"newer release .* run that release again") as found:
        Store.open(state)

    assert found.value.cause is Cause.NEWER
    assert not found.value.retryable
    assert not list(state.glob("*.corrupt-*"))


def test_migration_is_repeatable_and_keeps_what_is_there(store: Store, state: Path) -> None:
    """Opening an up-to-date store changes nothing."""
    store.write([event(1), PutMark("k", "v")])
    store.close()

    again = Store.open(state)
    assert (again.marks(), again.verify()["rows"]) == ({"k": "v"}, 1)
    again.close()


# --- the chain in the file -----------------------------------------------------------------------------------------


@pytest.fixture
def chained(store: Store) -> Store:
    for n in range(1, 7):
        store.write([event(n)])
    return store


def test_events_are_gapless_and_verified(chained: Store) -> None:
    """Sequences go up by one over batches, and verify walks them all."""
    assert [row["sequence"] for row in chained.write([event(7), event(8)])] == [7, 8]

    found = chained.verify()
    assert (found["ok"], found["rows"], found["first_bad"], found["problem"]) == (True, 8, None, None)
    assert found["head"] == f"8:{chained.events(after=7)[0]['hash']}"
    assert Store(chained.path.parent / "empty").verify() == {
        "ok": True, "rows": 0, "first_bad": None, "problem": None, "head": "0:" + "0" * 64,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("statement", "first_bad", "problem"),
    [
        ("UPDATE events SET author = 'nobody' WHERE sequence = 3", 3, "does not follow"),
        ("UPDATE events SET body = '{\"n\": 9}' WHERE sequence = 6", 6, "does not follow"),
        ("UPDATE events SET unix = unix + 1e-3 WHERE sequence = 1", 1, "does not follow"),
        ("DELETE FROM events WHERE sequence = 3", 3, "event 3 was removed"),
        ("DELETE FROM events WHERE sequence IN (1, 2)", 1, "events 1 to 2 were removed"),
        ("DELETE FROM events WHERE sequence > 4", 5, "events 5 to 6 were removed at the end"),
        ("DELETE FROM events", 1, "events 1 to 6 were removed at the end"),
        ("DELETE FROM seals", 6, "the signed head was removed"),
        ("UPDATE seals SET seal = replace(seal, '[6,', '[5,')", 5, "not signed with this install key"),
        ("UPDATE seals SET seal = 'x'", 6, "the signed head was removed"),
        ("INSERT INTO events SELECT 7, unix, kind, author, incident, scope, body, hash FROM events WHERE sequence = 6", 7, ""),
        ("UPDATE events SET sequence = 13 - sequence WHERE sequence IN (2, 11)", 2, "removed"),
    ],
)  # fmt: skip
def test_every_break_is_found(statement: str, first_bad: int, problem: str, chained: Store, state: Path) -> None:
    """An edited, moved, removed or added row and a forged head are found and named."""
    edit(state, statement)

    found = chained.verify()
    assert (found["ok"], found["first_bad"]) == (False, first_bad)
    assert problem in found["problem"]


@pytest.mark.parametrize("statement", ["DELETE FROM events WHERE sequence > 4", "DELETE FROM seals",
    "UPDATE seals SET seal = replace(seal, '[6,', '[4,')",
    "INSERT INTO events SELECT 7, unix, kind, author, incident, scope, body, hash FROM events WHERE sequence = 6"])  # fmt: skip
def test_going_on_does_not_heal_a_break(statement: str, chained: Store, state: Path) -> None:
    """After a break the store still writes, and verify still says that there was one, for good."""
    edit(state, statement)

    chained.write([event(20)])
    chained.write([event(21)])
    assert not chained.verify()["ok"]

    while chained.fold(5000.0).more:
        pass
    chained.write([event(22, unix=6000.0)])
    assert not chained.verify()["ok"]


def test_rewritten_chain_is_found_by_its_head(chained: Store, state: Path) -> None:
    """Who recomputes every hash after an edit cannot sign the head."""
    from sidecar.store.chain import GENESIS, Row, next_hash

    connection = sqlite3.connect(state / "sidecar.db")
    before = GENESIS
    with connection:
        connection.execute("UPDATE events SET author = 'nobody' WHERE sequence = 2")
        for values in connection.execute("SELECT * FROM events ORDER BY sequence").fetchall():
            before = next_hash(before, Row(*values))
            connection.execute("UPDATE events SET hash = ? WHERE sequence = ?", (before, values[0]))
    connection.close()

    assert chained.verify()["problem"] == "event 6 is not the one that was signed: the chain was rewritten"


def test_other_install_key_is_said(chained: Store, state: Path) -> None:
    """A replaced key means that nothing here was signed by it."""
    chained.close()
    (state / "install.key").unlink()

    assert "not signed with this install key" in Store.open(state).verify()["problem"]


def test_older_copy_is_found_by_a_head_noted_elsewhere(chained: Store, state: Path) -> None:
    """A whole older copy is consistent in itself; a head noted elsewhere shows that the end is missing."""
    chained.close()
    copy = {path: path.read_bytes() for path in state.iterdir()}
    chained.write([event(7)])
    noted = chained.verify()["head"]
    assert chained.verify(noted)["ok"]
    chained.close()
    for path, content in copy.items():
        path.write_bytes(content)

    older = Store.open(state)
    assert older.verify()["ok"]
    assert older.verify(noted)["problem"] == "the chain ends before the noted head 7: an older copy was put back"
    older.write([event(70)])
    assert older.verify(noted)["problem"] == "event 7 is not the one that was noted: the chain was rewritten"
    older.close()


def test_fold_leaves_a_signed_base_and_verify_works_across_it(chained: Store, state: Path) -> None:
    """Old events become a signed checkpoint; the chain goes on, and an edited checkpoint is found."""
    noted = chained.verify()["head"]

    assert chained.fold(1004.0).events == 3
    assert chained.fold(1004.0).events == 0
    assert [row["sequence"] for row in chained.events()] == [4, 5, 6]
    assert chained.verify(noted)["ok"]
    assert chained.fold(9999.0).events == 3
    assert chained.verify()["ok"]
    assert [row["sequence"] for row in chained.write([event(7)])] == [7]
    assert chained.verify()["ok"]

    edit(state, "UPDATE seals SET seal = replace(seal, '[6,', '[5,') WHERE name = 'base'")
    assert "checkpoint at event 5 was not signed" in chained.verify()["problem"]


def test_fold_does_not_hide_a_break(chained: Store, state: Path) -> None:
    """A break in the part that is folded stays in the checkpoint."""
    edit(state, "UPDATE events SET author = 'nobody' WHERE sequence = 2")

    chained.fold(1004.0)

    assert chained.verify()["first_bad"] == 3
    assert "before the checkpoint at event 3: event 2 does not follow" in chained.verify()["problem"]


def test_fold_stops_at_the_first_young_event(store: Store) -> None:
    """After a clock step an old time may stand behind a young one: only a prefix of the chain is ever folded."""
    store.write([event(1, unix=10.0), event(2, unix=5000.0), event(3, unix=20.0)])

    assert store.fold(1000.0).events == 1
    assert store.verify() | {"head": ""} == {"ok": True, "rows": 2, "first_bad": None, "problem": None, "head": ""}


def test_fold_lets_ended_things_go_and_keeps_the_rest(store: Store, state: Path) -> None:
    """Old rollups, ended incidents with evidence, isolations and overrides go; open ones and versions stay."""
    store.write(
        [
            VERSION,
            PutRollup("r", 60, {}),
            PutRollup("r", 6000, {}),
            *(PutIncident(n, name, 1.0, {"id": n}) for n, name in enumerate(["open", "resolved", "closed"], 1)),
            *(PutEvidence(n, {}) for n in (1, 2, 3)),
            PutOverride("o1", True, {"id": "o1"}),
            PutOverride("o2", False, {"id": "o2"}),
            PutIsolation("i1", True, {"id": "i1"}),
            PutIsolation("i2", False, {"id": "i2"}),
        ]
    )
    folded = store.fold(1000.0)
    assert (folded.rollups, folded.incidents) == (1, 0)  # they ended just now
    for table in ("incidents", "overrides", "isolations"):
        edit(state, f"UPDATE {table} SET stored_unix = 10")

    assert store.fold(1000.0).incidents == 2

    assert store.incidents() == [{"id": 1}]
    assert [store.evidence(n) is None for n in (1, 2, 3)] == [False, True, True]
    assert (store.overrides(), store.overrides(ended=True)) == ([{"id": "o2"}], [])
    assert (store.isolations(), store.isolations(ended=True)) == ([{"id": "i2"}], [])
    assert store.version(1) is not None


def test_edited_document_is_named(store: Store, state: Path) -> None:
    """A stored document that is no JSON any more is a StoreError, not a crash."""
    store.write([PutIncident(1, "open", 1.0, {})])
    edit(state, "UPDATE incidents SET document = '{'")

    with pytest.raises(StoreError, match="a stored document is no JSON") as found:
        store.incidents()
    assert found.value.cause is Cause.CORRUPT


def test_minutes_are_bounded_in_number_too(store: Store, state: Path) -> None:
    """Of many routes the newest minutes stay, as whole minutes, however few that are in time."""
    store.write([PutRollup(f"r{i}", minute, {}) for minute in (60, 120, 180) for i in range(4)])
    with sqlite3.connect(state / "sidecar.db") as connection:
        assert audit.fold(connection, b"k" * 32, 0.0, most_rollups=9).rollups == 4
    connection.close()
    assert [row["minute_unix"] for row in store.rollups("r0", since_unix=0, until_unix=999)] == [120, 180]


def test_recorded_seconds_are_bounded_in_size(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest minutes stay that fit into the bound together."""
    monkeypatch.setattr(writes, "SECONDS_KEPT_BYTES", 25)
    for minute in (60, 120, 180):
        store.write([PutSeconds(minute, b"x" * 10)])
    assert [minute for minute, _ in store.seconds(since_unix=0)] == [120, 180]
