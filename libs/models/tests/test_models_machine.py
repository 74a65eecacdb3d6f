"""The machine at hand: processors and memory that a control group leaves."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from frond.models import machine


def told(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"cpu_dot_max": "150000 100000\n"}, 2),
        ({"cpu_dot_max": "20000 100000\n"}, 1),
        ({"cpu_dot_max": "6400000 100000\n"}, 16),
        ({"cpu_dot_max": "max 100000\n"}, 16),
        ({"cpu_dot_max": "nonsense"}, 16),
        ({"cpu__cpu_dot_cfs_quota_us": "200000\n", "cpu__cpu_dot_cfs_period_us": "100000\n"}, 2),
        ({"cpu__cpu_dot_cfs_quota_us": "-1\n", "cpu__cpu_dot_cfs_period_us": "100000\n"}, 16),
        ({}, 16),
    ],
)
def test_no_more_cores_than_the_quota_keeps_busy(
    files: dict[str, str], wanted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounded up, one at least; none where none is said, in either version of control groups."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(machine, "_CGROUPS", told(tmp_path, **files))
    assert machine.cores() == wanted


def test_room_is_the_least_of_machine_and_control_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept of files counts as free."""
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path)
    free = machine.room()
    assert 0 < free < math.inf and 0 < machine.resident() < 1 << 40
    told(
        tmp_path, memory_dot_max="5000\n", memory_dot_current="4000\n",
        memory_dot_stat="anon 1\ninactive_file 300\n",
    )  # fmt: skip
    assert machine.room() == 1300
    told(tmp_path, memory_dot_max="max\n")
    assert machine.room() == pytest.approx(free, rel=0.5)
