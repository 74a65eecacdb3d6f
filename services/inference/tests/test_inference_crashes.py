from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from frond.contracts.errors import RasterRejected
from frond.contracts.reasons import Reason
from frond.inference.crashes import CrashJournal

BAD, GOOD = "a" * 32, "b" * 32
_READS = """
import ctypes, os, signal, sys, threading
from pathlib import Path
from frond.inference.crashes import CrashJournal

journal = CrashJournal(Path(sys.argv[1]))
journal.watch()
there = threading.Event()

def innocent():
    with journal.reading("b" * 32):
        there.set()
        threading.Event().wait()

def reads():
    there.wait()
    with journal.reading("a" * 32):
        {end}

threading.Thread(target=innocent, daemon=True).start()
crashing = threading.Thread(target=reads)
crashing.start()
crashing.join()
"""


def crash(folder: Path, end: str) -> None:
    """A process that reads two chunks, and ends while it does."""
    done = subprocess.run(
        [sys.executable, "-c", _READS.format(end=end), str(folder)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode < 0, done.stderr


def refused(folder: Path) -> set[str]:
    """Which chunks a new process does not read."""
    journal, found = CrashJournal(folder), set()
    journal.learn()
    for chunk in (BAD, GOOD):
        try:
            with journal.reading(chunk):
                pass
        except RasterRejected as e:
            assert e.reason is Reason.READER_DIED
            found.add(chunk)
    return found


def test_a_chunk_that_crashes_twice_is_refused(tmp_path: Path) -> None:
    """It alone: what was read beside it, in another thread, is not to blame."""
    assert refused(tmp_path) == set()
    crash(tmp_path, "ctypes.string_at(0)")
    assert refused(tmp_path) == set()
    crash(tmp_path, "os.abort()")
    assert refused(tmp_path) == {BAD}
    assert not list((tmp_path / "running").iterdir())


def test_a_process_that_is_killed_blames_nobody(tmp_path: Path) -> None:
    for _ in range(2):
        crash(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")
    assert refused(tmp_path) == set()


def test_a_running_process_is_left_alone(tmp_path: Path) -> None:
    """Its notes stay, and go when it has read, or leaves."""
    code = _READS.format(end="print('reading', flush=True); threading.Event().wait()")
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"reading\n"
        assert refused(tmp_path) == set()
        (own,) = (tmp_path / "running").iterdir()
        assert {n.stem for n in own.iterdir()} == {BAD, GOOD, "fault"}
        running.kill()
    assert refused(tmp_path) == set()
    assert not list((tmp_path / "running").iterdir())
