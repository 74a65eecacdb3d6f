"""What other programs took of the processors meanwhile: a measurement beside them says little, and a
process's niceness does not keep them apart where the kernel groups processes by session."""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_TICK: Final = os.sysconf("SC_CLK_TCK")
DISTURBED: Final = 0.05
"""Of all processors: more than this, and the report says so in bold."""
_LEAST_S: Final = 1.0
"""Below it, the kernel's ticks and what the looking costs would be taken for somebody's work."""


@dataclass
class Neighbours:
    """Measures from its making on."""

    began: float = field(default_factory=time.monotonic)
    busy: float = field(default_factory=lambda: _busy())
    own: float = field(default_factory=lambda: _own())

    def share(self) -> float | None:
        """The part of all processors' time, 0…1, that went to processes which are neither this one
        nor came of it, or that a hypervisor gave to somebody else; None of too short a time."""
        wall = time.monotonic() - self.began
        if wall < _LEAST_S:
            return None
        others = (_busy() - self.busy) - (_own() - self.own)
        return min(1.0, max(0.0, others / (wall * (os.cpu_count() or 1))))


def _busy() -> float:
    # user nice system idle iowait irq softirq steal (proc(5)); user has guests' time in it
    v = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(v) - v[3] - v[4]) / _TICK


def _own() -> float:
    """CPU seconds of this process and of all that came of it, ended or not."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    here = resource.getrusage(resource.RUSAGE_SELF)
    total = sum(r.ru_utime + r.ru_stime for r in (ended, here))
    parents: dict[int, int] = {}
    took: dict[int, float] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        pid = int(stat.parent.name)
        parents[pid] = int(fields[1])
        # its own, and that of its children that ended
        took[pid] = sum(map(int, fields[11:15])) / _TICK
    for pid, seconds in took.items():
        above: int | None = parents[pid]
        while above is not None and above != os.getpid():
            above = parents.get(above)
        if above is not None:
            total += seconds
    return total
