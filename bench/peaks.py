"""Peaks of resident memory of processes and all that descend from them, from /proc."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from proc import families, memory_mib

_EVERY_S = 0.2


def idle_mib(roots: Mapping[str, int]) -> dict[str, float]:
    """What each process and its descendants hold now; their high-water marks start anew."""
    found = {}
    for name, pids in families(roots).items():
        found[name] = sum(memory_mib(pid, "VmRSS") for pid in pids)
        for pid in pids:
            with contextlib.suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")
    return found


@asynccontextmanager
async def watched(roots: Mapping[str, int]) -> AsyncIterator[dict[str, float]]:
    """The peak of each while the block runs, in MiB: complete when it has ended.

    Of each process its own high-water mark is taken, and those of a family that lives at the same
    time are added up as if they had been reached at once: at least what was held.
    """
    peaks = dict.fromkeys(roots, 0.0)

    def look() -> None:
        for name, pids in families(roots).items():
            now = sum(memory_mib(pid, "VmHWM") for pid in pids)
            peaks[name] = max(peaks[name], now)

    async def keep_looking() -> None:
        while True:
            await asyncio.to_thread(look)
            await asyncio.sleep(_EVERY_S)

    task = asyncio.create_task(keep_looking())
    try:
        yield peaks
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        look()
