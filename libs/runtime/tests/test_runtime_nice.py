"""Services give way to what somebody waits for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from frond.ingest.settings import IngestSettings
from frond.runtime import ServiceSettings

_TOLD = """
import os, subprocess, sys, threading
from frond.runtime.service import _give_way
os.nice({before})
_give_way({nice})
def show(): print(os.getpriority(os.PRIO_PROCESS, 0), flush=True)
show()
thread = threading.Thread(target=show)
thread.start()
thread.join()
subprocess.run([sys.executable, "-c", "import os; print(os.nice(0))"], check=True)
"""


@pytest.mark.parametrize(("before", "nice", "is_now"), [(0, 5, 5), (9, 5, 9), (0, 0, 0)])
def test_a_process_gives_way_with_all_it_begins(before: int, nice: int, is_now: int) -> None:
    """Its threads and readers, too; one that was begun as a still humbler one stays so."""
    own = subprocess.run(
        [sys.executable, "-c", "import os; print(os.nice(0))"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    began = int(own.stdout)
    told = subprocess.run(
        [sys.executable, "-c", _TOLD.format(before=before, nice=nice)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    expected = max(min(19, began + before), nice)
    assert [int(line) for line in told.stdout.split()] == [expected] * 3
    assert began or expected == is_now


def test_the_rest_door_gives_way_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it is told to."""
    monkeypatch.delenv("FROND_NICE", raising=False)
    assert (IngestSettings().nice, ServiceSettings().nice) == (0, 5)
    monkeypatch.setenv("FROND_NICE", "7")
    assert (IngestSettings().nice, ServiceSettings().nice) == (7, 7)
