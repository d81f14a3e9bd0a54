"""A whole sidecar whose store fails: disk full, locked, damaged at the start, damaged while it runs."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.client import Client
from tests.support.sidecar import Shop, Sidecar, gone, kill, settings, sidecar, until

OVERRIDE = {"action": "isolate", "ttl": "10m", "reason": "a test"}


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    """The sample API."""
    with Shop() as shop:
        yield shop


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 2 MB; only root can mount one."""
    with tempfile.TemporaryDirectory(prefix="sc-disk-") as folder:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=False, capture_output=True, text=True
        )
        if mounted.returncode:
            pytest.skip(f"a small file system cannot be mounted: {mounted.stderr.strip()}; run as root")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path) -> Path:
    """Leave no room on *disk*; removing the returned file gives it back."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return ballast


def store_of(running: Sidecar) -> dict[str, Any]:
    """Return what the status says of the store."""
    return dict(running.get("/status")["store"])


def checkout(running: Sidecar) -> int:
    """Return the status of one order."""
    with Client(running.address()) as client:
        return client.ask("POST", "/api/checkout", b'{"items": []}').status


def put_until_full(running: Sidecar) -> dict[str, Any]:
    """Set an override again and again until the store no longer takes it."""

    def put() -> dict[str, Any] | None:
        body = running.api("PUT", "/overrides/route:checkout", OVERRIDE | {"reason": "x" * 500}).body
        return None if body["durable"] else dict(body)

    return until(put, "an override that the store does not take")


def test_a_full_disk_stops_nothing_but_applies(shop: Shop, small_disk: Path) -> None:
    """
    On a full disk traffic and containment go on, marked not durable; an apply gets 503 with the cause; once there is
    room again everything is stored by itself, and survives a kill.
    """
    with sidecar(shop.url, state=str(small_disk / "state")) as running, running.load(50) as load:
        load.wait(50)
        version = running.get("/config")["version"]
        ballast = fill(small_disk)
        assert put_until_full(running)["durable"] is False
        assert checkout(running) == 503
        assert [row["durable"] for row in running.get("/overrides")["items"]] == [False]
        assert not store_of(running)["ok"]
        assert "full" in store_of(running)["problem"]

        running.config["routes"][1]["limit"] = {"rate": "1/m", "burst": 1}
        refused = running.apply(running.text)
        assert refused.status == 503
        assert "full" in refused.body["detail"]
        assert running.get("/config")["version"] == version
        assert not store_of(running)["ok"]  # reading worked all the time, and says nothing about writing
        assert running.get("/audit")["items"]

        ballast.unlink()
        until(lambda: store_of(running)["ok"] and not store_of(running)["waiting"], "it is stored by itself")
        until(lambda: running.get("/overrides")["items"][0]["durable"], "the override is durable")
        assert running.get("/audit/verify")["ok"] is True
        load.wait(50)
        load.stop()
        assert not load.failed, load.said()

        kill(running.controller())
        until(lambda: "the supervisor lives" in running.observe("/livez").text or running.serving(), "an answer")
        until(running.serving, "a new controller serves")
        assert running.get("/overrides")["items"][0]["reason"] == "x" * 500


def test_a_controller_that_starts_on_a_full_disk_forgets_nothing(shop: Shop, small_disk: Path) -> None:
    """
    A controller that is killed while the disk is full comes back with the version, overrides and audit rows as stored.
    """
    with sidecar(shop.url, state=str(small_disk / "state")) as running:
        running.config["routes"][1]["limit"] = {"rate": "4000/s", "burst": 4000}
        assert running.apply(running.text).status == 200
        assert running.api("PUT", "/overrides/route:default", OVERRIDE).body["durable"] is True
        version = running.get("/config")["version"]
        fill(small_disk)
        put_until_full(running)
        old = running.controller()
        kill(old)
        until(lambda: gone(old), "the controller is gone")
        until(running.serving, "a new controller serves")
        assert running.get("/config")["version"] == version
        assert "route:default" in {row["scope"] for row in running.get("/overrides")["items"]}
        assert running.get("/audit/verify")["ok"] is True


def test_a_locked_store_waits(shop: Shop) -> None:
    """
    While another process holds the database, containment acts at once and waits for its place in the store.
    """
    with sidecar(shop.url) as running:
        with contextlib.closing(sqlite3.connect(running.state / "sidecar.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            answer = running.api("PUT", "/overrides/route:checkout", OVERRIDE)
            assert (answer.status, answer.body["durable"]) == (200, False)
            assert checkout(running) == 503
            until(lambda: "locked" in store_of(running)["problem"], "it says why")
            assert running.apply(running.text).status == 503
        until(lambda: running.get("/overrides")["items"][0]["durable"], "it is stored by itself")
        assert running.apply(running.text).status == 200


@pytest.mark.parametrize("damage", [b"this is no database", b"SQLite format 3\0" + os.urandom(8000)])
def test_a_damaged_store_is_set_aside_at_the_start(shop: Shop, damage: bytes) -> None:
    """
    A start with a damaged database keeps the file beside a new one, says so, and serves.
    """
    starting = Sidecar(settings(shop.url))
    starting.state.mkdir()
    (starting.state / "sidecar.db").write_bytes(damage)
    with starting as running:
        aside = list(running.state.glob("sidecar.db.corrupt-*"))
        assert [file.read_bytes() for file in aside] == [damage]
        assert store_of(running)["set_aside"] == str(aside[0])
        assert store_of(running)["ok"]
        assert checkout(running) == 201
        assert running.get("/config")["version"] == 1


def test_a_store_damaged_while_running_is_made_anew(shop: Shop) -> None:
    """
    When the file turns out damaged under a running sidecar it is set aside, and what is in force is stored into a new one.
    """
    with sidecar(shop.url) as running:
        assert running.apply(running.text).status == 200
        assert running.api("PUT", "/overrides/route:checkout", OVERRIDE).body["durable"] is True
        before = running.get("/config/versions")
        file = running.state / "sidecar.db"
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("INSERT OR REPLACE INTO marks VALUES ('test', 'here')")  # ours reads its pages anew
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        size = file.stat().st_size
        with file.open("r+b") as pages:
            pages.seek(4096)
            pages.write(os.urandom(size - 4096))

        def noticed() -> bool:
            running.api("PUT", "/overrides/route:default", OVERRIDE)
            return bool(store_of(running)["set_aside"] and store_of(running)["ok"])

        until(noticed, "it is noticed")
        assert running.apply(running.text).status == 200
        running.restart()
        assert running.get("/config/versions")["items"][1:] == [
            row | {"state": "superseded"} for row in before["items"]
        ]
        assert {row["scope"] for row in running.get("/overrides")["items"]} == {"route:checkout", "route:default"}
        assert running.get("/audit/verify")["ok"] is True
