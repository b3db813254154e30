"""The failure suite's table: what was broken, what a viewer saw, for how long, and how to see it again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

_HEAD = "| fault | what the viewer saw | how long | command |\n|---|---|---|---|\n"


@dataclass(frozen=True)
class Row:
    """One failure."""

    fault: str
    seen: str
    lasted: str
    command: str


class Report:
    """Rows in the order of the tests; each run replaces its own. Written where MIEN_FAILURE_REPORT says, or nowhere."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._rows: dict[str, Row] = {}
        if path is not None and path.with_suffix(".json").is_file():
            known = json.loads(path.with_suffix(".json").read_text())
            self._rows = {name: Row(**row) for name, row in known.items()}

    def add(self, name: str, row: Row) -> None:
        """Note a row and print it."""
        self._rows[name] = row
        print(f"\n{row.fault}: {row.seen} ({row.lasted})")
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            rows = dict(sorted(self._rows.items()))
            self._path.with_suffix(".json").write_text(
                json.dumps({key: asdict(value) for key, value in rows.items()}, indent=2, ensure_ascii=False) + "\n"
            )
            lines = (f"| {one.fault} | {one.seen} | {one.lasted} | `{one.command}` |\n" for one in rows.values())
            self._path.with_suffix(".md").write_text(_HEAD + "".join(lines))
