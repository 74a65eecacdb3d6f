"""Children end with whoever started them, whatever becomes of the companion that sees to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from frond.stack.birth import birth_of
from frond.stack.process import Child, _reaper

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
OWNER = f"""
import os, signal, sys
from pathlib import Path
from frond.stack.process import Child, _reaper
first = Child("first", {SLEEP!r}, log=Path(sys.argv[1]))
os.kill(_reaper._process.pid, signal.SIGKILL)
_reaper._process.wait()
second = Child("second", {SLEEP!r}, log=Path(sys.argv[1]))
print(first.pid, second.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_companion_is_replaced_by_one_that_knows_all(tmp_path: Path) -> None:
    """Of its owner, killed later, neither the children from before nor those from after are left."""
    owner = subprocess.run(
        [sys.executable, "-c", OWNER, tmp_path / "log"], capture_output=True, text=True, check=False
    )
    assert owner.returncode == -signal.SIGKILL, owner.stderr
    pids = [int(pid) for pid in owner.stdout.split()]
    assert len(pids) == 2
    end = time.monotonic() + 30
    while any(birth_of(pid) for pid in pids):
        assert time.monotonic() < end, "children outlive their owner"
        time.sleep(0.05)  # they are nobody's children here: there is nothing to wait for


def test_a_child_that_ends_after_its_companion_is_seen_to_end(tmp_path: Path) -> None:
    """Whoever asks gets its status."""
    child = Child("a child", SLEEP, log=tmp_path / "log")
    assert _reaper._process is not None
    os.kill(_reaper._process.pid, signal.SIGKILL)
    _reaper._process.wait()
    child.kill()
    assert not child.running
    assert child.returncode == -signal.SIGKILL
