"""The whole application: every call, every refusal, and the shape of each answer."""

from __future__ import annotations

import io
import json

import pytest
from aiohttp.test_utils import TestClient

from sidecar.admin import openapi
from sidecar.admin.app import MAX_BODY_BYTES
from sidecar.admin.auth import TRIES, Role
from sidecar.admin.table import CALLS
from sidecar.controller.commands import (
    Acknowledge,
    ClearOverride,
    Close,
    CloseBreaker,
    Confirm,
    Note,
    Release,
    ReleaseVerdict,
    SetOverride,
)
from sidecar.controller.ports import Unavailable
from sidecar.facts import Action, Scope
from tests.support import documents as d
from tests.support.control import MemoryControl, token
from tests.unit.admin.conftest import Ask

READS = [
    ("/status", {**d.STATUS, "token": {"name": "a-admin", "role": "admin"}}),
    ("/controls", d.listing(*d.CONTROLS)),
    ("/routes", d.listing(d.ROUTE, d.QUIET_ROUTE)),
    ("/routes/checkout/series?window=1m&step=10s", {**d.SERIES, "step_s": 10.0}),
    ("/isolations", d.listing(d.ISOLATION)),
    ("/decisions/5f2a-1c", d.DECISION),
    ("/incidents?state=open", d.listing(d.INCIDENT)),
    ("/incidents?state=closed", d.listing()),
    ("/incidents/12", d.INCIDENT),
    ("/incidents/12/evidence", d.EVIDENCE),
    ("/overrides", d.listing(d.OVERRIDE)),
    ("/overrides/client%3Asearch%3A203.0.113.7", d.OVERRIDE),
    ("/config", d.CONFIG),
    ("/config/versions", d.listing(d.VERSION, d.OLDER)),
    ("/config/versions?limit=1", {"items": [d.VERSION], "next": "6"}),
    ("/config/versions/6", d.OLDER),
    ("/config/diff?from=6&to=7", d.DIFF),
    ("/audit", d.listing(d.EVENT, d.APPLY_EVENT)),
    ("/audit/verify", {"ok": True, "rows": 2, "first_bad": None, "problem": None}),
]


@pytest.mark.parametrize(("path", "expected"), READS, ids=[path for path, _ in READS])
async def test_read(ask: Ask, path: str, expected: object) -> None:
    """Each reading call answers the control's document, for scripts and never from a cache."""
    async with ask("GET", path) as response:
        assert response.status == 200
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert await response.json() == expected


async def test_postmortem_is_markdown(ask: Ask) -> None:
    """The post-mortem comes as text/markdown."""
    async with ask("GET", "/incidents/12/postmortem") as response:
        assert (response.status, response.content_type) == (200, "text/markdown")
        assert await response.text() == d.POSTMORTEM


async def test_the_report_is_a_page_that_runs_nothing(ask: Ask) -> None:
    """The post-mortem's page comes as text/html, and the browser may use its own styles and nothing else."""
    async with ask("GET", "/incidents/12/postmortem.html") as response:
        assert (response.status, response.content_type) == (200, "text/html")
        assert response.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'unsafe-inline'")
        assert await response.text() == d.REPORT


async def test_config_carries_its_etag(ask: Ask) -> None:
    """GET /config names its version in the ETag."""
    async with ask("GET", "/config") as response:
        assert response.headers["ETag"] == '"v7"'


COMMANDS = [
    ("acknowledge", {}, Acknowledge(12, "a-operator")),
    ("confirm", {}, Confirm(12, "a-operator")),
    ("close", {}, Close(12, "a-operator")),
    ("notes", {"text": "failed over\nat 03:12"}, Note(12, "a-operator", "failed over\nat 03:12")),
    ("release", {"verdict": "benign"}, Release(12, "a-operator", ReleaseVerdict.BENIGN)),
    (
        "release",
        {"verdict": "false_positive", "reason": "load test"},
        Release(12, "a-operator", ReleaseVerdict.FALSE_POSITIVE, "load test"),
    ),
]


@pytest.mark.parametrize(("verb", "body", "expected"), COMMANDS)
async def test_verdict(ask: Ask, control: MemoryControl, verb: str, body: object, expected: object) -> None:
    """Each verdict becomes one command with the token's name as its author."""
    async with ask("POST", f"/incidents/12/{verb}", "operator", json=body) as response:
        assert (response.status, await response.json()) == (200, d.INCIDENT)
    assert control.commands == [expected]


async def test_no_body_stands_for_an_empty_one(ask: Ask, control: MemoryControl) -> None:
    """A call that takes nothing needs no body and no Content-Type."""
    async with ask("POST", "/incidents/12/confirm") as response:
        assert response.status == 200
    assert control.commands == [Confirm(12, "a-admin")]


OVERRIDES = [
    ("service", "isolate", SetOverride(Scope.service(), Action.ISOLATE, 600.0, "why", "a-admin")),
    (
        "route:checkout",
        "throttle=10/s",
        SetOverride(Scope.route("checkout"), Action.THROTTLE, 600.0, "why", "a-admin", rate_per_s=10.0),
    ),
    (
        "client:checkout:2001:db8::1",
        "throttle=25%",
        SetOverride(
            Scope.client("checkout", "2001:db8::1"), Action.THROTTLE, 600.0, "why", "a-admin", share_ratio=0.25
        ),
    ),
]


@pytest.mark.parametrize(("scope", "action", "expected"), OVERRIDES)
async def test_override(ask: Ask, control: MemoryControl, scope: str, action: str, expected: object) -> None:
    """An override's scope, action and ttl are read once, at the border."""
    body = {"action": action, "ttl": "10m", "reason": "why"}
    async with ask("PUT", f"/overrides/{scope.replace(':', '%3A')}", json=body) as response:
        assert (response.status, (await response.json())["scope"]) == (200, scope)
    assert control.commands == [expected]


async def test_override_hashes_a_header_value(ask: Ask, control: MemoryControl) -> None:
    """A secret header value reaches the engine only as its hash."""
    body = {"action": "isolate", "ttl": "1h", "reason": "abuse", "header_value": "top-secret"}
    async with ask("PUT", "/overrides/client:checkout:-", json=body) as response:
        assert "top-secret" not in await response.text()
    key = control.client_key("top-secret")
    assert [command.scope for command in control.commands] == [Scope.client("checkout", key)]


@pytest.mark.parametrize(
    ("scope", "more"),
    [("client:checkout:-", {}), ("client:checkout:x", {"header_value": "s"}), ("service", {"header_value": "s"})],
)
async def test_override_refuses_half_a_header_value(ask: Ask, control: MemoryControl, scope: str, more: dict) -> None:
    """`header_value` and the scope that asks for it come together or not at all."""
    async with ask(
        "PUT", f"/overrides/{scope}", json={"action": "isolate", "ttl": "1h", "reason": "r", **more}
    ) as response:
        assert response.status == 422
        assert (await response.json())["errors"][0]["path"] == "header_value"
    assert control.commands == []


async def test_clear_override(ask: Ask, control: MemoryControl) -> None:
    """DELETE ends an override once; the second time there is none."""
    for expected in (200, 404):
        async with ask("DELETE", f"/overrides/{d.OVERRIDE['scope']}") as response:
            assert response.status == expected
    assert control.commands == [ClearOverride(Scope.parse(d.OVERRIDE["scope"]), "a-admin")] * 2


async def test_reset_breaker_and_test_receiver(ask: Ask, control: MemoryControl) -> None:
    """A breaker is closed by hand, and a receiver is tried by hand."""
    async with ask("POST", "/breakers/checkout/reset", "operator") as response:
        assert await response.json() == {"route": "checkout", "breaker": "closed"}
    assert control.commands == [CloseBreaker("checkout", "a-operator")]
    async with ask("POST", "/notify/pager/test", "operator") as response:
        assert (await response.json())["ok"] is True


YAML = {"Content-Type": "application/yaml", "If-Match": '"v7"'}


async def test_apply(ask: Ask, control: MemoryControl) -> None:
    """PUT /config hands over the text as written, and answers with the new ETag."""
    path = "/config?confirm_within=2m&reason=shorter%20timeout"
    async with ask("PUT", path, data="a: 1 # ü\n".encode(), headers=YAML) as response:
        assert (response.status, response.headers["ETag"]) == (200, '"v8"')
    assert control.applied == [("a: 1 # ü\n", "a-admin", "shorter timeout", False, 120.0)]


async def test_dry_run_keeps_the_etag(ask: Ask, control: MemoryControl) -> None:
    """A dry run changes no version."""
    async with ask("PUT", "/config?dry_run=1", data=b"a: 1", headers=YAML) as response:
        assert (response.status, response.headers["ETag"]) == (200, '"v7"')


CONFLICTS = [
    ({**YAML, "If-Match": '"v6"'}, b"a: 1", 412),
    ({"Content-Type": "application/yaml"}, b"a: 1", 428),
    ({**YAML, "If-Match": "7"}, b"a: 1", 400),
    ({**YAML, "Content-Type": "application/json"}, b"{}", 415),
    ({"If-Match": '"v7"', "Content-Type": "text/plain"}, b"", 415),
    (YAML, b"a: \xff", 400),
    (YAML, b"bad: 1", 422),
    (YAML, b"x" * (MAX_BODY_BYTES + 1), 413),
]


@pytest.mark.parametrize(("headers", "text", "status"), CONFLICTS)
async def test_apply_refused(ask: Ask, control: MemoryControl, headers: dict, text: bytes, status: int) -> None:
    """Each way in which a config is refused has its status and changes nothing."""
    async with ask("PUT", "/config", headers=headers, data=io.BytesIO(text)) as response:
        body = await response.json()
        assert (response.status, response.content_type, body["status"]) == (status, "application/problem+json", status)
    assert (control.applied, control.version_now) == ([], 7)


async def test_invalid_config_names_every_error(ask: Ask) -> None:
    """422 carries the rows of the loader."""
    async with ask("PUT", "/config", headers=YAML, data=b"bad: 1") as response:
        rows = (await response.json())["errors"]
    assert rows == [{"path": "bad", "line": 1, "column": 1, "problem": "unknown key", "hint": "remove it"}]


async def test_rollback_and_confirm(ask: Ask) -> None:
    """Rollback gives a new version; confirm without a waiting one is a conflict."""
    async with ask("POST", "/config/rollback", "operator", json={"to": 6, "reason": "too low"}) as response:
        assert (response.status, response.headers["ETag"]) == (200, '"v8"')
    async with ask("POST", "/config/confirm", json={}) as response:
        assert response.status == 409


UNKNOWN = [
    ("GET", "/incidents/99", 404),
    ("GET", "/incidents/abc", 400),
    ("GET", "/incidents/0", 400),
    ("GET", "/incidents/99/evidence", 404),
    ("GET", "/incidents/99/postmortem", 404),
    ("GET", "/incidents/99/postmortem.html", 404),
    ("POST", "/incidents/99/confirm", 404),
    ("POST", "/incidents/13/confirm", 409),
    ("GET", "/routes/none/series", 404),
    ("GET", "/routes/checkout/series?window=5", 400),
    ("GET", "/decisions/none", 404),
    ("GET", "/overrides/route:none", 404),
    ("GET", "/overrides/nonsense", 400),
    ("GET", "/config/versions/99", 404),
    ("GET", "/config/diff?from=99", 404),
    ("GET", "/incidents?state=lost", 400),
    ("GET", "/incidents?limit=0", 400),
    ("GET", "/incidents?limit=1&limit=2", 400),
    ("GET", "/incidents?cursor=x", 400),
    ("GET", "/status?verbose=1", 400),
    ("POST", "/notify/none/test", 404),
    ("GET", "/nothing", 404),
    ("GET", "/tap?status=6xx", 400),
    ("GET", "/tap?route=none", 404),
    ("DELETE", "/status", 405),
    ("GET", "/config/rollback", 405),
    ("GET", "/incidents/12/confirm", 405),
]


@pytest.mark.parametrize(("method", "path", "status"), UNKNOWN)
async def test_unknown(ask: Ask, method: str, path: str, status: int) -> None:
    """Unknown ids, malformed parameters and calls that are not offered are problems, never a stack trace."""
    async with ask(method, path) as response:
        body = await response.json()
        assert (response.status, response.content_type, body["status"]) == (status, "application/problem+json", status)
        assert body["detail"]
        assert status != 405 or response.headers["Allow"]


BODIES = [
    (b"{", 400, "line 1, column 2"),
    (b'{"verdict": "benign", "verdict": "none"}', 400, "twice"),
    (b'{"verdict": NaN}', 400, "NaN"),
    (b"\xff", 400, "no JSON"),
    (b"[" * 200_000, 400, "nested"),
    (b"[]", 422, "not a JSON object"),
    (b"{}", 422, "verdict: Field required"),
    (b'{"verdict": "maybe"}', 422, "verdict"),
    (b'{"verdict": "benign", "extra": 1}', 422, "extra: unknown field"),
    (b'{"verdict": "benign", "reason": "\\ud800"}', 400, "surrogates"),
    (b'{"verdict": "benign", "reason": 7}', 422, "reason"),
    (b'{"verdict": "benign", "reason": "a\\nb"}', 422, "reason"),
]


@pytest.mark.parametrize(("data", "status", "words"), BODIES)
async def test_bad_body(ask: Ask, control: MemoryControl, data: bytes, status: int, words: str) -> None:
    """A body that is no JSON is 400 with its place; one that does not fit is 422 with its fields; nothing is done."""
    headers = {"Content-Type": "application/json"}
    async with ask("POST", "/incidents/12/release", data=data, headers=headers) as response:
        body = await response.json()
    assert (response.status, words in body["detail"]) == (status, True), body
    assert control.commands == []


BAD_OVERRIDES = [
    ({"action": "throttle=0/s", "ttl": "1m", "reason": "r"}, "action"),
    ({"action": "throttle=10", "ttl": "1m", "reason": "r"}, "action"),
    ({"action": "explode", "ttl": "1m", "reason": "r"}, "action"),
    ({"action": "isolate", "ttl": "0s", "reason": "r"}, "ttl"),
    ({"action": "isolate", "ttl": 60, "reason": "r"}, "ttl"),
    ({"action": "isolate", "reason": "r"}, "ttl"),
    ({"action": "isolate", "ttl": "1m"}, "reason"),
    ({"action": "isolate", "ttl": "1m", "reason": "  "}, "reason"),
]


@pytest.mark.parametrize(("body", "path"), BAD_OVERRIDES)
async def test_bad_override(ask: Ask, control: MemoryControl, body: object, path: str) -> None:
    """An override without a ttl, a reason or a sound action is refused, and the field is named."""
    async with ask("PUT", "/overrides/service", json=body) as response:
        assert (response.status, [row["path"] for row in (await response.json())["errors"]]) == (422, [path])
    assert control.commands == []


@pytest.mark.parametrize("call", CALLS, ids=openapi.operation_id)
async def test_roles(ask: Ask, call: object) -> None:
    """Every call refuses no token with 401 and each lower role with 403, naming the role that is needed."""
    path = call.path.format(id=12, name="checkout", scope="service", version=7)
    async with ask(call.method, path, None) as response:
        assert (response.status, response.headers["WWW-Authenticate"]) == (401, 'Bearer realm="sidecar"')
    for role in Role:
        if role < call.role:
            async with ask(call.method, path, role.name.lower()) as response:
                assert response.status == 403
                assert call.role.name.lower() in (await response.json())["detail"]


async def test_unknown_paths_tell_strangers_nothing(ask: Ask) -> None:
    """Without a token even an unknown path answers 401."""
    async with ask("GET", "/nothing", None) as response:
        assert response.status == 401


async def test_brake_on_wrong_tokens(client: TestClient, control: MemoryControl) -> None:
    """Guessing is braked; a repeated wrong token is not charged, and a token that is known stays good."""

    async def status(secret: str) -> int:
        async with client.get("/api/v1/audit/verify", headers={"Authorization": f"Bearer {secret}"}) as response:
            return response.status

    assert await status("admin-secret") == 200
    assert [await status("the-same") for _ in range(3 * TRIES)] == [401] * 3 * TRIES
    assert [await status(f"guess-{n}") for n in range(TRIES)] == [401] * (TRIES - 1) + [429]
    assert [await status(s) for s in ("operator-secret", "admin-secret", "the-same")] == [429, 200, 401]


async def test_revoked_token_ends_at_once(ask: Ask, control: MemoryControl) -> None:
    """A token that is no longer configured is refused, although it was known good."""
    async with ask("GET", "/isolations") as response:
        assert response.status == 200
    control.valid_tokens.remove(token("admin"))
    async with ask("GET", "/isolations") as response:
        assert response.status == 401


HOSTS = [
    ("localhost:9901", 200),
    ("127.0.0.1", 200),
    ("[::1]:9901", 200),
    ("10.1.2.3:9901", 200),
    ("SIDECAR.internal", 200),
    ("evil.example", 421),
    ("localhost.evil.example", 421),
    ("127.0.0.1.evil.example:9901", 421),
    ("", 421),
    ("user@localhost", 421),
]


@pytest.mark.parametrize(("host", "status"), HOSTS)
async def test_host(ask: Ask, host: str, status: int) -> None:
    """A foreign name in Host is refused, whatever it resolves to (DNS rebinding)."""
    async with ask("GET", "/isolations", headers={"Host": host}) as response:
        assert response.status == status


SITES = [
    ({"Sec-Fetch-Site": "cross-site"}, 403),
    ({"Sec-Fetch-Site": "same-site"}, 403),
    ({"Sec-Fetch-Site": "same-origin"}, 200),
    ({"Sec-Fetch-Site": "none"}, 200),
    ({"Origin": "https://evil.example"}, 403),
    ({"Origin": "null"}, 403),
    ({"Origin": "http://[bad"}, 403),
    ({"Origin": "http://localhost:9901", "Host": "localhost:9901"}, 200),
    ({"Origin": "http://localhost:9902", "Host": "localhost:9901"}, 403),
]


@pytest.mark.parametrize(("headers", "status"), SITES)
async def test_cross_site(ask: Ask, control: MemoryControl, headers: dict, status: int) -> None:
    """A foreign web page changes nothing, even with a good token."""
    async with ask("POST", "/incidents/12/confirm", headers=headers) as response:
        assert response.status == status
    assert len(control.commands) == (status == 200)


async def test_store_down(ask: Ask, control: MemoryControl) -> None:
    """A read that the store cannot answer is 503 with the cause."""
    control.broken = Unavailable("the disk is full", "free some space")
    async with ask("GET", "/status") as response:
        assert (response.status, (await response.json())["detail"]) == (503, "the disk is full")


async def test_own_fault_is_a_problem_too(ask: Ask, control: MemoryControl) -> None:
    """A fault of the sidecar is 500 as a problem, without its innards."""
    control.broken = KeyError("innards")
    async with ask("GET", "/status") as response:
        text = await response.text()
        assert (response.status, response.content_type) == (500, "application/problem+json")
    assert "innards" not in text


async def test_openapi_is_served(ask: Ask) -> None:
    """The served document is the one made from the table."""
    async with ask("GET", "/openapi.json", "viewer") as response:
        assert await response.json() == json.loads(openapi.text(CALLS))
