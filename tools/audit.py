"""Look for known vulnerabilities in what constraints.txt and the locks pin, with pip-audit: `make audit`.

Exit status: 0 without vulnerabilities, 1 with some. If no vulnerability database can be reached, the check is skipped
with a message and status 0. (pip-audit itself then reports "no known vulnerabilities" without having looked.)
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
#: Files of pins: what we install, what the images install, and what builds and audits them.
PINNED = (ROOT / "constraints.txt", *ROOT.glob("deploy/docker/*.lock"), *ROOT.glob("tools/**/*.lock"))
_SERVICES = ("pypi", "osv")
_TIMEOUT_S = 300
#: A database that answers knows all packages except our own, unpublished ones.
_MIN_KNOWN_SHARE = 0.9


def pins() -> list[str]:
    """Every pin of every file once, as requirements without hashes and conditions.

    pip-audit takes one version of a package at a time: the second version of a package is in the second text.
    """
    found = {line for file in PINNED for line in re.findall(r"^[\w.-]+==[\w.!+-]+", file.read_text(), re.MULTILINE)}
    rounds: list[dict[str, str]] = []
    for line in sorted(found):
        name = re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower()
        free = next((taken for taken in rounds if name not in taken), None)
        if free is None:
            rounds.append(free := {})
        free[name] = line
    return ["".join(f"{line}\n" for line in taken.values()) for taken in rounds]


def audit(service: str) -> tuple[list[dict[str, Any]] | None, str]:
    """A database's result for every pinned package, and ""; without a result None, and the reason."""
    everything: list[dict[str, Any]] = []
    for requirements in pins():
        found, reason = _looked_up(service, requirements)
        if found is None:
            return None, reason
        everything += found
    known = [pin for pin in everything if "skip_reason" not in pin]
    if len(known) < _MIN_KNOWN_SHARE * len(everything):
        return None, f"knows only {len(known)} of {len(everything)} packages"
    return known, ""


def _looked_up(service: str, pinned: str) -> tuple[list[dict[str, Any]] | None, str]:
    with tempfile.TemporaryDirectory() as folder:
        report, requirements = Path(folder) / "report.json", Path(folder) / "requirements.txt"
        requirements.write_text(pinned)
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(requirements), "--no-deps", "--disable-pip"]
        command += ["--vulnerability-service", service, "--format", "json", "--output", str(report)]
        try:
            done = subprocess.run(
                [*command, "--progress-spinner", "off"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return None, f"no answer within {_TIMEOUT_S} s"
        if not report.is_file():
            return None, (done.stderr.strip().splitlines() or ["pip-audit wrote no report"])[-1][:200]
        found: list[dict[str, Any]] = json.loads(report.read_text())["dependencies"]
    return found, ""


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def main() -> int:
    reasons = []
    for service in _SERVICES:
        known, reason = audit(service)
        if known is None:
            reasons.append(f"{service}: {reason}")
            continue
        found = [(pin, vulnerability) for pin in known for vulnerability in pin["vulns"]]
        for pin, vulnerability in found:
            fixed = ", ".join(vulnerability["fix_versions"]) or "no version yet"
            say(f"{pin['name']} {pin['version']}: {vulnerability['id']}, fixed in {fixed}")
        say(f"audit: {len(known)} packages looked up in {service}, {len(found)} vulnerabilities")
        return 1 if found else 0
    say(f"audit skipped: no vulnerability database can be reached ({'; '.join(reasons)})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
