"""The Kubernetes manifests, rendered as for a cluster: they are valid and match the services' own settings."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from mien_gateway.settings import GatewaySettings
from mien_generator.settings import GeneratorSettings
from mien_shared.settings import ServiceSettings
from mien_signaling.settings import SignalingSettings

ROOT = Path(__file__).parents[2]
K8S = ROOT / "deploy/k8s"
OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())
SETTINGS: dict[str, type[ServiceSettings]] = {
    "mien-gateway": GatewaySettings,
    "mien-generator": GeneratorSettings,
    "mien-signaling": SignalingSettings,
}

#: The first release with preStop's `sleep`.
_OLDEST = "1.30"
_CUSTOM = {
    "ServiceMonitor": "monitoring.coreos.com/v1",
    "PrometheusRule": "monitoring.coreos.com/v1",
    "ScaledObject": "keda.sh/v1alpha1",
}
_GOOD_SECRET = "f3b1c05d97a84e62b0d6a5c4e8197f2ab35c6d70e1f28493"

Json = dict[str, Any]


@dataclass(frozen=True)
class Manifests:
    """The objects that `kubectl kustomize` renders from a folder."""

    objects: tuple[Json, ...]

    def of(self, kind: str) -> list[Json]:
        return [found for found in self.objects if found["kind"] == kind]

    def named(self, kind: str, name: str) -> Json:
        return next(found for found in self.of(kind) if found["metadata"]["name"] == name)

    @property
    def workloads(self) -> list[Json]:
        return self.of("Deployment") + self.of("StatefulSet")

    @property
    def services(self) -> Iterator[tuple[str, Json]]:
        """Mien's own deployments by name, each with its pod's specification."""
        for name in SETTINGS:
            yield name, self.named("Deployment", name)["spec"]["template"]["spec"]

    def environment(self, pod: Json) -> dict[str, str]:
        """The environment of a pod's one container; references to fields of the pod give a fixed address."""
        (container,) = pod["containers"]
        found: dict[str, str] = {}
        for source in container.get("envFrom", []):
            if "configMapRef" in source:
                found |= self.named("ConfigMap", source["configMapRef"]["name"])["data"]
        for variable in container["env"]:
            found[variable["name"]] = (
                variable["value"] if "value" in variable else self._referred(variable["valueFrom"])
            )
        return found

    def _referred(self, source: Json) -> str:
        if "fieldRef" in source:
            assert source["fieldRef"]["fieldPath"].endswith("IP")
            return "192.0.2.1"
        reference = source["configMapKeyRef"]
        value: str = self.named("ConfigMap", reference["name"])["data"][reference["key"]]
        return value


@cache
def kustomize() -> list[str]:
    """The command that renders a folder: `kubectl kustomize` or `kustomize build`, version 5 or later."""
    for command, ask in ((["kubectl", "kustomize"], ["version", "--client"]), (["kustomize", "build"], ["version"])):
        if shutil.which(command[0]):
            told = subprocess.run([command[0], *ask], capture_output=True, text=True, check=False).stdout
            found = re.search(r"(?:Kustomize Version: |^)v(\d+)\.", told, re.MULTILINE)
            if found and int(found[1]) >= 5:
                return command
    pytest.skip("neither kubectl 1.27 or later nor kustomize 5 is installed")


@cache
def rendered(folder: Path) -> Manifests:
    done = subprocess.run([*kustomize(), str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Manifests(tuple(yaml.safe_load_all(done.stdout)))


@pytest.fixture(params=[*OVERLAYS, "+external-redis", "+s3-avatars", "+gpu+hostnetwork", "+sfu"])
def manifests(request: pytest.FixtureRequest, tmp_path: Path) -> Manifests:
    """Each overlay, and combinations of components that an operator may choose."""
    name: str = request.param
    if not name.startswith("+"):
        return rendered(K8S / "overlays" / name)
    here = Path(os.path.relpath(K8S, tmp_path))
    components = [f"{here}/components/{component}" for component in name[1:].split("+")]
    text = yaml.safe_dump({"namespace": "mien", "resources": [f"{here}/base"], "components": components})
    (tmp_path / "kustomization.yaml").write_text(text)
    return rendered(tmp_path)


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> Manifests:
    return rendered(K8S / "overlays" / request.param)


def matches(selector: Json, labels: dict[str, str]) -> bool:
    """Whether a label selector (matchLabels, matchExpressions with In) selects a pod with these labels."""
    wanted: bool = selector.get("matchLabels", {}).items() <= labels.items()
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In"
        wanted = wanted and labels.get(expression["key"]) in expression["values"]
    return wanted


def pod_labels(workload: Json) -> dict[str, str]:
    labels: dict[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return labels


@pytest.mark.parametrize("release", [_OLDEST, kubernetes_validate.latest_version()])
def test_kubernetes_takes_every_object(manifests: Manifests, release: str) -> None:
    for found in manifests.objects:
        if found["kind"] in _CUSTOM:
            assert found["apiVersion"] == _CUSTOM[found["kind"]]
        else:
            kubernetes_validate.validate(found, release, strict=True)
        assert found["kind"] == "Namespace" or found["metadata"]["namespace"] == "mien"


def test_images_are_pinned_and_of_this_version(manifests: Manifests) -> None:
    for workload in manifests.workloads:
        for container in workload["spec"]["template"]["spec"]["containers"]:
            name, _, tag = container["image"].partition(":")
            assert tag, container["image"]
            assert tag != "latest"
            if name.startswith("mien/"):
                assert tag == version("mien-shared")


def test_no_pod_can_do_more_than_its_work(manifests: Manifests) -> None:
    for workload in manifests.workloads:
        pod = workload["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            allowed = {"drop": ["ALL"]} | ({"add": ["NET_BIND_SERVICE"]} if container["name"] == "coturn" else {})
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": allowed,
            }
            for part in ("requests", "limits"):
                assert {"cpu", "memory", "ephemeral-storage"} <= container["resources"][part].keys()
        for volume in pod["volumes"]:
            assert "hostPath" not in volume
            if "emptyDir" in volume:
                assert "sizeLimit" in volume["emptyDir"], "an emptyDir needs a size limit"


def secret_files(pod: Json) -> set[str]:
    """The names of the files in which a pod finds its secrets."""
    (volume,) = (volume for volume in pod["volumes"] if "secret" in volume)
    assert volume["secret"]["secretName"] == "mien-secrets"
    assert volume["secret"]["defaultMode"] == 0o440
    items = volume["secret"]["items"]
    # Each service reads its own user's URL as redis_url.
    name = pod["containers"][0]["name"]
    keys = {f"redis_url_{name}" if item["path"] == "redis_url" else item["path"]: item["key"] for item in items}
    assert all(path == key for path, key in keys.items())
    return {item["path"] for item in items}


def test_secrets_are_referred_to_and_never_written(manifests: Manifests) -> None:
    assert not manifests.of("Secret")
    for name, pod in manifests.services:
        secret_fields = {
            f"MIEN_{field.upper()}"
            for field, info in SETTINGS[name].model_fields.items()
            if "Secret" in str(info.annotation)
        } | {"REDIS_URL"}
        assert not secret_fields & manifests.environment(pod).keys()
        files = secret_files(pod)
        assert {"mien_token_secret", "redis_url"} <= files
        known = {f"mien_{field}" for field in SETTINGS[name].model_fields} | {"redis_url"}
        assert files <= known, f"{name} reads no {files - known}"


def test_the_services_start_with_these_settings(
    manifests: Manifests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in list(os.environ):
        if variable.startswith("MIEN_"):
            monkeypatch.delenv(variable)
    for name, pod in manifests.services:
        known = {f"MIEN_{field.upper()}" for field in SETTINGS[name].model_fields} | {"MIEN_SECRETS_DIR"}
        environment = manifests.environment(pod)
        shared = {f"MIEN_{field.upper()}" for settings in SETTINGS.values() for field in settings.model_fields}
        (container,) = pod["containers"]
        own = {variable["name"] for variable in container["env"] if variable["name"].startswith("MIEN_")}
        assert own <= known, f"{name} has no setting {own - known}"
        assert {key for key in environment if key.startswith("MIEN_")} <= shared | known

        folder = tmp_path / name
        folder.mkdir()
        for file in secret_files(pod):
            (folder / file).write_text("redis://mien-redis:6379/0" if file == "redis_url" else _GOOD_SECRET)
        with monkeypatch.context() as patch:
            for key, value in environment.items():
                patch.setenv(key, value)
            patch.setenv("MIEN_SECRETS_DIR", str(folder))
            settings = SETTINGS[name]()
        assert settings.redis_url == "redis://mien-redis:6379/0"
        assert settings.host == "0.0.0.0"
        assert not settings.demo_open
        (mount,) = (mount for mount in container["volumeMounts"] if mount["name"] == "secrets")
        assert environment["MIEN_SECRETS_DIR"] == mount["mountPath"]


def test_ports_are_the_services_own(manifests: Manifests) -> None:
    for name, pod in manifests.services:
        port = SETTINGS[name].model_fields["port"].default
        ports = {found["name"]: found["containerPort"] for found in pod["containers"][0]["ports"]}
        media = {port for port in ports if port.startswith("media-")}
        assert {label: number for label, number in ports.items() if label not in media} == {"http": port}
        assert media == ({"media-udp", "media-tcp"} if name == "mien-signaling" else set())
        service = manifests.named("Service", name)
        assert [(found["name"], found["port"], found["targetPort"]) for found in service["spec"]["ports"]] == [
            ("http", port, "http")
        ]
        assert matches({"matchLabels": service["spec"]["selector"]}, pod_labels(manifests.named("Deployment", name)))


def test_alive_ready_and_started_are_three_questions(manifests: Manifests) -> None:
    for _, pod in manifests.services:
        (container,) = pod["containers"]
        asked = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
        # If the startup probe asked for readiness, a missing Redis would restart the pod, and a restart does not help.
        assert asked == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}


def test_pods_have_time_to_shut_down_cleanly(manifests: Manifests) -> None:
    for name, pod in manifests.services:
        (container,) = pod["containers"]
        before_s = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        settings = SETTINGS[name]
        drain_s = settings.model_fields["drain_s"].default if "drain_s" in settings.model_fields else 0
        drain_s = float(manifests.environment(pod).get("MIEN_DRAIN_S", drain_s))
        assert pod["terminationGracePeriodSeconds"] >= before_s + drain_s + 10
        if manifests.named("Service", name)["spec"].get("clusterIP") != "None":
            assert before_s >= 3, f"{name} still gets requests until its endpoint is removed"


def test_nodes_can_be_emptied_one_pod_at_a_time(manifests: Manifests) -> None:
    budgets = manifests.of("PodDisruptionBudget")
    for workload in manifests.workloads:
        (budget,) = [one for one in budgets if matches(one["spec"]["selector"], pod_labels(workload))]
        assert budget["spec"]["maxUnavailable"] == 1
    assert len(budgets) == len(manifests.workloads)
    for name, pod in manifests.services:
        spread = {constraint["topologyKey"] for constraint in pod["topologySpreadConstraints"]}
        assert spread == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}, name


def peers(manifests: Manifests, labels: dict[str, str], direction: str) -> set[tuple[str, str]]:
    """The peers that may connect to a pod with these labels (ingress) or that it may connect to (egress).

    Each is (peer, protocol/port).
    """
    side = {"ingress": "from", "egress": "to"}[direction]
    found: set[tuple[str, str]] = set()
    for policy in manifests.of("NetworkPolicy"):
        if not matches(policy["spec"]["podSelector"], labels):
            continue
        for rule in policy["spec"].get(direction, []):
            ports = [f"{port['protocol']}/{port['port']}" for port in rule["ports"]]
            for peer in rule.get(side, [{}]):
                found |= {(who(peer), port) for port in ports}
    return found


def who(peer: Json) -> str:
    if "ipBlock" in peer:
        return str(peer["ipBlock"]["cidr"])
    namespace = peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")
    if namespace:
        return f"namespace {namespace}"
    pods = peer.get("podSelector", {})
    expressions = [value for one in pods.get("matchExpressions", []) for value in one["values"]]
    names = [*pods.get("matchLabels", {}).values(), *expressions]
    return " ".join(sorted(names)) or "anyone"


def labels_of(name: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "mien"}


def test_all_traffic_is_denied_unless_it_is_allowed(manifests: Manifests) -> None:
    deny = manifests.named("NetworkPolicy", "mien-default-deny")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert "pod-security.kubernetes.io/enforce" in manifests.of("Namespace")[0]["metadata"]["labels"]
    assert peers(manifests, labels_of("mien-generator"), "ingress") == {("namespace monitoring", "TCP/http")}
    edge = {("namespace ingress-nginx", "TCP/http"), ("namespace monitoring", "TCP/http")}
    assert peers(manifests, labels_of("mien-gateway"), "ingress") == edge
    media = {(who, port) for who, port in peers(manifests, labels_of("mien-signaling"), "ingress") if "20000" in port}
    assert peers(manifests, labels_of("mien-signaling"), "ingress") - media == edge
    assert media in (
        {("anyone", "UDP/20000"), ("anyone", "TCP/20000")},
        {("mien-coturn", "UDP/20000")},
    )


def test_the_cpu_overlay_as_a_table_of_who_talks_to_whom() -> None:
    cpu = rendered(K8S / "overlays/cpu")
    ours = "mien-gateway mien-generator mien-signaling"
    dns = {("namespace kube-system", "UDP/53"), ("namespace kube-system", "TCP/53")}
    redis = {("mien-redis", "TCP/6379")}
    assert peers(cpu, labels_of("mien-redis"), "ingress") == {(ours, "TCP/6379")}
    assert peers(cpu, labels_of("mien-redis"), "egress") == dns
    assert peers(cpu, labels_of("mien-generator"), "egress") == dns | redis
    assert peers(cpu, labels_of("mien-gateway"), "egress") == dns | redis
    assert peers(cpu, labels_of("mien-signaling"), "egress") == dns | redis | {
        ("0.0.0.0/0", "UDP/1024"),
        ("::/0", "UDP/1024"),
    }
    block = cpu.named("NetworkPolicy", "mien-media")["spec"]["egress"][0]["to"][0]["ipBlock"]
    assert block["except"] == ["169.254.0.0/16"], "the cloud's metadata service is not a viewer"


def test_the_media_port_is_the_one_that_is_opened(manifests: Manifests) -> None:
    signaling = manifests.named("Deployment", "mien-signaling")["spec"]["template"]["spec"]
    assert "sysctls" not in signaling["securityContext"]
    port = int(manifests.environment(signaling)["MIEN_MEDIA_PORT"])
    (container,) = signaling["containers"]
    media = {one["protocol"]: one["containerPort"] for one in container["ports"] if one["name"].startswith("media-")}
    assert media == {"UDP": port, "TCP": port}
    if signaling.get("hostNetwork"):
        assert manifests.of("Namespace")[0]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "privileged"
        assert manifests.named("NetworkPolicy", "mien-redis-from-nodes")
        return
    opened = manifests.named("NetworkPolicy", "mien-media")["spec"]["ingress"][0]["ports"]
    over_udp = {"protocol": "UDP", "port": port}
    assert opened in ([over_udp, {"protocol": "TCP", "port": port}], [over_udp]), "coturn relays UDP only"
    assert manifests.of("Namespace")[0]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_gpu_pods_request_a_gpu_and_tolerate_its_node() -> None:
    pod = dict(rendered(K8S / "overlays/gpu").services)["mien-generator"]
    (container,) = pod["containers"]
    assert container["image"].startswith("mien/generator-gpu:")
    assert {container["resources"][part]["nvidia.com/gpu"] for part in ("requests", "limits")} == {"1"}
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]
    cpu = dict(rendered(K8S / "overlays/cpu").services)["mien-generator"]
    assert "nvidia.com/gpu" not in cpu["containers"][0]["resources"]["limits"]


def test_turn_only_lets_no_viewer_in_but_by_turn() -> None:
    turn_only = rendered(K8S / "overlays/turn-only")
    media = {peer for peer in peers(turn_only, labels_of("mien-signaling"), "ingress") if "20000" in peer[1]}
    assert media == {("mien-coturn", "UDP/20000")}
    dns = {("namespace kube-system", "UDP/53"), ("namespace kube-system", "TCP/53")}
    assert peers(turn_only, labels_of("mien-coturn"), "egress") == dns | {("mien-signaling", "UDP/20000")}
    assert peers(turn_only, labels_of("mien-coturn"), "ingress") == {
        ("anyone", "UDP/3478"),
        ("anyone", "TCP/3478"),
        ("mien-signaling", "UDP/20100"),
    }
    for name, pod in turn_only.services:
        assert ("MIEN_TURN_URLS" in turn_only.environment(pod)) == (name != "mien-generator")
        assert ("mien_turn_secret" in secret_files(pod)) == (name != "mien-generator")
        assert "MIEN_PUBLIC_IP" not in turn_only.environment(pod), "relays reach only the pod's address"


def test_coturn_relays_from_the_ports_that_are_opened_to_it() -> None:
    turn_only = rendered(K8S / "overlays/turn-only")
    pod = turn_only.named("Deployment", "mien-coturn")["spec"]["template"]["spec"]
    files = turn_only.named("ConfigMap", next(v["configMap"]["name"] for v in pod["volumes"] if "configMap" in v))[
        "data"
    ]
    assert files == {name: (ROOT / "deploy/coturn" / name).read_text() for name in ("start", "turnserver.conf")}
    settings = dict(line.split("=", 1) for line in files["turnserver.conf"].splitlines() if re.match(r"[a-z-]+=", line))
    relayed = {"protocol": "UDP", "port": int(settings["min-port"]), "endPort": int(settings["max-port"])}
    assert turn_only.named("NetworkPolicy", "mien-media")["spec"]["egress"][0]["ports"] == [relayed]
    assert turn_only.named("NetworkPolicy", "mien-coturn")["spec"]["ingress"][1]["ports"] == [relayed]
    assert {port["port"] for port in turn_only.named("Service", "mien-coturn")["spec"]["ports"]} == {
        int(settings["listening-port"])
    }
    assert secret_files(pod) == {"mien_turn_secret"}
    (mount,) = (one for one in pod["containers"][0]["volumeMounts"] if one["name"] == "secrets")
    assert f"{mount['mountPath']}/mien_turn_secret" in files["start"]


def test_coturn_allows_the_peers_it_is_told(tmp_path: Path) -> None:
    """Runs deploy/coturn/start with its fixed paths replaced by temporary ones."""
    (tmp_path / "secret").write_text(_GOOD_SECRET)
    (tmp_path / "turnserver").write_text("#!/bin/sh\n")
    (tmp_path / "turnserver").chmod(0o755)
    script = (ROOT / "deploy/coturn/start").read_text()
    for fixed, here in {
        "/run/secrets/mien_turn_secret": "secret",
        "/etc/coturn/turnserver.conf": "base.conf",
        "/tmp/turnserver.conf": "made.conf",
    }.items():
        script = script.replace(fixed, str(tmp_path / here))
    (tmp_path / "base.conf").write_text("listening-port=3478\n")
    for told, peers_allowed in ((None, ["10.244.1.7"]), ("10.244.0.0-10.244.255.255 10.1.2.3", None)):
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "MIEN_PUBLIC_IP": "10.244.1.7"}
        if told is not None:
            environment["MIEN_ALLOWED_PEERS"] = told
        subprocess.run(["/bin/sh", "-c", script], env=environment, check=True)
        made = (tmp_path / "made.conf").read_text()
        allowed = re.findall(r"^allowed-peer-ip=(.*)$", made, re.MULTILINE)
        assert allowed == (peers_allowed or ["10.244.0.0-10.244.255.255", "10.1.2.3"])
        assert "relay-ip=10.244.1.7\n" in made


def test_one_origin_and_nothing_of_the_inside_on_it(manifests: Manifests) -> None:
    config = next(one for one in manifests.of("ConfigMap") if one["metadata"]["name"].startswith("mien-config"))["data"]
    host = urlsplit(config["MIEN_PUBLIC_URL"]).hostname
    assert urlsplit(config["MIEN_SIGNALING_URL"]).hostname == host
    paths: list[tuple[str, str]] = []
    for ingress in manifests.of("Ingress"):
        assert ingress["spec"]["tls"][0]["hosts"] == [host]
        for rule in ingress["spec"]["rules"]:
            assert rule["host"] == host
            for path in rule["http"]["paths"]:
                paths.append((path["path"], path["pathType"]))
                service = path["backend"]["service"]
                assert service["port"] == {"name": "http"}
                assert manifests.named("Service", service["name"])
    assert sorted(paths) == [
        ("/", "Exact"),
        ("/room", "Prefix"),
        ("/static", "Prefix"),
        ("/v1", "Prefix"),
        ("/v1/whep", "Prefix"),
        ("/v1/whip", "Prefix"),
    ]


def test_prometheus_finds_every_service_under_its_job(overlay: Manifests) -> None:
    monitors = overlay.of("ServiceMonitor")
    jobs = set()
    for monitor in monitors:
        selected = [
            one for one in overlay.of("Service") if matches(monitor["spec"]["selector"], one["metadata"]["labels"])
        ]
        (service,) = selected
        (endpoint,) = monitor["spec"]["endpoints"]
        assert endpoint["path"] == "/metrics"
        assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
        jobs.add(service["metadata"]["labels"][monitor["spec"]["jobLabel"]])
    assert jobs == set(SETTINGS)


def test_rules_and_dashboards_are_those_of_deploy(overlay: Manifests, tmp_path: Path) -> None:
    build = runpy.run_path(str(ROOT / "deploy/prometheus/build.py"))
    assert build["prometheus_rule"]() == Path(build["TARGET"]).read_text(), "run deploy/prometheus/build.py"
    (rule,) = overlay.of("PrometheusRule")
    files = [yaml.safe_load(path.read_text()) for path in (ROOT / "deploy/prometheus/rules").glob("*.yml")]
    groups = {group["name"]: group for found in files for group in found["groups"]}
    assert {group["name"]: group for group in rule["spec"]["groups"]} == groups
    dashboards = overlay.named("ConfigMap", "mien-dashboards")
    assert dashboards["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert dashboards["data"] == {
        path.name: path.read_text() for path in (ROOT / "deploy/grafana/dashboards").glob("*.json")
    }


def test_scaling_follows_what_fills_up(overlay: Manifests) -> None:
    scaled = {one["metadata"]["name"]: one["spec"] for one in overlay.of("ScaledObject")}
    assert scaled.keys() == SETTINGS.keys()
    for name, spec in scaled.items():
        deployment = overlay.named("Deployment", spec["scaleTargetRef"]["name"])
        assert deployment["metadata"]["name"] == name
        assert "replicas" not in deployment["spec"], "an apply would reset the number of pods that KEDA has set"
        assert 2 <= spec["minReplicaCount"] < spec["maxReplicaCount"]
        assert spec["minReplicaCount"] <= spec["fallback"]["replicas"] <= spec["maxReplicaCount"]
        (trigger,) = spec["triggers"]
        assert trigger["type"] == "prometheus"
        assert trigger["metricType"] == "AverageValue"
        assert re.fullmatch(r"\d+(\.\d+)?", trigger["metadata"]["threshold"])
    assert scaled["mien-generator"]["triggers"][0]["metadata"]["query"] == (
        "sum(mien_generator_sessions) / avg(mien_generator_capacity_sessions)"
    )
    assert float(scaled["mien-generator"]["triggers"][0]["metadata"]["threshold"]) < 0.85, "MienCapacityShort's limit"
    signaling = dict(overlay.services)["mien-signaling"]
    most = int(overlay.environment(signaling)["MIEN_MAX_VIEWERS"])
    assert float(scaled["mien-signaling"]["triggers"][0]["metadata"]["threshold"]) < most
