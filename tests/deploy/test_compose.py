"""Static checks of the docker-compose files against an operator's policy. `make trial` tests that they work."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from mien_gateway.settings import GatewaySettings
from mien_generator.settings import GeneratorSettings
from mien_shared.settings import ServiceSettings, weakness
from mien_signaling.settings import SignalingSettings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
GPU: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.gpu.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS: dict[str, type[ServiceSettings]] = {
    "gateway": GatewaySettings,
    "generator": GeneratorSettings,
    "signaling": SignalingSettings,
}
DOCKER = ROOT / "deploy/docker"
DOCKERFILE = (ROOT / "deploy/docker/Dockerfile").read_text()
TURNSERVER = (ROOT / "deploy/coturn/turnserver.conf").read_text()

#: The special-purpose ranges of RFC 6890 from which an answer could come, and multicast.
NOT_PUBLIC = """
    0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24
    192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4
    ::/128 ::1/128 ::ffff:0:0/96 64:ff9b::/96 100::/64 2001::/23 2001:db8::/32 2002::/16 fc00::/7 fe80::/10 ff00::/8
"""

each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)


def test_the_whole_system_is_there() -> None:
    assert set(SERVICES) == {*OURS, "redis", "coturn", "prometheus", "grafana", "proxy"}


@each_service
def test_images_are_pinned(service: dict[str, Any]) -> None:
    image, _, digest = service["image"].partition("@")  # deploy/renew-images writes the digest
    assert not digest or re.fullmatch(r"sha256:[0-9a-f]{64}", digest)
    name, _, tag = image.rpartition(":")
    assert name
    assert re.search(r"\d", tag), "the tag must name a version"


@each_service
def test_every_container_is_confined(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service.get("privileged")
    assert service.get("pid") != "host"
    assert not any("docker.sock" in str(volume) for volume in service.get("volumes", []))


def test_one_container_has_one_capability() -> None:
    assert {name: one["cap_add"] for name, one in SERVICES.items() if "cap_add" in one} == {
        "coturn": ["NET_BIND_SERVICE"]
    }


@each_service
def test_no_service_runs_as_root(service: dict[str, Any]) -> None:
    if "build" in service:
        target = service["build"]["target"]
        assert f"FROM service AS {target}\n" in DOCKERFILE
    else:
        assert int(service["user"].partition(":")[0]) > 0


def test_our_images_run_with_a_fixed_user_id_and_end_on_sigterm() -> None:
    service = DOCKERFILE[DOCKERFILE.index("FROM python AS service") : DOCKERFILE.index("FROM service AS gateway")]
    assert "USER 10001:10001\n" in service
    assert "STOPSIGNAL SIGTERM\n" in service
    finals = DOCKERFILE[DOCKERFILE.index("FROM service AS gateway") :]
    assert "USER" not in finals
    assert "apt-get" not in DOCKERFILE
    for target in ("gateway", "generator", "signaling", "generator-gpu"):
        stage = finals[finals.index(f"FROM service AS {target}\n") :].split("\nFROM ")[0]
        assert "HEALTHCHECK" in stage
        assert "/livez" in stage


def test_bases_are_pinned_and_dependencies_constrained() -> None:
    bases = re.findall(r"^FROM (\S+:\S+)", DOCKERFILE, re.MULTILINE)
    assert [base.partition("@")[0] for base in bases] == ["python:3.11-slim-bookworm"]
    commands = DOCKERFILE + (DOCKER / "install_own.sh").read_text()
    installs = re.findall(r"^(?!#).*\bpip (?:--python \S+ )?(?:install|wheel) (.*)", commands, re.MULTILINE)
    assert len(installs) == 8
    assert all("--require-hashes" in install or "--no-index" in install for install in installs)
    # A local version such as 2.13.0+cpu exists only for one kind of machine; other images could not install it.
    assert not re.findall(r"^[^#\n]*\+.*$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)


@each_service
def test_limits_checks_and_logs(service: dict[str, Any]) -> None:
    assert service["mem_limit"]
    assert float(service["cpus"]) > 0
    assert service["pids_limit"] > 0
    assert service["restart"] == "unless-stopped"
    assert service["stop_grace_period"]
    assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
    assert {"max-size", "max-file"} <= service["logging"]["options"].keys()


@pytest.mark.parametrize("name", OURS)
def test_our_services_are_asked_whether_they_are_ready_on_their_own_ports(name: str) -> None:
    port = OURS[name].model_fields["port"].default
    assert f"http://127.0.0.1:{port}/readyz" in SERVICES[name]["healthcheck"]["test"][-1]
    stage = DOCKERFILE[DOCKERFILE.index(f"FROM service AS {name}\n") :].split("\nFROM ")[0]
    assert f"EXPOSE {port}\n" in stage
    assert f"http://127.0.0.1:{port}/livez" in stage


@pytest.mark.parametrize("name", OURS)
def test_every_setting_that_is_given_exists(name: str) -> None:
    known = {f"MIEN_{field}".upper() for field in OURS[name].model_fields}
    given = SERVICES[name]["environment"] | (GPU["services"].get(name, {}).get("environment", {}))
    assert {variable for variable in given if variable.startswith("MIEN_")} <= known
    in_image = set(re.findall(r"(MIEN_\w+)=", DOCKERFILE)) - {"MIEN_REVISION", "MIEN_SECRETS_DIR"}
    every_setting = {f"MIEN_{field}".upper() for settings in OURS.values() for field in settings.model_fields}
    assert in_image <= every_setting


def test_secrets_are_files_outside_the_repository() -> None:
    assert all(set(secret) == {"file"} for secret in COMPOSE["secrets"].values())
    for service in SERVICES.values():
        given = {one if isinstance(one, str) else one["source"] for one in service.get("secrets", [])}
        assert given <= COMPOSE["secrets"].keys()
        for variable, value in service.get("environment", {}).items():
            assert not re.search(r"SECRET|PASSWORD|API_KEY|REDIS_URL", variable) or str(value).startswith(
                "/run/secrets/"
            )
    tracked = subprocess.run(
        ["git", "ls-files", "deploy/secrets", ".env"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tracked.returncode != 0:
        pytest.skip("this is not a git checkout")
    assert tracked.stdout.split() in ([], ["deploy/secrets/.gitignore"])


def test_the_build_context_holds_only_what_images_need() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    assert {line for line in lines if line.startswith("!")} == {
        "!deploy/docker/*.lock",
        "!deploy/docker/install_own.sh",
        "!deploy/docker/no_codecs",
        "!deploy/docker/sbom.py",
        "!deploy/docker/trim.py",
        "!shared",
        "!encoder",
        "!services",
        "!clients",
        "!clients/web",
        "!clients/js",
    }


def test_redis_and_services_are_inside() -> None:
    published = {name: one["ports"] for name, one in SERVICES.items() if "ports" in one}
    assert set(published) == {"proxy", "signaling", "prometheus", "grafana"}
    assert all(str(port).startswith("127.0.0.1:") for name in ("prometheus", "grafana") for port in published[name])
    assert {str(port).partition("/")[2] for port in published["signaling"]} == {"udp", "tcp"}
    assert SERVICES["redis"]["networks"] == ["bus"]
    assert SERVICES["generator"]["networks"] == ["bus"]
    assert COMPOSE["networks"]["bus"]["internal"] is True
    assert "bus" not in SERVICES["proxy"]["networks"]
    assert [name for name, one in SERVICES.items() if one.get("network_mode") == "host"] == ["coturn"]


def test_the_generator_can_be_many() -> None:
    assert not any("container_name" in service for service in SERVICES.values())
    assert "ports" not in SERVICES["generator"]


def test_avatars_are_written_by_the_gateway_and_read_by_generators() -> None:
    assert SERVICES["gateway"]["volumes"] == ["avatars:/var/lib/mien/avatars"]
    assert SERVICES["generator"]["volumes"] == ["avatars:/var/lib/mien/avatars:ro"]
    assert "install -d -o 10001 -g 10001 -m 0750 /var/lib/mien /var/lib/mien/avatars" in DOCKERFILE


def test_one_media_port_in_every_place() -> None:
    signaling = SERVICES["signaling"]
    port = int(signaling["environment"]["MIEN_MEDIA_PORT"])
    assert signaling["ports"] == [f"{port}:{port}/udp", f"{port}:{port}/tcp"]
    assert "sysctls" not in signaling
    assert port < 30000, "from 30000 on are Kubernetes' NodePorts and the host's ephemeral ports"
    decision = (ROOT / "docs/decisions/0007-media-ports.md").read_text()
    assert f"`MIEN_MEDIA_PORT={port}`" in decision
    relay = [int(turn_setting(name)[0]) for name in ("min-port", "max-port")]
    assert not relay[0] <= port <= relay[1]
    assert f"{relay[0]} to {relay[1]}" in decision
    header = (ROOT / "docker-compose.yml").read_text().partition("services:")[0]
    assert f"media {port}/udp+tcp" in header
    assert f"{relay[0]}-{relay[1]}/udp" in header
    operating = (ROOT / "docs/operating.md").read_text()
    assert f"| {port}/udp+tcp | " in operating
    assert f"| 3478/udp+tcp, {relay[0]}-{relay[1]}/udp | " in operating
    assert f'MEDIA_PORT = "{port}"' in (ROOT / "tests/deploy/compose_trial.py").read_text()
    assert f"_PORT = {port}\n" in (ROOT / "tests/deploy/trial_turn.py").read_text()


def turn_setting(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.+)$", TURNSERVER, re.MULTILINE)


def test_turn_relays_to_nothing_private() -> None:
    ranges = [
        (ipaddress.ip_address(first), ipaddress.ip_address(last))
        for first, last in (line.split("-") for line in turn_setting("denied-peer-ip"))
    ]

    def denied(text: str) -> bool:
        address = ipaddress.ip_address(text)
        return any(
            int(first) <= int(address) <= int(last) for first, last in ranges if first.version == address.version
        )

    for network in map(ipaddress.ip_network, NOT_PUBLIC.split()):
        assert denied(str(network[0])), network
        assert denied(str(network[-1])), network
    assert not any(map(denied, ("1.1.1.1", "9.255.255.255", "172.32.0.1", "2a00::1", "2606:4700::1")))
    for line in ("use-auth-secret", "no-tcp-relay", "no-cli", "no-multicast-peers"):
        assert f"\n{line}\n" in TURNSERVER
    assert "static-auth-secret" not in TURNSERVER


def test_the_proxy_takes_what_the_gateway_takes() -> None:
    nginx = (ROOT / "deploy/nginx/nginx.conf").read_text()
    avatars = nginx[nginx.index("location = /v1/avatars") :].split("}")[0]
    size = re.search(r"client_max_body_size (\d+)m;", avatars)
    assert size is not None
    assert int(size[1]) * 2**20 > GatewaySettings.model_fields["max_upload_bytes"].default
    # The log may say which kind of call it was, but must not identify the client or the session.
    formats = nginx[nginx.index("log_format") : nginx.index("access_log")]
    assert not re.search(r"\$(request_uri|uri|request|remote_addr|args|http_authorization)\b", formats)


def test_prometheus_scrapes_our_ports() -> None:
    jobs = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    ports = {
        job["dns_sd_configs"][0]["names"][0]: job["dns_sd_configs"][0]["port"]
        for job in jobs
        if "dns_sd_configs" in job
    }
    assert ports == {name: settings.model_fields["port"].default for name, settings in OURS.items()}


def test_grafana_is_provisioned() -> None:
    (source,) = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((ROOT / "deploy/grafana/provisioning/dashboards/mien.yml").read_text())["providers"]
    assert f"./deploy/grafana/dashboards:{provider['options']['path']}:ro" in SERVICES["grafana"]["volumes"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (ROOT / "deploy/grafana/dashboards" / Path(home).name).is_file()


def test_the_gpu_is_reserved_for_an_image_that_can_use_it() -> None:
    generator = GPU["services"]["generator"]
    assert set(GPU["services"]) == {"generator"}
    (device,) = generator["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert generator["build"]["target"] == "generator-gpu"
    assert generator["environment"]["MIEN_FACE_BACKEND"] == "torch"
    assert "-r generator-gpu.lock" in DOCKERFILE


def test_preparing_makes_secrets_once_and_closes_their_folder(tmp_path: Path) -> None:
    (tmp_path / "deploy/secrets").mkdir(parents=True)
    shutil.copy(ROOT / "deploy/prepare", tmp_path / "deploy/prepare")
    shutil.copytree(ROOT / "deploy/redis", tmp_path / "deploy/redis")
    (tmp_path / "deploy/secrets/redis_url.txt").write_text("of an older release")
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "MIEN_PUBLIC_IP": "203.0.113.9"}

    def prepare() -> dict[str, str]:
        subprocess.run([tmp_path / "deploy/prepare"], env=environment, check=True, capture_output=True)
        return {file.name: file.read_text() for file in (tmp_path / "deploy/secrets").iterdir()}

    made = prepare()
    assert set(made) == {Path(secret["file"]).name for secret in COMPOSE["secrets"].values()}
    for name in ("mien_token_secret", "mien_turn_secret", "mien_api_keys", "grafana_admin_password"):
        assert weakness(made[f"{name}.txt"]) is None
    for user in ("gateway", "generator", "signaling", "operator"):
        password = re.fullmatch(rf"redis://{user}:(\w{{64}})@redis:6379/0", made[f"redis_url_{user}.txt"])
        assert password is not None
        digest = hashlib.sha256(password[1].encode()).hexdigest()
        assert f"\nuser {user} reset on #{digest} " in made["redis_users.txt"]
    assert made["redis_users.txt"].startswith("user default reset off\n")
    assert "@" not in made["redis_users.txt"]
    assert len(set(made.values())) == len(made)
    assert stat.S_IMODE((tmp_path / "deploy/secrets").stat().st_mode) == 0o700
    assert (tmp_path / ".env").read_text() == "MIEN_PUBLIC_IP=203.0.113.9\nMIEN_ORIGIN=http://203.0.113.9:8080\n"
    assert prepare() == made

    # A new release may need other rights; the passwords stay.
    rules = tmp_path / "deploy/redis/users"
    rules.write_text(rules.read_text().replace("+ping", "+ping +echo"))
    changed = made | {"redis_users.txt": made["redis_users.txt"].replace("+ping", "+ping +echo")}
    assert prepare() == changed


def test_each_service_has_its_own_user_of_redis() -> None:
    for name in OURS:
        assert {"source": f"redis_url_{name}", "target": "redis_url"} in SERVICES[name]["secrets"]
    urls = [one for service in SERVICES.values() for one in service.get("secrets", []) if "redis_url" in str(one)]
    assert len(urls) == len(OURS) + 1, "the operator's, for the health check of Redis"
    assert "/run/secrets/redis_users" in SERVICES["redis"]["command"]
