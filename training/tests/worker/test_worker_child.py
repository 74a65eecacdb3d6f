# ruff: noqa: PTH208 (a moment of two files of the kernel)
"""The process that trains: what counts as its end, and what it needs of its worker."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from frond.training.worker.child import Child


@pytest.mark.parametrize("leaves", ["sleep 60 &", "setsid sleep 60 &"])
async def test_what_it_leaves_behind_is_not_waited_for(tmp_path: Path, leaves: str) -> None:
    """A server that it started has its stdout still: it has ended all the same, with what it said."""
    began = time.monotonic()
    child = await Child.start(
        ["sh", "-c", f"{leaves} echo why >&2; echo done; exit 3"], tmp_path, tmp_path / "log"
    )
    await asyncio.wait_for(asyncio.shield(child.ended), 20)
    assert await child.stop(20) == 3
    assert (child.last_line("out"), child.last_line("err")) == (b"done", b"why")
    assert sorted((tmp_path / "log").read_text().split()) == ["done", "why"]
    assert time.monotonic() - began < 20


async def test_it_needs_nothing_of_where_we_were_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins in a folder of its own, from where a relative PYTHONPATH leads nowhere."""
    monkeypatch.setenv("PYTHONPATH", "training/src")
    child = await Child.start(["sh", "-c", "echo $PYTHONPATH"], tmp_path, tmp_path / "log")
    await asyncio.wait_for(asyncio.shield(child.ended), 20)
    assert await child.stop(1) == 0
    assert child.last_line("out") == b"training/src"


async def test_what_cannot_begin_leaves_nothing_open(tmp_path: Path) -> None:
    """No such folder: an error, and no descriptor more than before."""
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(OSError, match="none"):
            await Child.start(["true"], tmp_path / "none", tmp_path / "log")
    await asyncio.sleep(0)
    assert len(os.listdir("/proc/self/fd")) <= before + 1
