"""`python -m sidecar.config.static`: the static keys as JSON, or every error and exit code 2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from sidecar.config.load import ConfigErrors, text_hash
from sidecar.config.static import resolve
from tests.support.patience import WAIT_S


def _run(folder: Path, *argv: str, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sidecar.config.static", *argv]
    env = {key: value for key, value in os.environ.items() if not key.startswith("SIDECAR__")} | dict(environ or {})
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=WAIT_S, check=False)


def test_it_prints_one_line_of_json(tmp_path: Path) -> None:
    """
    File, environment and flags come together in one line that the supervisor reads.
    """
    (tmp_path / "a.yaml").write_text("observe: unix:/run/o.sock\ndrain: {delay: 1s}\n", encoding="utf-8")
    done = _run(
        tmp_path, "-c", "a.yaml", "--upstream", "http://127.0.0.1:3000", "--listen", "[::1]:7000", "--workers", "3",
        environ={"SIDECAR__STATE": "/tmp/x"},
    )  # fmt: skip
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)
    assert json.loads(done.stdout) == {
        "listen": "[::1]:7000",
        "observe": "unix:/run/o.sock",
        "admin": "127.0.0.1:9901",
        "secure": [],
        "workers": 3,
        "state": "/tmp/x",
        "access_log": "stdout",
        "config_file": "a.yaml",
        "file_hash": text_hash("observe: unix:/run/o.sock\ndrain: {delay: 1s}\n"),
        "drain": {"delay_s": 1.0, "grace_s": 30.0},
    }


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "(no file): upstream.endpoints: no upstream is given (add"),
        (
            ["-c", "nope.yaml"],
            "nope.yaml: cannot be read: No such file or directory (name a readable YAML file in UTF-8 with -c",
        ),
        (["-c", "."], ".: cannot be read: Is a directory"),
        (["-c", "latin.yaml"], "latin.yaml: is not UTF-8 text: byte 3 is 0xe9"),
        (["--upstream", "http://a", "--workers", "x"], "--workers: workers: 'x' is not a number of workers"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_what_is_wrong_is_said_once_with_exit_code_2(tmp_path: Path, argv: list[str], says: str) -> None:
    """
    A missing upstream, an unreadable file, a wrong flag and an unknown one: one message with the remedy, code 2.
    """
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    done = _run(tmp_path, *argv)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr


def test_without_c_the_usual_file_is_taken_when_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    `config/sidecar.yaml` of the current folder is the default; without it the defaults hold.
    """
    monkeypatch.chdir(tmp_path)
    flags = {"--upstream": "http://127.0.0.1:3000"}
    assert None is resolve(None, {}, flags)["config_file"]
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "sidecar.yaml").write_text("state: here/\n", encoding="utf-8")
    found = resolve(None, {}, flags)
    assert (found["config_file"], found["state"]) == ("config/sidecar.yaml", "here/")


def test_a_hidden_hash_in_the_file_is_refused(tmp_path: Path) -> None:
    """
    A file that was written from `config show` has tokens that nobody could use; that is said before the start.
    """
    file = tmp_path / "a.yaml"
    file.write_text("admin: {tokens: [{name: a, role: admin, sha256: (hidden)}]}\n", encoding="utf-8")
    with pytest.raises(ConfigErrors, match="the hash of token a is"):
        resolve(file, {}, {"--upstream": "http://127.0.0.1:3000"})
