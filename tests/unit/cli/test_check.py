"""`sidecar check` finds before a start what would stop it."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sidecar.cli.app import app
from tests.support.pki import Authority
from tests.support.upstream import Upstream


@pytest.fixture
def upstream() -> socket.socket:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def check(file: Path) -> tuple[int, dict[str, dict]]:
    result = CliRunner(env={"COLUMNS": "100"}).invoke(app, ["check", "-c", str(file), "-o", "json"])
    answer = json.loads(result.stdout)
    assert answer["ok"] == (result.exit_code == 0)
    return result.exit_code, {row["check"]: row for row in answer["checks"]}


def written(folder: Path, upstream_port: int, *, listen: str = "127.0.0.1:0", state: str | None = None) -> Path:
    file = folder / "sidecar.yaml"
    file.write_text(
        f"listen: {listen}\nobserve: 127.0.0.1:0\nadmin: {{listen: 127.0.0.1:0}}\nstate: {state or folder / 'var'}\n"
        f"upstream: {{endpoints: ['http://127.0.0.1:{upstream_port}']}}\n"
    )
    return file


def test_all_is_well(tmp_path: Path, upstream: socket.socket) -> None:
    """A file that would start passes every check, and looking leaves nothing behind: no state directory either."""
    code, rows = check(written(tmp_path, upstream.getsockname()[1], state=str(tmp_path / "a/b/var")))
    assert (code, [row["ok"] for row in rows.values()]) == (0, [True] * 6)
    assert [path.name for path in tmp_path.iterdir()] == ["sidecar.yaml"]


def test_taken_port_and_missing_upstream(tmp_path: Path, upstream: socket.socket, closed_port: int) -> None:
    """A port in use and an upstream that does not answer are found together, each with its remedy."""
    taken = f"127.0.0.1:{upstream.getsockname()[1]}"
    code, rows = check(written(tmp_path, closed_port, listen=taken))
    bad = {name: row for name, row in rows.items() if not row["ok"]}
    assert (code, set(bad)) == (1, {f"listen {taken} is free", f"upstream 127.0.0.1:{closed_port} accepts connections"})
    assert all(row["problem"] and row["hint"] for row in bad.values())


def test_certificates_and_the_apis_own(tmp_path: Path) -> None:
    """Files of TLS are looked at, and an https API is verified as the workers do it; each failure has its remedy."""
    authority = Authority.make(tmp_path)
    issued = authority.sign("here", "127.0.0.1")
    with Upstream(tls=authority.serving(issued)) as upstream:
        file = written(tmp_path, upstream.port)
        text = file.read_text().replace("http://", "https://").replace("']}", f"'], tls: {{ca: '{authority.ca}'}}}}")
        file.write_text(f"{text}tls: {{{issued.keys}}}\n")
        code, rows = check(file)
        assert (code, rows["certificate files can be used"]["ok"]) == (0, True)

        other = Authority.make(tmp_path, "other")
        file.write_text(
            f"{text.replace(str(authority.ca), str(other.ca))}tls: {{certificate: none.crt, key: none.key}}\n"
        )
        code, rows = check(file)
    bad = {name: row for name, row in rows.items() if not row["ok"]}
    reached = f"upstream 127.0.0.1:{upstream.port} accepts connections"
    assert (code, set(bad)) == (1, {"tls.certificate can be used", reached})
    assert "none.crt cannot be read" in bad["tls.certificate can be used"]["problem"]
    assert "certificate verify failed" in bad[reached]["problem"]
    assert "upstream.tls.ca" in bad[reached]["hint"]


def test_invalid_file(tmp_path: Path) -> None:
    """Every error of the file is a finding with its place."""
    file = tmp_path / "bad.yaml"
    file.write_text("bad: 1\nworkers: none\n")
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["check", "-c", str(file)])
    assert (result.exit_code, "1:1: bad" in result.stdout, "2:10: workers" in result.stdout) == (1, True, True)


def test_missing_file(tmp_path: Path) -> None:
    """A file that is not there is a finding, not a stack trace."""
    code, rows = check(tmp_path / "none.yaml")
    [row] = rows.values()
    assert (code, row["problem"]) == (1, "No such file or directory")


def test_state_that_is_no_directory(tmp_path: Path, upstream: socket.socket) -> None:
    """A state that cannot be written is found."""
    (tmp_path / "file").touch()
    code, rows = check(written(tmp_path, upstream.getsockname()[1], state=str(tmp_path / "file" / "var")))
    assert (code, [row["ok"] for row in rows.values()][-1]) == (1, False)
