"""Child processes of which any may end at any moment: nothing else does."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.reduction import send_handle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from frond.contracts.errors import RasterRejected
from frond.contracts.reasons import Reason
from frond.raster import parcels
from frond.raster.child import more_time
from frond.raster.sandbox import ReaderFailed, Sandbox


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    box = Sandbox(2)
    yield box
    box.close()


def alive(pids: set[int | None]) -> list[int | None]:
    return [p for p in pids if Path(f"/proc/{p}").exists()]


async def test_work_is_done_elsewhere_and_side_by_side(sandbox: Sandbox) -> None:
    assert await asyncio.gather(*(sandbox.run(abs, -i, 60) for i in range(5))) == [0, 1, 2, 3, 4]


async def test_an_error_comes_back_with_its_traceback(sandbox: Sandbox) -> None:
    with pytest.raises(ReaderFailed, match="TypeError"):
        await sandbox.run(len, 5, 60)
    assert await sandbox.run(len, "abc", 60) == 3


def _segfault(journal: str) -> None:
    with Path(journal).open("a") as lives:
        lives.write("x")
    ctypes.string_at(0)


async def test_a_reader_that_dies_takes_nothing_with_it(tmp_path: Path) -> None:
    """A segfault costs one process; the second one is the raster's fault, and no third is risked;
    what runs beside it does not notice."""
    journal, lost = tmp_path / "lives", list[str]()
    sandbox = Sandbox(2, lost=lost.append)
    other = asyncio.create_task(sandbox.run(abs, -7, 60))
    with pytest.raises(RasterRejected) as e:
        await sandbox.run(_segfault, str(journal), 60)
    assert e.value.reason is Reason.READER_DIED
    assert journal.read_text() == "xx"
    assert lost == ["died", "died"]
    assert await other == 7
    await asyncio.to_thread(sandbox.close)


def _killed(asked: tuple[str, int]) -> int:
    """Is killed so many times, as by the kernel where memory runs out."""
    journal, deaths = Path(asked[0]), asked[1]
    lives = journal.read_text() if journal.exists() else ""
    if len(lives) < deaths:
        journal.write_text(lives + "x")
        os.kill(os.getpid(), signal.SIGKILL)
    return len(lives)


async def test_a_reader_that_is_killed_has_not_crashed(tmp_path: Path) -> None:
    """Somebody else did it: the call is made again, after pauses, as long as there are any; then it
    fails for what may pass, and tells of memory."""
    journal, lost = tmp_path / "lives", list[str]()
    sandbox = Sandbox(1, pauses_s=(0.0, 0.1, 0.2), lost=lost.append)
    assert await sandbox.run(_killed, (str(journal), 3), 60) == 3
    assert lost == ["killed"] * 3
    journal.unlink()
    began = time.monotonic()
    with pytest.raises(RasterRejected, match="memory") as e:
        await sandbox.run(_killed, (str(journal), 9), 60)
    assert e.value.reason is Reason.UNAVAILABLE
    assert journal.read_text() == "xxxx"
    assert time.monotonic() - began > 0.3
    assert await sandbox.run(abs, -3, 60) == 3
    await asyncio.to_thread(sandbox.close)


async def test_closing_waits_for_no_pause(tmp_path: Path) -> None:
    """Whoever waits for the call hears that there is no sandbox any more, and of no shortage."""
    lost = asyncio.Event()
    loop = asyncio.get_running_loop()
    sandbox = Sandbox(1, pauses_s=(600.0,), lost=lambda _: loop.call_soon_threadsafe(lost.set))
    running = asyncio.create_task(sandbox.run(_killed, (str(tmp_path / "lives"), 9), 60))
    async with asyncio.timeout(60):
        await lost.wait()
        await asyncio.to_thread(sandbox.close)
    with pytest.raises((ReaderFailed, asyncio.CancelledError)):
        await running


async def test_a_call_that_is_given_up_in_a_pause_keeps_no_reader(tmp_path: Path) -> None:
    """Nobody waits for it: the next call has the reader at once."""
    lost = asyncio.Event()
    loop = asyncio.get_running_loop()
    sandbox = Sandbox(1, pauses_s=(600.0,), lost=lambda _: loop.call_soon_threadsafe(lost.set))
    running = asyncio.create_task(sandbox.run(_killed, (str(tmp_path / "lives"), 9), 60))
    async with asyncio.timeout(60):
        await lost.wait()
        running.cancel()
        assert await sandbox.run(abs, -3, 60) == 3
    await asyncio.to_thread(sandbox.close)


async def test_an_image_is_not_blamed_for_a_reader_that_died_before(sandbox: Sandbox) -> None:
    """Readers that are killed while they wait cost the next call nothing but time."""
    for child in [await sandbox.run(os.getpgid, 0, 60) and c for c in sandbox._children]:
        child.process.kill()
        await asyncio.to_thread(child.process.join)
    assert await sandbox.run(abs, -3, 60) == 3


class Late:
    """An argument, or a call, whose module takes longer to import than the call may take."""

    def __reduce__(self) -> Any:
        return time.sleep, (2.0,)


async def test_the_time_is_for_the_call_alone(sandbox: Sandbox) -> None:
    """What a reader has to import first is no fault of the image's, however busy the machine."""
    assert await sandbox.run(repr, Late(), 1.0) == "None"


class Unknown:
    """An argument that no reader can unpickle."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


async def test_what_does_not_unpickle_kills_no_reader(sandbox: Sandbox) -> None:
    """It is told like any other error, and blames no raster."""
    with pytest.raises(ReaderFailed, match="no number"):
        await sandbox.run(abs, Unknown(), 60)  # type: ignore[arg-type]


def _views(count: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray, bytes]:
    whole = np.arange(count * 300 * 400, dtype=np.uint32).reshape(count, 300, 400)
    views = [whole[:, y : y + 200, y : y + 300] for y in (0, 40, 100)]
    return views, np.asfortranarray(whole[0]), whole[0, ::-1], b"small"


def _mappings() -> int:
    return Path("/proc/self/maps").read_text().count("frond-parcel")


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def test_arrays_come_whole_and_their_memory_goes(sandbox: Sandbox) -> None:
    """Bit for bit, in the same order in memory, views of one array as views of one array; memory and
    descriptor are given back with the last of them."""
    await asyncio.gather(*(sandbox.run(abs, 1, 60) for _ in range(2)))
    gc.collect()
    descriptors = _descriptors()
    there = _views(5)
    here = await sandbox.run(_views, 5, 60)
    assert _mappings() == 1
    for a, b in zip([*there[0], *there[1:3]], [*here[0], *here[1:3]], strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype
    assert [a.strides for a in there[0]] == [a.strides for a in here[0]]
    assert len({id(a.base) for a in here[0]}) == 1
    assert not any(a.flags.writeable for a in here[0])
    assert here[3] == b"small"
    kept = here[0][1]
    del here, a, b
    # until its next turn the loop holds on to what it handed over in this one
    await asyncio.sleep(0)
    gc.collect()
    assert _mappings() == 1
    np.testing.assert_array_equal(kept, there[0][1])
    del kept
    gc.collect()
    assert _mappings() == 0
    assert _descriptors() <= descriptors


async def test_large_arguments_come_whole_too(sandbox: Sandbox) -> None:
    """And are gone from both processes afterwards."""
    data = np.random.default_rng(1).integers(0, 255, 3_000_000).astype(np.uint8)
    assert await sandbox.run(np.sum, data, 60) == data.sum()
    assert _mappings() == 0


def test_memory_that_may_be_cut_off_is_not_mapped() -> None:
    """Touching it afterwards would end this process with SIGBUS."""
    here, there = Pipe()
    fd = os.memfd_create("frond-parcel", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 1 << 20)
    there.send_bytes((1).to_bytes(4, "little") + (1 << 20).to_bytes(8, "little"))
    send_handle(there, fd, 0)
    with pytest.raises(OSError, match="cut off"):
        parcels.receive(here)
    os.close(fd)


_PARENT = """
import asyncio, os, sys
from frond.raster.sandbox import Sandbox
from pathlib import Path
if __name__ == "__main__":
    box = Sandbox(1)
    # an endless loop in C, that never looks at the pipe
    asyncio.run(box.run(eval, "print(__import__('os').getpid(), flush=True) or max(iter(int, 1))", 600))
"""


def test_a_reader_in_an_endless_loop_ends_with_a_killed_parent(tmp_path: Path) -> None:
    """Nobody is left who could stop it."""
    script = tmp_path / "parent.py"
    script.write_text(_PARENT)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        reader = int(parent.stdout.readline())
        watch = os.pidfd_open(reader)
        parent.send_signal(signal.SIGKILL)
        assert select.select([watch], [], [], 30)[0]
        os.close(watch)


def _greedy(size: int) -> int:
    return len(bytearray(size))


async def test_a_reader_has_so_much_memory_and_no_more() -> None:
    """What asks for more is refused as too large, in that reader alone; the next call has all of
    its memory again."""
    box = Sandbox(1, memory_mb=512)
    try:
        with pytest.raises(RasterRejected) as e:
            await box.run(_greedy, 2 << 30, 60)
        assert e.value.reason is Reason.TOO_LARGE
        assert await box.run(_greedy, 64 << 20, 60) == 64 << 20
    finally:
        await asyncio.to_thread(box.close)


async def test_a_reader_that_hangs_is_stopped(sandbox: Sandbox) -> None:
    began = time.monotonic()
    with pytest.raises(RasterRejected) as e:
        await sandbox.run(time.sleep, 300, 0.5)
    assert e.value.reason is Reason.READ_TIMEOUT
    assert time.monotonic() - began < 130


def _takes(seconds: tuple[float, float]) -> float:
    """A call that asks for some time, and takes some."""
    asked, taken = seconds
    more_time(asked)
    time.sleep(taken)
    return taken


async def test_a_call_may_ask_for_more_time_and_gets_no_more_than_that(sandbox: Sandbox) -> None:
    assert await sandbox.run(_takes, (60, 2.0), 1.0) == 2.0
    with pytest.raises(RasterRejected) as e:
        await sandbox.run(_takes, (0.5, 300), 1.0)
    assert e.value.reason is Reason.READ_TIMEOUT
    more_time(1)  # in no sandbox: nobody waits


async def test_readers_end_with_the_sandbox(sandbox: Sandbox) -> None:
    """Also while they work: closing does not wait for a long read."""
    pid = await sandbox.run(os.getpgid, 0, 60)
    assert pid
    running = asyncio.create_task(sandbox.run(time.sleep, 300, 600))
    await asyncio.sleep(0)
    children = {c.process.pid for c in sandbox._children}
    await asyncio.to_thread(sandbox.close)
    with pytest.raises((ReaderFailed, asyncio.CancelledError)):
        await running
    assert children and not alive(children)


def _for_ever(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    while True:
        pass


async def test_an_abandoned_call_is_cleared_up_after(tmp_path: Path) -> None:
    """Nobody waits for it, so its process ends at once, even in an endless loop; what it leaves is
    removed once it has ended, and not before; the reader is there for the next call, without a pause:
    we have killed it ourselves."""
    lost = list[str]()
    sandbox = Sandbox(1, pauses_s=(600.0,), lost=lost.append)
    await sandbox.run(abs, 1, 60)
    left, ended = tmp_path / "copy.tif", asyncio.Event()
    seen: list[bool] = []
    loop = asyncio.get_running_loop()

    def clear() -> None:
        seen.append(left.exists())
        left.unlink()
        loop.call_soon_threadsafe(ended.set)

    calling = asyncio.create_task(sandbox.run(_for_ever, str(left), 60, abandoned=clear))
    async with asyncio.timeout(60):
        while not (left.exists() and left.read_text()):  # noqa: ASYNC110 # a file tells nobody
            await asyncio.sleep(0.01)
    pid = int(left.read_text())
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    async with asyncio.timeout(60):
        await ended.wait()
    assert seen == [True]
    assert not left.exists()
    assert not alive({pid})
    assert await asyncio.wait_for(sandbox.run(abs, -3, 60), 120) == 3
    assert lost == ["died"]
    await asyncio.to_thread(sandbox.close)
