"""clients/js in node: its tests, its types, and its binary files against what they are made from."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from js.modules import load

from mien_encoder.keypoints import bundled_path

ROOT = Path(__file__).resolve().parents[2]
CLIENT = ROOT / "clients/js"
TESTS = Path(__file__).parent

browser_encoder = load(ROOT / "tools/browser_encoder.py")


def required(name: str, found: bool, why: str) -> None:
    """Skip the test, with a reason, unless the variable `name` says that what it needs is installed."""
    if found:
        return
    if os.environ.get(name):
        pytest.fail(f"{name} is set and {why}")
    pytest.skip(why)


@pytest.fixture(scope="module")
def node() -> str:
    path = shutil.which("node")
    required("MIEN_REQUIRE_NODE", path is not None, "node is not installed")
    assert path is not None
    major = int(
        subprocess.run([path, "--version"], check=True, capture_output=True, text=True).stdout[1:].split(".")[0]
    )
    required("MIEN_REQUIRE_NODE", major >= 18, f"node {major} is older than 18 and has no test runner")
    return path


def run_node_tests(node: str, *files: Path, kernel: Path | None = None) -> str:
    """Run tests of clients/js; returns what the test runner prints."""
    environment = os.environ | ({} if kernel is None else {"MIEN_KERNEL": str(kernel)})
    command = [node, "--test", *map(str, files)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_tests_of_the_javascript(node: str) -> None:
    printed = run_node_tests(node, *sorted(TESTS.glob("*.test.mjs")))
    counts = {
        line.split()[1]: line.split()[2]
        for line in printed.splitlines()
        if line.startswith("# ") and len(line.split()) == 3
    }
    assert int(counts["pass"]) >= 65
    assert counts["fail"] == counts["skipped"] == "0"


@pytest.mark.slow
def test_a_rebuilt_kernel_computes_the_same(node: str, tmp_path: Path) -> None:
    tools = shutil.which(browser_encoder.COMPILER), shutil.which(browser_encoder.LINKER)
    required("MIEN_REQUIRE_CLANG", None not in tools, "clang-16 and lld-16 are not installed")
    rebuilt = tmp_path / "kernel.wasm"
    browser_encoder.build_kernel(rebuilt)
    run_node_tests(node, TESTS / "kernel.test.mjs", kernel=rebuilt)


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["clients/js", "clients/web"])
def test_the_types(folder: str) -> None:
    compiler = CLIENT / "node_modules/.bin/tsc"
    required("MIEN_REQUIRE_TSC", compiler.exists(), "TypeScript is not installed: run `npm ci` in clients/js")
    done = subprocess.run([compiler, "--noEmit"], cwd=ROOT / folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_weights_are_those_of_the_encoder() -> None:
    tape = browser_encoder.tape_of(bundled_path().read_bytes())
    assert (CLIENT / "encoder/encoder.weights").read_bytes() == tape.tobytes()


def test_the_manifest_describes_the_files() -> None:
    assert (CLIENT / "encoder/manifest.js").read_text() == browser_encoder.manifest()


@pytest.mark.slow
def test_the_published_package(tmp_path: Path) -> None:
    """What `npm pack` would publish: every module, its declarations, and nothing else."""
    npm, compiler = shutil.which("npm"), CLIENT / "node_modules/.bin/tsc"
    required("MIEN_REQUIRE_TSC", npm is not None and compiler.exists(), "npm or TypeScript is not installed")
    assert npm is not None
    copy = tmp_path / "js"
    shutil.copytree(CLIENT, copy, ignore=shutil.ignore_patterns("types"), symlinks=True)
    done = subprocess.run(
        [npm, "pack", "--dry-run", "--json", "--offline"],
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    packed = {file["path"] for file in json.loads(done.stdout[done.stdout.index("[") :])[0]["files"]}
    folders = ("encoder", "media", "motion", "network", "room")
    sources = {str(path.relative_to(CLIENT)) for name in folders for path in (CLIENT / name).iterdir()} | {"index.js"}
    declared = {f"types/{path.removesuffix('.js')}.d.ts" for path in sources if path.endswith(".js")}
    assert packed == sources | declared | {"package.json", "README.md", "LICENSE"}

    # The examples as TypeScript programs of somebody who has installed the package.
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules/mien-client").symlink_to(copy)
    given = "declare const grid: HTMLElement, gatewayUrl: string, token: string;\n"
    documents = (CLIENT / "README.md", ROOT / "docs/conference.md")
    examples = [block.split("```")[0] for path in documents for block in path.read_text().split("```js\n")[1:]]
    assert len(examples) >= 2
    programs = [tmp_path / f"app{number}.mts" for number in range(len(examples))]
    for program, example in zip(programs, examples, strict=True):
        program.write_text(given + example)
    options = ["--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom,dom.iterable"]
    checked = subprocess.run(
        [compiler, *options, *programs], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=280
    )
    assert checked.returncode == 0, checked.stdout
