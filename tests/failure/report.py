"""The table of the failure tests: the fault, what a viewer saw, how long it lasted, and how to repeat the test."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

_HEAD = "| fault | what the viewer saw | how long | `make failure ARGS='...'` |\n|---|---|---|---|\n"


@dataclass(frozen=True)
class Row:
    """One row of the table. command: the argument of `make failure` that runs this test alone."""

    fault: str
    seen: str
    lasted: str
    command: str


class Report:
    """The rows, ordered by test. A test that runs again replaces its row.

    path: the report's files without suffix, from MIEN_FAILURE_REPORT. None writes no files.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._rows: dict[str, Row] = {}
        if path is not None and path.with_suffix(".json").is_file():
            known = json.loads(path.with_suffix(".json").read_text())
            self._rows = {name: Row(**row) for name, row in known.items()}

    def add(self, name: str, row: Row) -> None:
        """Add a row, print it and write the report."""
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
