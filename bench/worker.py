"""One contender, one run, in a process of its own: ``worker.py MODULE:FUNCTION JSON``.

The function prepares and warms up, and returns what is timed; that returns a dict of figures.
"""

from __future__ import annotations

import importlib
import json
import os
import site
import sys
import time
from pathlib import Path

from proc import memory_mib


def main() -> None:
    # the contenders' environment sees Frond and its dependencies behind its own packages
    if behind := os.environ.get("FROND_SITE"):
        site.addsitedir(behind)
    module, _, function = sys.argv[1].partition(":")
    work = getattr(importlib.import_module(f"contenders.{module}"), function)(
        **json.loads(sys.argv[2])
    )
    before = memory_mib("self", "VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    print("ready", flush=True)
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        figures = work()
    except MemoryError:
        print(json.dumps({"refused": time.process_time() - cpu}), flush=True)
        raise
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = memory_mib("self", "VmHWM")
    figures |= {"seconds": wall, "cpu": cpu, "peak": peak, "added": max(peak - before, 0.1)}
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
