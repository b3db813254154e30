"""Print the third-party requirements of the given pyproject.toml files, one requirement per line.

An image installs them in a separate layer, so that a change of Mien's code does not download them again.
A path may name extras of its package: services/generator/pyproject.toml[torch].
"""

from __future__ import annotations

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


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in sorted({line for one in sys.argv[1:] for line in third_party(one)}))
