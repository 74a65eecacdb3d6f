"""What /proc says of processes."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path


def memory_mib(pid: int | str, field: str) -> float:
    """VmRSS or VmHWM of one process (``self``: this one); 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    # a process that has ended and was not yet waited for has no memory
    held = (int(line.split()[1]) for line in lines if line.startswith(field + ":"))
    return next(held, 0) / 1024


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and of its children that have ended; 0 where it has ended itself."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, told[11:15])) / os.sysconf("SC_CLK_TCK")


def families(roots: Mapping[str, int]) -> dict[str, list[int]]:
    """Of each process, itself and all that descend from it and live."""
    children: dict[int, list[int]] = defaultdict(list)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            told = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children[int(told[1])].append(int(folder.name))
    found = {name: [pid] for name, pid in roots.items()}
    for family in found.values():
        for pid in family:
            family += children[pid]
    return found
