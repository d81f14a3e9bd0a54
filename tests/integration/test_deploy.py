"""What stands below `deploy/` is what the tools take, what the sidecar needs, and what its metrics have."""

from __future__ import annotations

import json
import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar import __version__
from sidecar.telemetry.catalogue import CATALOGUE, Kind
from tests.support.deployed import (
    DEPLOY,
    ROOT,
    configured,
    document,
    documents,
    expressions,
    instructions,
    leaving_s,
    panels,
    passes,
    tool,
    unit,
)

YAML = sorted([*DEPLOY.rglob("*.yaml"), *DEPLOY.rglob("*.yml")])
METRICS = {metric.name: metric for metric in CATALOGUE}
TARGET_LABELS = {"job", "instance", "le", "alertname", "alertstate"}


def relative(path: Path) -> str:
    return str(path.relative_to(DEPLOY))


@pytest.mark.parametrize("path", YAML, ids=relative)
def test_every_yaml_file_parses(path: Path) -> None:
    """
    No tab, no duplicate key, no empty document.
    """
    assert all(documents(path))


def test_the_readme_names_every_folder_and_its_links_lead_somewhere() -> None:
    """
    Whoever opens `deploy/README.md` finds each way to deploy, and no dead link.
    """
    text = (DEPLOY / "README.md").read_text(encoding="utf-8")
    folders = {path.name for path in DEPLOY.iterdir() if path.is_dir()}
    assert [name for name in sorted(folders) if f"`{name}/`" not in text] == []
    links = [link.partition("#")[0] for link in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text)]
    assert [link for link in links if "://" not in link and not (DEPLOY / link).exists()] == []


# --- images


def pinned(image: str) -> bool:
    """Tell whether an image has a name without a registry's host, and a version of three numbers or more."""
    name, _, tag = image.partition(":")
    return "." not in name.split("/")[0] and re.match(r"v?\d+\.\d+\.\d+", tag) is not None


def test_the_image_is_built_in_stages_from_a_pinned_base() -> None:
    """
    Every stage begins with the same Python and Debian, by version; the one that is shipped has no compiler.
    """
    stages = [rest.split(" AS ") for word, rest in instructions() if word == "FROM"]
    assert len(stages) == 2
    assert stages[0][0].replace("-bookworm", "-slim-bookworm") == stages[1][0]
    assert pinned(stages[0][0])
    assert stages[1][1:] == []


def test_the_image_runs_unprivileged_and_reports_its_health_without_further_tools() -> None:
    """
    A user by number (Kubernetes cannot judge a name), programs in exec form so that signals arrive, no curl.
    """
    last = dict(instructions()[[word for word, _ in instructions()].index("FROM", 1) :])
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last["USER"])
    assert json.loads(last["ENTRYPOINT"]) == ["sidecar"]
    assert json.loads(last["CMD"])[0] == "run"
    check = json.loads(last["HEALTHCHECK"].partition(" CMD ")[2])
    assert check[0] == "python"
    assert "/readyz" in check[2]
    assert not any(word in rest for word, rest in instructions() for word in ("curl", "wget", "apt-get", "sudo"))


def test_what_the_image_copies_exists_and_is_not_ignored() -> None:
    """
    Each copied path is there, and `Dockerfile.dockerignore` lets it and little else into the build.
    """
    copied = [rest.split()[:-1] for word, rest in instructions() if word == "COPY" and not rest.startswith("--from")]
    paths = [path for row in copied for path in row]
    assert [path for path in paths if not (ROOT / path).exists()] == []
    rules = (DEPLOY / "docker/Dockerfile.dockerignore").read_text().splitlines()
    kept = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]
    assert rules[1] == "*"
    assert sorted(kept) == sorted(paths)
    assert not any(fnmatch(".git", pattern) for pattern in kept)


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    """
    The linter of Dockerfiles agrees.
    """
    passes(tool("hadolint"), DEPLOY / "docker/Dockerfile")


# --- compose


def test_compose_pins_and_confines_every_service() -> None:
    """
    Images by version, no capabilities, no way to gain any; only Grafana, which unpacks itself, has a writable root.
    """
    services: dict[str, Any] = document("compose/compose.yaml")["services"]
    assert set(services) == {"sidecar", "shop", "prometheus", "alertmanager", "grafana"}
    for name, service in services.items():
        assert service["image"] == "sidecar:local" or pinned(service["image"]), name
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
        assert service.get("read_only", False) is (name != "grafana")
    public = [name for name, row in services.items() if any("127.0.0.1" not in port for port in row.get("ports", ()))]
    assert public == ["sidecar"]


def test_compose_mounts_what_is_there_and_waits_as_long_as_draining_takes() -> None:
    """
    Every bind mount exists, and the sidecar is not killed before its own deadline.
    """
    services = document("compose/compose.yaml")["services"]
    sources = [row.split(":")[0] for service in services.values() for row in service.get("volumes", ())]
    assert [path for path in sources if path.startswith(".") and not (DEPLOY / "compose" / path).exists()] == []
    grace_s = float(services["sidecar"]["stop_grace_period"].removesuffix("s"))
    assert grace_s >= leaving_s(configured("compose/sidecar/sidecar.yaml"))
    assert services["sidecar"]["environment"]["SIDECAR_WATCH"] == "1"


def test_compose_takes_its_file() -> None:
    """
    `docker compose config` has nothing to say.
    """
    passes(tool("docker-compose"), "-f", DEPLOY / "compose/compose.yaml", "config", "--quiet")


# --- systemd


def test_the_unit_follows_the_supervisor() -> None:
    """
    It waits for READY=1, feeds a watchdog, reloads by SIGHUP, signals the supervisor alone, and keeps its state.
    """
    rows = unit()
    assert rows["Type"] == ["notify"]
    assert rows["NotifyAccess"] == ["main"]
    assert rows["WatchdogSec"] == ["10s"]
    assert rows["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert rows["KillMode"] == ["mixed"]
    assert rows["StateDirectory"] == rows["RuntimeDirectory"] == ["sidecar"]
    assert "SIDECAR__STATE=/var/lib/sidecar" in rows["Environment"][0]
    assert "XDG_RUNTIME_DIR=/run/sidecar" in rows["Environment"][0]


def test_systemd_takes_the_unit_and_calls_it_safe(tmp_path: Path) -> None:
    """
    `systemd-analyze verify` says nothing, and `security` rates the exposure at 2.0 of 10 or less.
    """
    analyze = tool("systemd-analyze")
    text = (DEPLOY / "systemd/sidecar.service").read_text()
    there = tmp_path / "sidecar.service"
    there.write_text(text.replace("/opt/sidecar/bin/sidecar", "/bin/true"))  # verify wants a program that is there

    done = subprocess.run([analyze, "verify", "--man=no", str(there)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    passes(analyze, "security", "--offline=true", "--threshold=20", "--no-pager", there)


# --- Prometheus and Grafana


def test_promtool_takes_configuration_and_rules() -> None:
    """
    `promtool check config` also reads the rules that it names.
    """
    passes(tool("promtool"), "check", "config", "prometheus.yml", cwd=DEPLOY / "prometheus")


def test_every_rule_fires_when_it_should_and_is_tested() -> None:
    """
    `promtool test rules` plays a healthy sidecar and every trouble; no rule is without its trouble.
    """
    passes(tool("promtool"), "test", "rules", "alerts.test.yml", cwd=DEPLOY / "prometheus")
    tested = (DEPLOY / "prometheus/alerts.test.yml").read_text()
    rules = [rule["alert"] for group in document("prometheus/alerts.yml")["groups"] for rule in group["rules"]]
    assert [name for name in rules if name not in tested] == []


def test_amtool_takes_the_configuration_of_alertmanager() -> None:
    """
    `amtool check-config` agrees.
    """
    passes(tool("amtool"), "check-config", DEPLOY / "prometheus/alertmanager.yml")


def test_every_alert_leads_to_a_page() -> None:
    """
    Each rule has a severity, a summary, a description, and a runbook whose page and heading exist.
    """
    for group in document("prometheus/alerts.yml")["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in {"info", "warning", "critical"}
            assert set(rule["annotations"]) == {"summary", "description", "runbook"}
            page, _, anchor = rule["annotations"]["runbook"].partition("#")
            headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)
            assert not anchor or anchor in {heading.lower().replace(" ", "-") for heading in headings}, rule["alert"]


def test_every_expression_is_promql(tmp_path: Path) -> None:
    """
    promtool parses what the dashboard asks, as it parses the rules.
    """
    rules = [{"record": f"expression:{number}", "expr": text} for number, (_, text) in enumerate(expressions())]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    passes(tool("promtool"), "check", "rules", tmp_path / "rules.yml")


def base(name: str) -> str:
    """Return the metric of a series' name: histograms have three."""
    stem = re.sub(r"_(bucket|count|sum)$", "", name)
    return stem if stem in METRICS and METRICS[stem].kind is Kind.HISTOGRAM else name


@pytest.mark.parametrize(("place", "expression"), list(expressions()))
def test_every_expression_asks_for_what_there_is(place: str, expression: str) -> None:
    """
    Metrics and labels stand in the catalogue; a renamed one would leave a rule that never fires.
    """
    named = {base(name) for name in re.findall(r"\b(?:sidecar|http_server)_\w+", expression)}
    assert named <= set(METRICS), place
    assert named or "up{" in expression
    known = TARGET_LABELS.union(*(METRICS[name].labels for name in named))
    asked = {label for inner in re.findall(r"\{([^}]*)\}", expression) for label in re.findall(r"(\w+)\s*[=!]", inner)}
    kept = {
        label
        for inner in re.findall(r"\b(?:by|without) \(([^)]*)\)", expression)
        for label in re.findall(r"\w+", inner)
    }
    assert asked | kept <= known, place


def test_the_dashboard_shows_every_metric() -> None:
    """
    What is measured can be looked at.
    """
    text = " ".join(text for _, text in expressions())
    assert [name for name in METRICS if not re.search(rf"\b{name}", text)] == []


def test_the_dashboard_is_laid_out_without_overlap() -> None:
    """
    Ids are unique, every panel says what it shows, and no two share a cell of the grid.
    """
    found = panels()
    assert len({panel["id"] for panel in found}) == len(found)
    assert [panel["title"] for panel in found if panel["type"] != "row" and not panel["description"]] == []
    taken: set[tuple[int, int]] = set()
    for panel in found:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_grafana_finds_what_compose_mounts() -> None:
    """
    The dashboards' folder, the data source's address and the home page fit the mounts and the service's name.
    """
    services = document("compose/compose.yaml")["services"]
    (provider,) = document("grafana/provisioning/dashboards/sidecar.yaml")["providers"]
    (source,) = document("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    mounts = {row.split(":")[1]: row.split(":")[0] for row in services["grafana"]["volumes"]}
    assert Path(home).parent == Path(provider["options"]["path"])
    assert (DEPLOY / "compose" / mounts[provider["options"]["path"]] / Path(home).name).exists()
    assert source["url"] == "http://prometheus:9090"


def test_prometheus_asks_the_observe_listener() -> None:
    """
    The scraped port is the one that the configuration of the composed sidecar listens on.
    """
    (job,) = document("prometheus/prometheus.yml")["scrape_configs"]
    observe = configured("compose/sidecar/sidecar.yaml").static.observe
    assert job["static_configs"][0]["targets"] == [f"sidecar:{observe.port}"]
    assert "sidecar" in job["job_name"]


def test_the_release_stands_in_the_manifests() -> None:
    """
    The image's tag in Kubernetes is the version of these sources.
    """
    (image,) = document("kubernetes/base/kustomization.yaml")["images"]
    assert image == {"name": "sidecar", "newTag": __version__}
