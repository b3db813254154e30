"""docs/operating.md is up to date: it lists every setting as the settings classes define it."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_table_of_settings_is_the_settings() -> None:
    table = runpy.run_path(str(ROOT / "tools/settings_table.py"))["table"]()
    text = (ROOT / "docs/operating.md").read_text()
    assert table in text, "run `python tools/settings_table.py` and put its table into docs/operating.md"
    assert not [line for line in table.splitlines() if line.endswith("|  |")], "a setting has no description"


def test_every_link_leads_somewhere() -> None:
    for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), ROOT / "deploy/k8s/README.md"]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"
