"""What a start does not put up with: a wrong file, wrong arguments, a state that is in use, a port that is taken."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.support.client import Client
from tests.support.patience import WAIT_S
from tests.support.sidecar import Shop, Sidecar, settings, sidecar, until


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    """The sample API."""
    with Shop() as shop:
        yield shop


def test_a_second_supervisor_is_refused(shop: Shop) -> None:
    """
    On a state directory that is in use a start fails with 1 and one clear message, and disturbs nothing.
    """
    with sidecar(shop.url) as running:
        second = running.cli("run", "-c", str(running.file))
        assert second.returncode == 1
        assert f"another sidecar runs on the state directory {running.state}" in second.stderr
        assert "→ stop it, or give this one its own: SIDECAR__STATE=/path" in second.stderr
        assert len(second.stderr.strip().splitlines()) == 2
        with Client(running.address()) as client:
            assert client.ask("GET", "/api/products/1").status == 200


@pytest.mark.parametrize("listener", ["listen", "observe", "admin"])
def test_a_port_in_use_is_refused(listener: str) -> None:
    """
    A taken port is named with its setting and the command that shows who has it; nothing was started.
    """
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        section: object = {"listen": address} if listener == "admin" else address
        failed = _start_fails(settings("http://127.0.0.1:9", **{listener: section}))
    assert failed[0] == 1
    assert f"{listener}: {address} cannot be listened on: Address already in use" in failed[1]
    assert "ss -ltnp" in failed[1]
    variable = "SIDECAR__ADMIN__LISTEN" if listener == "admin" else f"SIDECAR__{listener.upper()}"
    assert f"{variable}=HOST:PORT" in failed[1]


def _start_fails(config: dict[str, object], *args: str) -> tuple[int, str]:
    """Start a sidecar that cannot start; return its exit code and what it said."""
    starting = Sidecar(config, args)
    try:
        starting.start(wait=False)
        assert starting.process is not None
        code = starting.process.wait(WAIT_S)
        assert not starting.pids()
        return code, starting.log()
    finally:
        starting.end()


@pytest.mark.parametrize("state", ["/proc/sidecar", "/dev/null/sidecar"])
def test_an_unwritable_state_directory_is_refused(state: str) -> None:
    """
    A state directory that cannot be made is named with the remedy; nothing was started.
    """
    code, said = _start_fails(settings("http://127.0.0.1:9", state=state))
    assert code == 1
    assert f"the state directory {state} cannot be" in said
    assert "SIDECAR__STATE=/path" in said
    assert len(said.strip().splitlines()) == 2


def test_a_wrong_file_is_refused_with_every_place() -> None:
    """
    A start with an invalid file fails with 2 and says every fault with its file, line and column.
    """
    config = settings("http://127.0.0.1:9", mode="enforced", workers=-1)
    code, said = _start_fails(config)
    assert code == 2
    for key in ("mode", "workers"):
        assert any(f"sidecar.yaml:{number}:" in line for number, line in _lines_with(said, key)), said
    assert "Traceback" not in said


def _lines_with(said: str, key: str) -> Iterator[tuple[int, str]]:
    text = said.splitlines()
    for line in text:
        if key in line and ".yaml:" in line:
            yield int(line.split(".yaml:")[1].split(":")[0]), line


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("--nope",), 2, "--nope is no option of sidecar run"),
        (("--workers", "many"), 2, "--workers"),
        (("--listen", "nowhere"), 2, "--listen"),
        (("--upstream", "127.0.0.1:9000"), 2, "--upstream"),
        (("-c", "/nope.yaml"), 2, "/nope.yaml"),
    ],
)
def test_wrong_arguments_are_refused(args: tuple[str, ...], code: int, says: str) -> None:
    """
    Wrong command line arguments fail with 2 and name the argument.
    """
    found, said = _start_fails(settings("http://127.0.0.1:9"), *args)
    assert (found, says in said, "Traceback" in said) == (code, True, False), said


PATIENT = {"endpoints": ["http://nowhere.invalid:9000"], "connect_timeout": "1m"}  # a name service may take its time


def test_an_upstream_that_does_not_resolve_is_a_502_with_its_name() -> None:
    """
    The sidecar serves in front of an API whose name is not known yet: each request says so, and `check` before a start.
    """
    with sidecar("http://nowhere.invalid:9000", upstream=PATIENT) as running, Client(running.address()) as client:
        answer = client.ask("GET", "/")
        assert (answer.status, answer.problem["reason"]) == (502, "upstream_connect_failed")
        path = f"/decisions/{answer.problem['decision']}"
        told = until(lambda: (reply := running.api("GET", path)).status == 200 and reply.body, "it is explained")
        assert "the name nowhere.invalid has no address" in told["detail"]
        assert "correct upstream.endpoints" in told["detail"]
        check = running.cli("check", "-c", str(running.file))
        assert check.returncode == 1
        assert "nowhere.invalid:9000" in check.stdout
