"""The whole of ``.frond`` on a disk that is full: the supervisor outlives it, as the runbook says."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from frond.stack.small_disk import SmallDisk, why_no_small_disk

pytestmark = pytest.mark.skipif(bool(why_no_small_disk()), reason=why_no_small_disk())


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk without a byte of room."""
    disk = SmallDisk(tmp_path / "disk", 1)
    (disk.inside / "up.log").touch()
    disk.fill()
    assert disk.free_bytes == 0
    yield disk
    disk.close()


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """What the supervisor's stack was asked for, on a disk that has room."""
    return tmp_path / "record"


@pytest.fixture
def supervisor(disk: SmallDisk, record: Path) -> Iterator[subprocess.Popen[bytes]]:
    """One with its state and its log there, which looks after a broker that has ended."""
    script = Path(__file__).with_name("stack_on_full_disk.py")
    command = [*disk.enter(), sys.executable, script, disk.at, record]
    with (disk.inside / "up.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    yield process
    process.kill()
    process.wait()


def test_the_supervisor_outlives_a_full_disk(
    disk: SmallDisk, record: Path, supervisor: subprocess.Popen[bytes]
) -> None:
    """Neither its log nor its state can be written, nor the broker started: it tries again, and has
    all of that when there is room."""
    state = disk.inside / "state.json"
    _until(supervisor, lambda: record.exists() and "try 3" in record.read_text())
    assert not state.exists()
    disk.make_room()
    _until(supervisor, lambda: state.exists() and json.loads(state.read_text())["servers"])
    assert "kafka has ended" in (disk.inside / "up.log").read_text()
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(30) == 0


def test_what_runs_is_stopped_where_the_disk_stays_full(
    record: Path, supervisor: subprocess.Popen[bytes]
) -> None:
    """Asked to end, it leaves nothing running, whatever cannot be written."""
    _until(supervisor, lambda: record.exists() and "try 3" in record.read_text())
    supervisor.send_signal(signal.SIGTERM)
    supervisor.wait(30)
    assert record.read_text().endswith("stopped\n")


def _until(process: subprocess.Popen[bytes], wanted: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not wanted():
        assert process.poll() is None, "the supervisor has ended"
        assert time.monotonic() < end
        time.sleep(0.1)  # another process: only its files speak to us
