from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from frond.contracts.errors import RasterRejected
from frond.contracts.reasons import Reason
from frond.tiler.sandbox import ReaderFailed, Sandbox


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


async def test_a_reader_that_dies_takes_nothing_with_it(sandbox: Sandbox, tmp_path: Path) -> None:
    """A segfault costs one process; the second one is the raster's fault, and no third is risked;
    what runs beside it does not notice."""
    journal = tmp_path / "lives"
    other = asyncio.create_task(sandbox.run(abs, -7, 60))
    with pytest.raises(RasterRejected) as e:
        await sandbox.run(_segfault, str(journal), 60)
    assert e.value.reason is Reason.READER_DIED
    assert journal.read_text() == "xx"
    assert await other == 7


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
    await asyncio.gather(*(sandbox.run(abs, 1, 60) for _ in range(2)))
    began = time.monotonic()
    with pytest.raises(RasterRejected) as e:
        # the second of the two readers may not have been warm; both end within their limit
        await sandbox.run(time.sleep, 300, 0.5)
    assert e.value.reason is Reason.READ_TIMEOUT
    assert time.monotonic() - began < 130


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


async def test_an_abandoned_call_is_cleared_up_after(sandbox: Sandbox, tmp_path: Path) -> None:
    """Nobody waits for it, so its process ends at once, even in an endless loop; what it leaves is
    removed once it has ended, and not before; the reader is there for the next call."""
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
    assert await sandbox.run(abs, -3, 60) == 3
