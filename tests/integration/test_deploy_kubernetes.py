"""The Kubernetes manifests: a native sidecar, confined, probed where it answers, and given the time that it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.deployed import DEPLOY, configured, document, passes, tool, unit

CONFIG = "kubernetes/base/sidecar.yaml"
IN_IMAGE = {"SIDECAR__STATE": "/var/lib/sidecar"}
RELEASES = ("1.30", "1.33", "1.35")


@pytest.fixture
def pod() -> Any:
    return document("kubernetes/base/deployment.yaml")["spec"]["template"]["spec"]


@pytest.fixture
def native(pod: Any) -> Any:
    (made,) = pod["initContainers"]
    return made


def test_the_sidecar_is_a_native_one(pod: Any, native: Any) -> None:
    """
    An init container that is kept running starts before the API and ends after it.
    """
    assert native["restartPolicy"] == "Always"
    assert [container["name"] for container in pod["containers"]] == ["api"]
    assert native["args"] == ["run", "-c", "/etc/sidecar/sidecar.yaml"]


@pytest.mark.parametrize("name", ["sidecar", "api"])
def test_every_container_is_confined(pod: Any, name: str) -> None:
    """
    The restricted Pod Security Standard, and a read-only root.
    """
    found = next(row for row in pod["initContainers"] + pod["containers"] if row["name"] == name)
    assert found["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert "memory" in found["resources"]["limits"]
    assert "cpu" not in found["resources"]["limits"]


def test_probes_ask_the_observe_listener_and_never_the_api(native: Any) -> None:
    """
    Started and ready when workers serve; alive whatever the control plane does, so that it never restarts the pod.
    """
    ports = {port["name"]: port["containerPort"] for port in native["ports"]}
    static = configured(CONFIG).static
    assert ports == {"http": static.listen.port, "observe": static.observe.port}
    assert static.observe.host == "0.0.0.0"
    asked = {name: native[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert {probe["port"] for probe in asked.values()} == {"observe"}
    assert [probe["path"] for probe in asked.values()] == ["/readyz", "/readyz", "/livez"]


def test_the_pod_has_the_time_that_its_end_takes(pod: Any) -> None:
    """
    The API's preStop, 30 s for the API itself, then the sidecar's delay, grace and spare time.
    """
    drain = configured(CONFIG).drain
    pre_stop_s = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= pre_stop_s + 30 + drain.delay_s + drain.grace_s + 15


def test_the_config_map_can_be_swapped(native: Any) -> None:
    """
    One name for ever, mounted as a folder (a subPath is never swapped), and watched.
    """
    (generated,) = document("kubernetes/base/kustomization.yaml")["configMapGenerator"]
    assert generated["options"]["disableNameSuffixHash"] is True
    assert generated["files"] == ["sidecar.yaml"]
    (mount,) = [row for row in native["volumeMounts"] if row["name"] == "config"]
    assert mount == {"name": "config", "mountPath": "/etc/sidecar", "readOnly": True}
    assert {"name": "SIDECAR_WATCH", "value": "1"} in native["env"]


def test_all_that_is_written_has_a_volume(pod: Any, native: Any) -> None:
    """
    State and sockets lie on bounded emptyDirs, where the image and the temporary directory have them.
    """
    mounts = {row["mountPath"]: row["name"] for row in native["volumeMounts"]}
    volumes = {row["name"]: row for row in pod["volumes"]}
    assert volumes[mounts[configured(CONFIG, IN_IMAGE).static.state]]["emptyDir"]["sizeLimit"]
    assert volumes[mounts["/tmp"]]["emptyDir"]["medium"] == "Memory"
    assert volumes[mounts["/etc/sidecar"]]["configMap"]["name"] == "shop-sidecar"


def test_clients_reach_the_sidecar_and_nothing_else(native: Any) -> None:
    """
    Service and NetworkPolicy lead to the sidecar's ports by number; the API listens on the pod's loopback.
    """
    static = configured(CONFIG).static
    (port,) = document("kubernetes/base/service.yaml")["spec"]["ports"]
    assert port["targetPort"] == static.listen.port
    policy = document("kubernetes/base/networkpolicy.yaml")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    allowed = [row["port"] for rule in policy["ingress"] for row in rule["ports"]]
    assert allowed == [static.listen.port, static.observe.port]
    assert static.admin.host == "127.0.0.1"
    assert [endpoint.host for endpoint in configured(CONFIG).proxy.upstream.endpoints] == ["127.0.0.1"]


def test_labels_fit() -> None:
    """
    Deployment, Service, NetworkPolicy and PodMonitor mean the same pods; the monitored port is one of them.
    """
    deployment = document("kubernetes/base/deployment.yaml")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    monitor = document("kubernetes/monitoring/podmonitor.yaml")["spec"]
    assert deployment["selector"]["matchLabels"] == labels
    assert document("kubernetes/base/service.yaml")["spec"]["selector"] == labels
    assert document("kubernetes/base/networkpolicy.yaml")["spec"]["podSelector"]["matchLabels"] == labels
    assert monitor["selector"]["matchLabels"] == labels
    assert monitor["podMetricsEndpoints"][0]["port"] == "observe"
    assert deployment["template"]["metadata"]["annotations"]["prometheus.io/port"] == "9902"


@pytest.mark.parametrize("folder", ["base", "monitoring"])
def test_kustomize_builds_it(folder: str) -> None:
    """
    `kubectl kustomize` finds every resource, and the image gets its tag.
    """
    built = passes(tool("kubectl"), "kustomize", DEPLOY / "kubernetes" / folder)
    assert "image: sidecar:" in built
    assert "name: shop-sidecar" in built


@pytest.mark.parametrize("release", RELEASES)
def test_the_manifests_fit_kubernetes_own_schema(tmp_path: Path, release: str) -> None:
    """
    No unknown field, no wrong type, in the schema of each release.
    """
    validate = tool("kubernetes-validate")
    built = tmp_path / "built.yaml"
    built.write_text(passes(tool("kubectl"), "kustomize", DEPLOY / "kubernetes/base"))
    passes(validate, "--strict", "-k", release, built)


def test_the_unit_and_the_pod_bound_the_same_things() -> None:
    """
    Both ways to run it forbid new privileges, drop all capabilities and keep the root read only.
    """
    rows = unit()
    assert rows["NoNewPrivileges"] == ["yes"]
    assert rows["CapabilityBoundingSet"] == rows["AmbientCapabilities"] == [""]
    assert rows["ProtectSystem"] == ["strict"]
    assert rows["DynamicUser"] == rows["MemoryDenyWriteExecute"] == ["yes"]
