"""``up`` and ``down`` act on the supervisor that wrote ``state.json``, and on nobody else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from frond.stack import control
from frond.stack.birth import birth_of
from frond.stack.supervised import Supervised
from frond.stack.supervisor import Supervisor

SLEEP = "import time; time.sleep(600)"


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is none of ours, under a pid that a supervisor had before the reboot."""
    with subprocess.Popen([sys.executable, "-c", SLEEP]) as process:
        yield process
        process.kill()


def left(state: Path, **fields: Any) -> None:
    state.mkdir(parents=True, exist_ok=True)
    found = {"phase": "ready", "stack": "native", "services": [], **fields}
    (state / "state.json").write_text(json.dumps(found))


def test_a_stranger_is_told_by_its_birth(tmp_path: Path, stranger: subprocess.Popen[bytes]) -> None:
    """The same pid, of another time or another boot: nothing runs, and nobody is killed."""
    born = birth_of(stranger.pid)
    assert born is not None
    boot, began = born.split()
    for other in (f"{boot} {int(began) - 1}", f"0{boot[1:]}x {began}", "", None):
        left(tmp_path, pid=stranger.pid, born=other)
        assert control.read_state(tmp_path) is None
        assert not control.down(tmp_path)
    assert stranger.poll() is None


def test_the_one_that_wrote_it_is_found_and_stopped(
    tmp_path: Path, stranger: subprocess.Popen[bytes]
) -> None:
    """Its birth is the one that stands there; it is gone when ``down`` returns."""
    left(tmp_path, pid=stranger.pid, born=birth_of(stranger.pid))
    assert control.read_state(tmp_path) is not None
    assert control.down(tmp_path)
    assert birth_of(stranger.pid) is None
    assert not (tmp_path / "state.json").exists()


def test_what_an_older_version_left_is_judged_by_its_command(
    tmp_path: Path, stranger: subprocess.Popen[bytes]
) -> None:
    """It wrote no birth: only a supervisor of this very folder is taken for it."""
    left(tmp_path, pid=stranger.pid)
    assert control.read_state(tmp_path) is None
    for folder, ours in ((tmp_path / "another", False), (tmp_path, True)):
        command = [sys.executable, "-c", SLEEP, "-m", "frond.stack", "supervise", str(folder), "m"]
        with subprocess.Popen(command) as older:
            left(tmp_path, pid=older.pid)
            deadline = time.monotonic() + 10
            while ours and control.read_state(tmp_path) is None and time.monotonic() < deadline:
                time.sleep(0.01)  # between fork and exec it has its parent's command line
            assert control.down(tmp_path) is ours
            assert (birth_of(older.pid) is None) is ours
            older.kill()


def test_a_process_of_another_user_is_not_ours(tmp_path: Path) -> None:
    """One that may not be asked, as init for who is not root, is a stranger like any other."""
    left(tmp_path, pid=1, born="before 1")
    assert control.read_state(tmp_path) is None
    left(tmp_path, pid=1)
    assert control.read_state(tmp_path) is None


def test_the_supervisor_writes_its_birth(tmp_path: Path) -> None:
    """What it writes is what ``up`` and ``down`` look for."""
    Supervisor(tmp_path, tmp_path / "models")._write()
    found = control.read_state(tmp_path)
    assert found is not None
    assert found["pid"] == os.getpid()


def test_stopping_waits_for_the_longest_drain(tmp_path: Path) -> None:
    """The supervisor for each of its processes, and whoever asks it to end for the supervisor."""
    asked: list[float] = []

    class Process:
        pid = 1

        def __init__(self, leave_s: float) -> None:
            self.leave_s = leave_s

        def terminate(self) -> None:
            pass

        def stop(self, patience_s: float) -> None:
            asked.append(patience_s)

    supervisor = Supervisor(tmp_path, tmp_path / "models")
    for name, leave_s in (("ingest", 60.0), ("tiler", 155.0)):
        one = Supervised(name, name, {}, tmp_path / "log", 0)
        one.child = cast(Any, Process(leave_s))
        supervisor._supervised.append(one)
    supervisor._write()
    found = control.read_state(tmp_path)
    assert found is not None and found["leave_s"] == 155
    supervisor._stop_all()
    assert sorted(asked) == [60, 155]


def test_a_service_is_held_by_a_developer_who_is_there(
    tmp_path: Path, stranger: subprocess.Popen[bytes]
) -> None:
    """Not by the file of one whose machine went down, although somebody has the pid again."""
    supervisor = Supervisor(tmp_path, tmp_path / "models")
    one = Supervised("tiler", "tiler", {}, tmp_path / "tiler.log", 0)
    hold = tmp_path / "hold" / "tiler"
    hold.parent.mkdir()
    hold.write_text(f"{stranger.pid} {birth_of(stranger.pid)}")
    assert supervisor._held(one)
    for stale in (f"{stranger.pid} before", str(stranger.pid), "1", ""):
        hold.write_text(stale)
        assert not supervisor._held(one)
        assert not hold.exists()


def test_a_roll_is_waited_for_until_what_it_brought_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All services are rolled while the disk has no room for their keys: that is no failure."""
    told = iter(
        {"phase": "ready", "given": [], "rolls": rolls, "roll": roll}
        for rolls, roll in ((0, ""), (1, "running"), (1, "unkept"), (1, "done"))
    )
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "up.log").touch()
    monkeypatch.setattr(control, "read_state", lambda _: next(told))
    control.roll(tmp_path, env={})
    assert next(told, None) is None
