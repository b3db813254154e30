"""Print an image's bill of materials as CycloneDX 1.6 JSON: `sbom.py NAME VERSION LOCK SITE_PACKAGES...`.

It lists the Python distributions that lie in the folders, each with the hashes that the lock allows for its files, and
the Debian packages of the machine it runs on: the build stage, which has the same base as the image. Two builds from
the same input print the same text, so it has no time and no serial number.
"""

from __future__ import annotations

import json
import platform
import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

DPKG_STATUS = Path("/var/lib/dpkg/status")
OS_RELEASE = Path("/etc/os-release")

Json = dict[str, Any]


def canonical(name: str) -> str:
    """A distribution's name as PEP 503 normalises it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked_hashes(lock: str) -> dict[str, list[str]]:
    """The SHA-256 sums that a lock allows, by the canonical name of the distribution."""
    found: dict[str, list[str]] = {}
    for block in re.split(r"\n(?=\S)", lock):
        if pin := re.match(r"([\w.-]+)==", block):
            found[canonical(pin[1])] = re.findall(r"--hash=sha256:([0-9a-f]{64})", block)
    return found


def python_component(found: Distribution, hashes: dict[str, list[str]]) -> Json:
    name, version = canonical(found.metadata["Name"]), found.version
    purl = f"pkg:pypi/{name}@{version}"
    component: Json = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    licence = found.metadata.get("License-Expression") or found.metadata.get("License")
    if licence and "\n" not in licence:
        expression = "License-Expression" in found.metadata
        component["licenses"] = [{"expression": licence} if expression else {"license": {"name": licence}}]
    if name in hashes:
        component["properties"] = [{"name": "mien:locked-sha256", "value": one} for one in hashes[name]]
    return component


def debian_components(status: str, release: str) -> Iterator[Json]:
    """The installed packages that dpkg's status file lists."""
    distro = re.search(r'^VERSION_ID="?([\w.]+)', release, re.MULTILINE)
    for paragraph in status.split("\n\n"):
        fields = dict(re.findall(r"^([\w-]+): (.*)$", paragraph, re.MULTILINE))
        if fields.get("Status") == "install ok installed":
            purl = f"pkg:deb/debian/{fields['Package']}@{quote(fields['Version'])}?arch={fields['Architecture']}"
            purl += f"&distro=debian-{distro[1]}" if distro else ""
            name, version = fields["Package"], fields["Version"]
            yield {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def bill(name: str, version: str, lock: str, folders: list[str]) -> Json:
    hashes = locked_hashes(lock)
    components = {}
    for found in distributions(path=folders):
        component = python_component(found, hashes)
        components[component["bom-ref"]] = component
    if DPKG_STATUS.is_file():
        for component in debian_components(DPKG_STATUS.read_text(), OS_RELEASE.read_text()):
            components[component["bom-ref"]] = component
    python = f"pkg:generic/python@{platform.python_version()}"
    components[python] = {
        "type": "platform",
        "bom-ref": python,
        "name": "python",
        "version": platform.python_version(),
        "purl": python,
    }
    image = {"type": "container", "bom-ref": f"mien/{name}", "name": f"mien/{name}", "version": version}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": image},
        "components": [components[reference] for reference in sorted(components)],
    }


if __name__ == "__main__":
    image_name, image_version, lock_path, *site_packages = sys.argv[1:]
    printed = json.dumps(bill(image_name, image_version, Path(lock_path).read_text(), site_packages), indent=1)
    sys.stdout.write(f"{printed}\n")
