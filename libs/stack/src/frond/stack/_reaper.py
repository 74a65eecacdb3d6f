"""Run as a script by ``process.py``: kills what its parent started, once the parent is gone.

Reads ``+pid`` and ``-pid`` lines; at the end of input every process still noted is killed. The
kernel's own parent-death signal would not do: it fires when the *thread* that forked ends.
"""

import contextlib
import os
import signal
import sys


def main() -> None:
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sig, signal.SIG_IGN)
    alive: set[int] = set()
    for line in sys.stdin:
        (alive.add if line[0] == "+" else alive.discard)(int(line[1:]))
    for pid in alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


main()
