"""The tree of verbs: every help has an example to copy, usage errors are 2, and starting is quick."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from sidecar.cli.app import app
from tests.support.patience import WAIT_S

LATER = ("frobnicate",)
VERBS = {
    "run", "check", "demo", "status", "top", "explain", "events", "simulate", "tap",
    "incident list", "incident show", "incident ack", "incident confirm", "incident release", "incident note",
    "incident close", "incident tick", "incident postmortem",
    "override list", "override set", "override clear",
    "config show", "config validate", "config diff", "config apply", "config confirm", "config history",
    "config rollback", "config schema",
    "drill errors", "drill latency", "drill hang", "drill surge", "drill bad-config", "drill stop", "drill list",
    "proposal list", "proposal show", "proposal apply", "proposal dismiss",
    "silence add", "silence list", "silence end",
    "token new", "token list", "token revoke",
    "audit list", "audit verify", "control list", "control show", "control promote", "control demote", "control missed", "notify test", "breaker reset",
}  # fmt: skip


def paths(command: object, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    children = getattr(command, "commands", {})
    if not children:
        yield words
    for name, child in children.items():
        yield from paths(child, (*words, name))


def invoke(*words: str) -> tuple[int, str]:
    result = CliRunner(env={"COLUMNS": "100", "TERM": "dumb"}).invoke(app, list(words), prog_name="sidecar")
    return result.exit_code, result.output


def test_verbs_are_those_of_the_contract() -> None:
    """The tree holds exactly the verbs that this release has."""
    assert {" ".join(words) for words in paths(typer.main.get_command(app))} == VERBS


@pytest.mark.parametrize("verb", sorted(VERBS | {verb.split()[0] for verb in VERBS} | {""}))
def test_help_has_examples(verb: str) -> None:
    """Each --help says what the verb does and has an example to copy."""
    code, output = invoke(*verb.split(), "--help")
    assert (code, "Example" in output, f"sidecar {verb}".strip() in output) == (0, True, True)


@pytest.mark.parametrize("verb", LATER)
def test_verbs_of_later_releases_are_unknown(verb: str) -> None:
    """What is not built is not offered."""
    assert invoke(verb)[0] == 2


USAGE = [
    ("statu", "Did you mean 'status'"),
    ("config aply x", "Did you mean 'apply'"),
    ("incident show", "Missing argument"),
    ("incident show", "→ sidecar incident show 12"),
    ("incident show twelve", "write a whole number"),
    ("drill fire --route checkout", "→ sidecar drill bad-config | errors | hang"),
    ("drill errors --route checkout --share 50x", "→ write 1% to 100%, or 0.01 to 1"),
    ("drill errors --route checkout --share 0", "is not a part of the requests"),
    ("incident release 12 --verdict maybe", "maybe"),
    ("override set service isolate --ttl 1m", "Missing option '--reason'"),
    ("override set service isolate --reason x", "Missing option '--ttl'"),
    ("status -o xml", "xml"),
    ("status --nope", "No such option"),
    ("incident list --limit 0", "greater than or equal to 1"),
    ("run --workers 0 --help-me", "No such option"),
]


@pytest.mark.parametrize(("line", "words"), USAGE)
def test_usage_errors(line: str, words: str) -> None:
    """A wrong command line is exit 2 and says what is wrong, and what to type."""
    code, output = invoke(*line.split())
    assert (code, words in " ".join(output.split())) == (2, True), output


def loaded(*argv: str) -> tuple[int, set[str]]:
    """Return the exit code of `python -m sidecar ARGV` and the top-level packages that it imported."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "sidecar", *argv],
        capture_output=True, text=True, timeout=WAIT_S, check=False, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    modules = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
    packages = {m.partition(".")[0] for m in modules} | {".".join(m.split(".")[:2]) for m in modules}
    return done.returncode, packages


@pytest.mark.parametrize("argv", [["--version"], ["status", "--admin", "http://127.0.0.1:1"], ["config", "--help"]])
def test_start_is_quick(argv: list[str]) -> None:
    """The CLI starts without the data plane, the API's server, aiohttp and the config's loader."""
    _, packages = loaded(*argv)
    assert not packages & {"aiohttp", "yaml", "uvloop", "structlog", "sidecar.proxy", "sidecar.admin"}
    assert "typer" in packages


def test_run_goes_to_the_supervisor_without_the_cli() -> None:
    """`python -m sidecar run` loads the standard library and the supervisor only."""
    code, packages = loaded("run", "--nope")
    assert code == 2
    assert "sidecar.supervisor" in packages
    assert not packages & {"typer", "rich", "sidecar.cli", "aiohttp", "yaml", "pydantic"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion_can_be_installed(shell: str) -> None:
    """The completion script of each shell names the program."""
    done = subprocess.run(
        [Path(sys.executable).with_name("sidecar")],
        env={"_SIDECAR_COMPLETE": f"source_{shell}", "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
        capture_output=True, text=True, timeout=WAIT_S, check=False,
    )  # fmt: skip
    assert (done.returncode, "sidecar" in done.stdout) == (0, True), done.stderr
