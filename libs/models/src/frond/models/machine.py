"""The machine at hand, as far as it decides how fast a model runs."""

from __future__ import annotations

import contextlib
import math
import os
import platform
from pathlib import Path
from typing import Final

_CGROUPS: Final = Path("/sys/fs/cgroup")


def cores() -> int:
    """Cores that this process may use: of its affinity, no more than its control group's quota.

    A container with two CPUs on a machine of sixteen sees all sixteen, and sixteen threads in two
    CPUs' time get in each other's way.
    """
    # not everywhere
    affinity = getattr(os, "sched_getaffinity", None)
    there = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    quota = _quota(_CGROUPS)
    return there if quota is None else max(1, min(there, math.ceil(quota)))


def resident() -> int:
    """Bytes of memory that this process holds; 0 where that does not show."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def room() -> float:
    """Bytes of memory that are left, in the control group and on the machine; endless where that does
    not show."""
    there = _told(Path("/proc/meminfo"), "MemAvailable:")
    return min(math.inf if there is None else there * 1024, _left(_CGROUPS))


def words() -> list[str]:
    """What tells this machine from one on which other settings may be faster."""
    return [platform.machine(), _processor(), str(cores()), *_graphics()]


def _quota(root: Path) -> float | None:
    """CPUs that the control group may keep busy; None: no bound, or none that shows here."""
    with contextlib.suppress(OSError, ValueError):
        most, period = (root / "cpu.max").read_text().split()
        return None if most == "max" else int(most) / int(period)
    with contextlib.suppress(OSError, ValueError):
        # version 1
        most, period = ((root / "cpu" / f"cpu.cfs_{k}_us").read_text() for k in ("quota", "period"))
        return None if int(most) <= 0 else int(most) / int(period)
    return None


def _left(root: Path) -> float:
    """Of a control group's memory. What the kernel keeps of files gives way, and does not count."""
    with contextlib.suppress(OSError, ValueError):
        most, used = (int((root / f"memory.{k}").read_text()) for k in ("max", "current"))
        return most - used + (_told(root / "memory.stat", "inactive_file") or 0)
    return math.inf


def _told(path: Path, word: str) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            if line.startswith(word):
                return int(line.split()[1])
    return None


def _graphics() -> list[str]:
    """The models of NVIDIA's cards, as their driver tells them."""
    found = []
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        with contextlib.suppress(OSError):
            found += [x for x in path.read_text().splitlines() if x.startswith("Model")]
    return found


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
