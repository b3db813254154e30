"""Finds the processes of a running generator, by the names that they show in `ps`."""

from __future__ import annotations

from pathlib import Path


def descendants(pid: int) -> dict[int, str]:
    """The name of every process that this one has started, and that those have started."""
    found: dict[int, str] = {}
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            started = [int(child) for child in children.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in started:
            try:
                name = Path(f"/proc/{child}/comm").read_text().strip()
            except (FileNotFoundError, ProcessLookupError):
                continue
            found |= {child: name} | descendants(child)
    return found


def of_role(pid: int, role: str) -> list[int]:
    """The processes of a generator with this role: warm, worker or device."""
    return [child for child, name in descendants(pid).items() if name == f"mien-{role}"]
