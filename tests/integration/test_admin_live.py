"""The admin API of a running sidecar: events as they happen, roles, tokens from the file alone, bad input."""

from __future__ import annotations

import hashlib
import http.client
import json
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.patience import WAIT_S
from tests.support.sidecar import SECRETS, Shop, Sidecar, call, gone, kill, sidecar, until

OVERRIDE = {"action": "throttle=50%", "ttl": "10m", "reason": "a test"}
YAML = {"Content-Type": "application/yaml", "If-Match": '"v1"'}


@pytest.fixture(scope="module")
def running() -> Iterator[Sidecar]:
    """A sidecar with a token of each role, in front of the sample API."""
    with Shop() as shop, sidecar(shop.url) as shared:
        yield shared


class Follower:
    """Reads the event stream in a thread."""

    def __init__(self, running: Sidecar, last_id: int | None = None) -> None:
        host, port = running.address("admin")
        self.events: list[dict[str, Any]] = []
        self._connection = http.client.HTTPConnection(host, port, timeout=WAIT_S)
        headers = {"Authorization": f"Bearer {SECRETS['viewer']}"}
        headers |= {"Last-Event-ID": str(last_id)} if last_id is not None else {}
        self._connection.request("GET", "/api/v1/events", headers=headers)
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200
        self.ended = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            for line in self._answer:
                if line.startswith(b"data:"):
                    self.events.append(json.loads(line[5:]))
        except (OSError, http.client.HTTPException):
            pass
        self.ended.set()

    def until(self, kind: str, scope: str) -> dict[str, Any]:
        """Wait for an event."""
        return until(
            lambda: next((e for e in self.events if e["kind"] == kind and e["scope"] == scope), None), f"{kind} {scope}"
        )


def test_events_are_delivered_live_and_none_is_missed(running: Sidecar) -> None:
    """
    A reader sees each change at once; one that comes back with its last id misses nothing, over a controller's death.
    """
    first = Follower(running)
    assert running.api("PUT", "/overrides/route:checkout", OVERRIDE, role="operator").status == 200
    set_ = first.until("override.set", "route:checkout")
    assert set_["author"] == "operator"
    assert running.api("DELETE", "/overrides/route:checkout", role="operator").status == 200
    first.until("override.ended", "route:checkout")
    old = running.controller()
    kill(old)
    assert first.ended.wait(WAIT_S)
    until(lambda: gone(old), "the controller is gone")
    until(running.serving, "a new one serves")
    assert running.api("PUT", "/overrides/route:default", OVERRIDE).status == 200
    second = Follower(running, first.events[-1]["sequence"])
    second.until("override.set", "route:default")
    assert running.api("DELETE", "/overrides/route:default").status == 200
    second.until("override.ended", "route:default")
    numbers = [event["sequence"] for event in [*first.events, *second.events]]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    audited = {row["sequence"]: row["kind"] for row in running.get("/audit", limit=200)["items"]}
    assert all(audited[event["sequence"]] == event["kind"] for event in [*first.events, *second.events])


@pytest.mark.parametrize(
    ("method", "path", "body", "allowed"),
    [
        ("GET", "/status", None, {"viewer", "operator", "admin"}),
        ("GET", "/audit", None, {"viewer", "operator", "admin"}),
        ("PUT", "/overrides/route:checkout", OVERRIDE, {"operator", "admin"}),
        ("DELETE", "/overrides/route:checkout", None, {"operator", "admin"}),
        ("POST", "/incidents/99/confirm", None, {"operator", "admin"}),
        ("POST", "/breakers/checkout/reset", None, {"operator", "admin"}),
        ("POST", "/config/rollback", {"to": 99, "reason": "a test"}, {"operator", "admin"}),
        ("PUT", "/config?reason=a", "listen: [", {"admin"}),
        ("POST", "/config/confirm", None, {"admin"}),
    ],
)
def test_roles_are_enforced(
    running: Sidecar, method: str, path: str, body: dict[str, Any] | str | None, allowed: set[str]
) -> None:
    """
    Each role may do exactly what is its own: others get 403, no token and a wrong one 401.
    """
    if method == "DELETE":
        assert running.api("PUT", path, OVERRIDE).status == 200
    headers = YAML if isinstance(body, str) else {}
    found = {role: running.api(method, path, body, role=role, headers=headers).status for role in SECRETS}
    assert {role for role, status in found.items() if status != 403} == allowed, found
    assert all(status < 500 for status in found.values())
    bare = call("%s:%d" % running.address("admin"), method, f"/api/v1{path}")  # noqa: UP031
    assert bare.status == 401


def test_tokens_come_from_the_file_alone(running: Sidecar) -> None:
    """
    A token that an applied text brings counts for nothing; one that the file revokes is refused at once, and stays so
    through a rollback to a text that still had it.
    """
    new = {"name": "new", "role": "admin", "sha256": hashlib.sha256(b"brand-new-secret").hexdigest()}
    kept = list(running.config["admin"]["tokens"])
    address = "%s:%d" % running.address("admin")  # noqa: UP031

    def status(secret: str) -> int:
        return call(address, "GET", "/api/v1/status", headers={"Authorization": f"Bearer {secret}"}).status

    running.config["admin"]["tokens"] = [*kept, new]
    assert running.apply(running.text).status == 200
    assert status("brand-new-secret") == 401
    assert new["sha256"] not in running.api("GET", "/config").text

    running.config["admin"]["tokens"] = [token for token in kept if token["name"] != "operator"]
    running.write()
    running.signal(signal.SIGHUP)
    until(lambda: status(SECRETS["operator"]) == 401, "the revoked token is refused")
    assert status(SECRETS["viewer"]) == 200
    assert running.api("POST", "/config/rollback", {"to": 1, "reason": "a test"}).status == 200
    assert status(SECRETS["operator"]) == 401
    kill(running.controller())
    until(lambda: "the supervisor lives" in running.observe("/livez").text or running.serving(), "an answer")
    until(running.serving, "a new controller serves")
    assert status(SECRETS["operator"]) == 401
    running.config["admin"]["tokens"] = kept
    running.write()
    running.signal(signal.SIGHUP)
    until(lambda: status(SECRETS["operator"]) == 200, "the token is back")


def test_a_token_is_issued_used_and_revoked(running: Sidecar) -> None:
    """
    An issued token does what its role may, is in no answer and no file, and is refused from its revocation on, also by
    a new controller.
    """
    address = "%s:%d" % running.address("admin")  # noqa: UP031
    body = {"name": "ci", "role": "viewer"}
    assert running.api("POST", "/tokens", body, role="operator").status == 403
    secret = running.api("POST", "/tokens", body).body["token"]
    headers = {"Authorization": f"Bearer {secret}"}

    def status(method: str = "GET", path: str = "/status") -> int:
        return call(address, method, f"/api/v1{path}", headers=headers).status

    assert (status(), status("POST", "/drills/stop")) == (200, 403)
    kill(running.controller())
    until(running.serving, "a new controller serves")
    assert status() == 200
    assert running.api("DELETE", "/tokens/ci").status == 200
    assert status() == 401
    kill(running.controller())
    until(running.serving, "a new controller serves")
    assert status() == 401
    shown = json.dumps([running.get(path) for path in ("/tokens", "/audit", "/status")])
    assert secret not in shown
    assert {"token.issued", "token.revoked"} <= {row["kind"] for row in running.get("/audit", limit=200)["items"]}


def test_a_repeated_call_is_done_once_over_a_killed_controller(running: Sidecar) -> None:
    """
    A rollback that is asked for again with its key, of a new controller, makes no second version.
    """
    body, key = {"to": 1, "reason": "a test"}, {"Idempotency-Key": "rollback-of-this-test"}
    first = running.api("POST", "/config/rollback", body, headers=key)
    assert (first.status, "idempotency-replayed" in first.headers) == (200, False)
    kill(running.controller())
    until(running.serving, "a new controller serves")
    again = running.api("POST", "/config/rollback", body, headers=key)
    assert (again.status, again.body, again.headers["idempotency-replayed"]) == (200, first.body, "true")
    assert running.get("/config")["version"] == first.body["version"]


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("GET", "/incidents/99", None, {}, 404),
        ("GET", "/incidents/x", None, {}, 400),
        ("GET", "/nothing", None, {}, 404),
        ("DELETE", "/status", None, {}, 405),
        ("GET", "/decisions/none", None, {}, 404),
        ("GET", "/config/versions/999", None, {}, 404),
        ("GET", "/routes/none/series", None, {}, 404),
        ("POST", "/config/rollback", {"to": 999, "reason": "a test"}, {}, 404),
        ("PUT", "/overrides/route:none", OVERRIDE, {}, 404),
        ("PUT", "/overrides/route:checkout", {"action": "isolate"}, {}, 422),
        ("PUT", "/overrides/nonsense", OVERRIDE, {}, 400),
        ("DELETE", "/overrides/route:checkout", None, {}, 404),
        ("PUT", "/overrides/route:checkout", "{", {"Content-Type": "application/json"}, 400),
        ("POST", "/breakers/none/reset", None, {}, 404),
    ],
)
def test_bad_input_is_told_with_the_remedy_and_changes_nothing(
    running: Sidecar, method: str, path: str, body: Any, headers: dict[str, str], status: int
) -> None:
    """
    Wrong ids, bodies and methods get the right status as problem+json, and leave no audit row.
    """
    before = running.get("/audit", limit=1)["items"]
    answer = running.api(method, path, body, headers=headers)
    assert answer.status == status, answer.text
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert answer.body["status"] == status
    assert answer.body["title"]
    assert running.get("/audit", limit=1)["items"] == before
