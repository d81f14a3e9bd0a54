"""
What the CLI prints, verb by verb, in text and JSON: compared with `tests/golden/cli/NAME.txt`.

After a wanted change: `GOLDEN_UPDATE=1 pytest tests/golden`, then read the diff.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sidecar.cli.app import app
from sidecar.controller.commands import Done
from tests.support import documents as d
from tests.support.admin import admin_server
from tests.support.control import SECRETS, MemoryControl

FOLDER = Path(__file__).parent / "cli"
CONFIG = "upstream: {endpoints: ['http://127.0.0.1:9000']}\n"

CASES = {
    "status": ["status"],
    "status-json": ["status", "-o", "json"],
    "top": ["top"],
    "explain": ["explain", "5f2a-1c"],
    "explain-unknown": ["explain", "nothing"],
    "events": ["events", "--since", "39", "--limit", "2"],
    "events-json": ["events", "--since", "39", "--limit", "2", "-o", "json"],
    "tap": ["tap", "--route", "checkout", "--limit", "1"],
    "tap-json": ["tap", "--status", "5xx", "--slower", "200ms", "--limit", "1", "-o", "json"],
    "tap-unknown-route": ["tap", "--route", "nowhere"],
    "tap-bad-status": ["tap", "--status", "bad"],
    "control-list": ["control", "list"],
    "control-show": ["control", "show", "detect.errors:checkout"],
    "control-show-unknown": ["control", "show", "detect.nothing"],
    "breaker-reset": ["breaker", "reset", "checkout"],
    "notify-test": ["notify", "test", "pager"],
    "notify-test-unknown": ["notify", "test", "nobody"],
    "incident-list": ["incident", "list"],
    "incident-list-json": ["incident", "list", "-o", "json"],
    "incident-list-none": ["incident", "list", "--state", "closed"],
    "incident-show": ["incident", "show", "12"],
    "incident-show-json": ["-o", "json", "incident", "show", "12"],
    "incident-show-unknown": ["incident", "show", "99"],
    "incident-ack": ["incident", "ack", "12"],
    "incident-confirm": ["incident", "confirm", "12"],
    "incident-confirm-closed": ["incident", "confirm", "13"],
    "incident-release": ["incident", "release", "12", "--verdict", "false_positive", "--reason", "load test"],
    "incident-note": ["incident", "note", "12", "the database was failed over"],
    "incident-close": ["incident", "close", "12"],
    "incident-postmortem": ["incident", "postmortem", "12"],
    "incident-postmortem-html": ["incident", "postmortem", "12", "--html"],
    "proposal-list": ["proposal", "list"],
    "proposal-show": ["proposal", "show", "3"],
    "override-list": ["override", "list"],
    "override-set": ["override", "set", "route:checkout", "throttle=10/s", "--ttl", "10m", "--reason", "protect"],
    "override-set-hashed": [
        "override", "set", "client:checkout", "isolate", "--ttl", "1h", "--reason", "abuse", "--header-value", "s3cret",
    ],
    "override-set-bad-action": ["override", "set", "service", "explode", "--ttl", "10m", "--reason", "why"],
    "override-set-bad-scope": ["override", "set", "rout:checkout", "isolate", "--ttl", "10m", "--reason", "why"],
    "override-clear": ["override", "clear", "client:search:203.0.113.7"],
    "override-clear-none": ["override", "clear", "service"],
    "config-show": ["config", "show"],
    "config-diff": ["config", "diff", "6", "7"],
    "config-history": ["config", "history"],
    "config-apply": ["config", "apply", "new.yaml", "--reason", "shorter timeout"],
    "config-apply-dry-run": ["config", "apply", "new.yaml", "--dry-run"],
    "config-apply-invalid": ["config", "apply", "bad.yaml"],
    "config-apply-missing": ["config", "apply", "none.yaml"],
    "config-confirm-none": ["config", "confirm"],
    "config-rollback": ["config", "rollback", "6", "--reason", "limit was too low"],
    "config-rollback-unknown": ["config", "rollback", "99"],
    "config-validate": ["config", "validate", "new.yaml"],
    "config-validate-invalid": ["config", "validate", "bad.yaml"],
    "config-validate-invalid-json": ["config", "validate", "bad.yaml", "-o", "json"],
    "drill-errors": ["drill", "errors", "--route", "checkout", "--for", "60s"],
    "drill-unknown-route": ["drill", "hang", "--route", "nowhere"],
    "drill-list": ["drill", "list"],
    "drill-stop": ["drill", "stop"],
    "silence-add": ["silence", "add", "--scope", "route:checkout", "--ttl", "2h", "--reason", "the database moves"],
    "silence-add-bad-scope": ["silence", "add", "--scope", "rout:checkout", "--ttl", "2h", "--reason", "why"],
    "silence-list": ["silence", "list"],
    "silence-end": ["silence", "end", "1"],
    "silence-end-unknown": ["silence", "end", "9"],
    "incident-tick": ["incident", "tick", "12", "2"],
    "token-new": ["token", "new", "grafana", "--role", "viewer"],
    "token-new-json": ["token", "new", "grafana", "--role", "viewer", "-o", "json"],
    "token-new-taken": ["token", "new", "ops", "--role", "viewer"],
    "token-list": ["token", "list"],
    "token-revoke": ["token", "revoke", "ops"],
    "token-revoke-unknown": ["token", "revoke", "nobody"],
    "audit-list": ["audit", "list"],
    "audit-verify": ["audit", "verify"],
    "unknown-verb": ["statu"],
    "no-token": ["--token-file", "none.token", "status"],
    "bad-admin": ["--admin", "localhost", "status"],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "new.yaml").write_text(CONFIG)
    (tmp_path / "bad.yaml").write_text("bad: 1\nupstream: {endpoints: ['http://127.0.0.1:9000'], connect_timeout: 5}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def admin(folder: Path) -> Iterator[str]:
    with admin_server() as url:
        yield url


def run(url: str, argv: list[str], **environ: str) -> str:
    """Return a transcript: the command line, what was printed where, the exit code."""
    runner = CliRunner(env={"COLUMNS": "120", "TERM": "dumb", "SIDECAR_TOKEN": SECRETS["admin"]} | environ)
    given = argv if "--admin" in argv else ["--admin", url, *argv]
    result = runner.invoke(app, given, prog_name="sidecar")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    shown = " ".join(f"'{word}'" if " " in word else word for word in argv)
    parts = [f"$ sidecar {shown}", result.stdout.rstrip("\n")]
    if result.stderr:
        parts += ["--- stderr", result.stderr.rstrip("\n")]
    return "\n".join(line.rstrip() for line in "\n".join([*parts, f"--- exit {result.exit_code}", ""]).split("\n"))


def compare(name: str, actual: str) -> None:
    file = FOLDER / f"{name}.txt"
    if os.environ.get("GOLDEN_UPDATE"):
        file.write_text(actual, encoding="utf-8")
    assert actual == file.read_text(encoding="utf-8"), f"GOLDEN_UPDATE=1 pytest tests/golden, if {name} is wanted so"


@pytest.mark.parametrize("name", CASES)
def test_verb(name: str, admin: str) -> None:
    """Each verb prints what its golden file says."""
    compare(name, run(admin, CASES[name]).replace(admin, "http://127.0.0.1:9901"))


def test_quiet_status(folder: Path) -> None:
    """When nothing is wrong, the first line of status says so."""
    control = MemoryControl()
    control.status = lambda: d.QUIET_STATUS
    with admin_server(control) as url:
        compare("status-quiet", run(url, ["status"]))


def test_status_of_a_troubled_sidecar(folder: Path) -> None:
    """What is wrong with the sidecar itself stands in status, each with what to type."""
    control = MemoryControl()
    control.status = lambda: {
        **d.QUIET_STATUS,
        "mode": "observe",
        "config": {**d.STATUS["config"], "diverged_from_file": True, "confirm_by_time": "2026-03-01T03:21:30Z"},
        "workers": [d.WORKER, {"worker": 1, "up": False}],
        "store": {"ok": False, "problem": "the disk is full"},
        "receivers": [
            {**d.RECEIVER, "lost": 2, "problem": "answered 500"},
            {**d.RECEIVER, "name": "chat", "waiting": 3, "held_until_time": "2026-03-01T03:40:00Z"},
        ],
    }
    with admin_server(control) as url:
        compare("status-troubled", run(url, ["status"]))


def test_status_during_a_drill(folder: Path) -> None:
    """Status says that a drill runs, when it ends, and how to stop it."""
    control = MemoryControl()
    control.status = lambda: {
        **d.QUIET_STATUS,
        "drill": {**d.DRILL, "state": "injecting", "end_time": "2026-03-01T03:21:30Z"},
    }
    with admin_server(control) as url:
        compare("status-drill", run(url, ["status"]))


def test_status_of_an_isolation_at_its_budget(folder: Path) -> None:
    """Where more passes than the policy says, because automation may not refuse more, the line says why."""
    control = MemoryControl()
    raised = {**d.ISOLATION, "share": 0.2, "share_floor": 0.2}
    control.status = lambda: {**d.STATUS, "incidents": [{**d.INCIDENT, "isolations": [raised]}]}
    with admin_server(control) as url:
        compare("status-budget", run(url, ["status"]))


def test_status_of_a_silenced_incident(folder: Path) -> None:
    """Status says of what nobody is told, by whom, until when, why, and how to end it."""
    control = MemoryControl()
    control.status = lambda: {
        **d.STATUS, "silences": [d.SILENCE], "incidents": [{**d.INCIDENT, "silenced": d.SILENCE}],
    }  # fmt: skip
    with admin_server(control) as url:
        compare("status-silenced", run(url, ["status"]))


def test_a_failed_drill(folder: Path) -> None:
    """A drill of which one stage missed its target is exit 1, and the stage is named."""
    control = MemoryControl()
    missed = {"stage": "isolated", "target_s": 10.0, "took_s": None, "met": False}
    failed = {**d.DRILL, "state": "failed", "stages": [*d.DRILL["stages"], missed]}

    async def command(_: object) -> Done:
        return Done(failed)

    control.command = command
    with admin_server(control) as url:
        compare("drill-failed", run(url, ["drill", "errors", "--route", "checkout"]))


def test_a_forgotten_drill(folder: Path) -> None:
    """When the controller starts anew during a drill, the command says so and does not wait for ever."""
    control = MemoryControl()

    async def command(_: object) -> Done:
        return Done({**d.DRILL, "id": 7, "state": "injecting"})

    control.command = command
    with admin_server(control) as url:
        compare("drill-forgotten", run(url, ["drill", "errors", "--route", "checkout"]))


def test_broken_chain(folder: Path) -> None:
    """An edited event is exit 1 and named."""

    async def verify() -> dict[str, object]:
        return {"ok": False, "rows": 41, "first_bad": 17, "problem": "its hash is not that of its content"}

    control = MemoryControl()
    control.verify = verify
    with admin_server(control) as url:
        compare("audit-verify-broken", run(url, ["audit", "verify"]))


def test_message_that_does_not_arrive(folder: Path) -> None:
    """A receiver that refuses the test message is exit 1, with its words."""

    async def refuse(name: str) -> dict[str, object]:
        return {"name": name, "type": "webhook", "ok": False, "attempts": 1, "problem": "answered 401"}

    control = MemoryControl()
    control.notify_test = refuse
    with admin_server(control) as url:
        compare("notify-test-refused", run(url, ["notify", "test", "pager"]))


def test_unreachable(folder: Path, closed_port: int) -> None:
    """No sidecar at the address: exit 3, and how to start one."""
    url = f"http://127.0.0.1:{closed_port}"
    compare("unreachable", run(url, ["status"]).replace(url, "http://127.0.0.1:9901"))


def test_wrong_token(admin: str) -> None:
    """A token that is not valid: exit 1, and how to give one."""
    compare("wrong-token", run(admin, ["status"], SIDECAR_TOKEN="nonsense"))


def test_too_low_a_role(admin: str) -> None:
    """A token of a lower role: exit 1, and which role is needed."""
    compare("low-role", run(admin, ["config", "apply", "new.yaml"], SIDECAR_TOKEN=SECRETS["operator"]))


def test_no_golden_file_is_left_over() -> None:
    """Every golden file belongs to a case."""
    extra = {
        "audit-verify-broken",
        "drill-failed",
        "drill-forgotten",
        "status-drill",
        "status-budget",
        "status-silenced",
        "notify-test-refused",
        "status-quiet",
        "status-troubled",
        "unreachable",
        "wrong-token",
        "low-role",
    }
    assert {file.stem for file in FOLDER.iterdir()} == set(CASES) | extra
