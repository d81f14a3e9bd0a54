"""The admin API and the CLI against a whole sidecar: real processes, a real incident, a real store."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from sidecar.admin import openapi
from sidecar.admin.calls import Call
from sidecar.admin.table import CALLS
from sidecar.cli.app import app
from sidecar.cli.client import Client, Failure
from tests.support.patience import WAIT_S
from tests.support.running import Running, eventually, running
from tests.support.schemathesis import fuzz

MORE = """
routes:
  - name: checkout
    match: {path: /api/checkout/**}
    limit: {rate: 1000/s, burst: 2000}
    breaker: {consecutive: 7, open: 60s}
  - {name: default, match: {path: /**}}
notify: [{type: log}]
"""
DOCUMENT = openapi.document(CALLS)


def refuse(api: str, count: int) -> dict[str, Any]:
    """Send *count* requests that fail, and return the last answer's problem."""
    problem: dict[str, Any] = {}
    for _ in range(count):
        try:
            urllib.request.urlopen(f"{api}/api/checkout/x", timeout=WAIT_S).close()
        except urllib.error.HTTPError as error:
            with error:
                problem = json.load(error)
    return problem


def sidecar_cli(made: Running, *words: str) -> tuple[int, str]:
    """Return exit code and output of `sidecar WORDS`."""
    environ = {"COLUMNS": "120", "TERM": "dumb", "SIDECAR_TOKEN": made.token, "SIDECAR_ADMIN": made.admin}
    result = CliRunner(env=environ).invoke(app, list(words), prog_name="sidecar")
    return result.exit_code, result.output


def stored(client: Client, decision: str) -> Any:
    """Return the answer about a decision, once the controller knows it."""
    try:
        return client.get(f"/decisions/{decision}")
    except Failure:
        return None


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A sidecar whose upstream is not there, with one open incident and an override."""
    with running(tmp_path_factory.mktemp("process"), "http://127.0.0.1:9", MORE) as made:
        client = Client(made.admin, made.token)
        events = client.events("0")
        refuse(made.api, 40)
        assert any(event["kind"] == "incident.opened" for event in events)
        body = {"action": "throttle=5/s", "ttl": "10m", "reason": "try"}
        client.call("PUT", "/overrides/route:default", body=body)
        yield made


@pytest.fixture(scope="module")
def decision(sidecar: Running) -> str:
    """A decision that the controller knows."""
    name: str = refuse(sidecar.api, 1)["decision"]
    eventually(lambda: stored(Client(sidecar.admin, sidecar.token), name))
    return name


# No proposal can exist on a sidecar that is minutes old: test_learning_live.py waits for one.
READS = [call for call in CALLS if call.method == "GET" and call.schema and call.path != "/proposals/{id}"]


@pytest.mark.parametrize("call", READS, ids=openapi.operation_id)
def test_answers_have_their_documented_shape(sidecar: Running, decision: str, call: Call) -> None:
    """Every document that a live sidecar answers fits the schema that OpenAPI names."""
    known = {"id": decision if "decisions" in call.path else 1, "name": "checkout", "version": 1}
    path = call.path.format(**known, scope="route:default")
    answer = Client(sidecar.admin, sidecar.token).get(path).body
    schema = {"$ref": f"#/components/schemas/{call.schema}", "components": DOCUMENT["components"]}
    faults = Draft202012Validator(schema).iter_errors(answer)
    assert [f"{list(fault.absolute_path)}: {fault.message}" for fault in faults] == []


# In this order on one sidecar: (command line, exit code, words in its output).
STORY = [
    ("status", 0, "✗ 1 incident"),
    ("top", 0, "checkout"),
    ("control list", 0, "breaker"),
    ("explain DECISION", 0, "config version"),
    ("explain nothing", 1, "there is no decision 'nothing'"),
    ("incident list", 0, "route:checkout"),
    ("incident show 1", 0, "sidecar incident confirm 1"),
    ("incident show 99", 1, "incident 99"),
    ("incident ack 1", 0, "Incident 1 is yours"),
    ("incident confirm 1", 0, "Incident 1 is confirmed"),
    ("incident note 1 seen", 0, "has your note"),
    ("incident close 1", 1, "→"),
    ("incident release 1 --verdict benign", 0, "released as benign"),
    ("incident postmortem 1", 0, "# Post-mortem draft: incident 1"),
    ("incident postmortem 1 --html", 0, "<h2>Course</h2><figure><svg"),
    ("incident tick 1 1", 0, "step 1 is done"),
    ("silence add --scope route:checkout --ttl 1h --reason r", 0, "Silence 1: route:checkout"),
    ("silence end 1", 0, "has ended"),
    ("silence add --scope endpoint:127.0.0.1:7 --ttl 1h --reason r", 1, "the endpoints are endpoint:127.0.0.1:9"),
    ("silence add --scope service --ttl 60 --reason r", 2, "'60' is no duration: write 30s"),
    ("silence add --scope service --ttl 90d --reason r", 2, "a ttl of 2160h is not possible"),
    ("drill errors --route checkout --for 5", 2, "--for '5' is no duration"),
    ("token new bad^name --role viewer", 2, "is no name: write 1 to 64 letters"),
    ("silence end 1", 1, "no silence 1"),
    ("override set endpoint:127.0.0.1:9 throttle=5/s --ttl 1h --reason r", 2, "use throttle=25%"),
    ("override set endpoint:127.0.0.1:7 isolate --ttl 1h --reason r", 1, "the endpoints are endpoint:127.0.0.1:9"),
    ("override set client:checkout isolate --ttl 1h --reason abuse --header-value s3cret", 0, "client:checkout:h-"),
    ("override set route:nowhere isolate --ttl 1h --reason r", 1, "nowhere"),
    ("override list", 0, "route:default"),
    ("override clear route:default", 0, "has ended"),
    ("override clear route:default", 1, "route:default"),
    ("config show", 0, "name: checkout"),
    ("config apply FILE --dry-run", 0, "Nothing was changed"),
    ("config apply FILE --reason slower --confirm-within 5m", 0, "Version 2 is confirming on 1 of 1 workers"),
    ("status", 0, "sidecar config confirm"),
    ("config apply FILE", 1, "confirm"),
    ("config confirm", 0, "Version 2 is confirmed"),
    ("config confirm", 1, "no version waits"),
    ("config diff 1 2", 0, "idle_timeout"),
    ("config apply BAD", 2, "1:1: bad"),
    ("config rollback", 0, "Version 3 is active"),
    ("config rollback 99", 1, "99"),
    ("config history", 0, "rollback"),
    ("breaker reset checkout", 0, "is closed"),
    ("breaker reset nowhere", 1, "nowhere"),
    ("notify test log", 0, "took the test message"),
    ("audit list", 0, "config.applied"),
    ("audit verify", 0, "the chain is whole"),
    ("events --since 0 --limit 3", 0, "config.applied"),
]


def test_story_on_the_command_line(sidecar: Running, decision: str, tmp_path: Path) -> None:
    """An operator's whole story by CLI alone: each command says what it did, with the right exit code."""
    changed = tmp_path / "changed.yaml"
    text: str = Client(sidecar.admin, sidecar.token).get("/config").body["text"]
    changed.write_text(text + "downstream: {idle_timeout: 61s}\n")
    bad = tmp_path / "bad.yaml"
    bad.write_text("bad: 1\n" + text)
    names = {"DECISION": decision, "FILE": str(changed), "BAD": str(bad)}
    for line, code, words in STORY:
        actual, printed = sidecar_cli(sidecar, *(names.get(word, word) for word in line.split()))
        assert (actual, words in printed) == (code, True), f"sidecar {line}\n{printed}"
        assert "s3cret" not in printed


def test_secret_header_values_are_nowhere(sidecar: Running) -> None:
    """A header value that was given to an override is in no answer and in no file of the state."""
    client = Client(sidecar.admin, sidecar.token)
    body = {"action": "isolate", "ttl": "1h", "reason": "abuse", "header_value": "v3ry-secret"}
    client.call("PUT", "/overrides/client:checkout:-", body=body)
    answers = [json.dumps(client.get(path).body) for path in ("/status", "/overrides", "/audit")]
    assert not any("v3ry-secret" in answer for answer in answers)
    assert not any(b"v3ry-secret" in file.read_bytes() for file in sidecar.state.rglob("*") if file.is_file())


async def test_generated_requests(tmp_path: Path) -> None:
    """Whatever is sent to a live sidecar: no 5xx, no undocumented status, no answer outside its schema."""
    with running(tmp_path, "http://127.0.0.1:9", MORE) as made:
        refuse(made.api, 40)
        code, printed = await fuzz(made.admin, made.token, CALLS, examples=6)
        assert code == 0, printed
        assert Client(made.admin, made.token).get("/audit/verify").body["ok"] is True
