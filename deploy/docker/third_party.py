"""Print the third-party requirements of the given pyproject.toml files, one requirement per line.

deploy/renew-locks makes the images' locks from them. A path may name extras of its package:
services/generator/pyproject.toml[torch]. `--without NAME` leaves out a requirement that the image does not use.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from pathlib import Path


def third_party(argument: str) -> list[str]:
    """The requirements of one package and of the extras that the argument names, without Mien's own packages."""
    path, _, extras = argument.rstrip("]").partition("[")
    project = tomllib.loads(Path(path).read_text())["project"]
    wanted = list(project.get("dependencies", []))
    for extra in filter(None, extras.split(",")):
        wanted += project["optional-dependencies"][extra]
    return [requirement for requirement in wanted if not requirement.startswith("mien-")]


def name_of(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", nargs="+", help="paths of pyproject.toml files")
    parser.add_argument("--without", action="append", default=[], help="the name of a requirement")
    given = parser.parse_args()
    wanted = {line for package in given.packages for line in third_party(package)}
    if unknown := set(given.without) - set(map(name_of, wanted)):
        parser.error(f"nothing requires {', '.join(sorted(unknown))}")
    sys.stdout.writelines(f"{line}\n" for line in sorted(wanted) if name_of(line) not in given.without)


if __name__ == "__main__":
    main()
