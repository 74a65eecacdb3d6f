"""A chunk's result on its way into a store that takes nothing: it is waited for, and nothing is run again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from inference_bench import Bench, reading

from frond.contracts.errors import StoreFull, StoreUnavailable
from frond.contracts.reasons import Reason
from frond.inference.deaths import Deaths
from frond.models.session import ModelSession
from frond.raster import Block, WindowPixels


class Full(Bench):
    """A worker whose store refuses puts for as long as there are ``troubles``; counts what is read."""

    def __init__(self, scene: Path, tmp_path: Path, folder: Path, **more: Any) -> None:
        super().__init__(scene, tmp_path, folder, **more)
        self.planned = self.chunk(folder, ModelSession(folder))
        self.troubles: list[Exception] = []
        self.refused = asyncio.Event()
        self.read = 0
        self._put = self.results.put_if_absent
        self.results.put_if_absent = self._refusing  # type: ignore[method-assign]
        self.worker._reading._read = self._counting

    async def _refusing(self, key: str, data: bytes, kind: str) -> bytes:
        if self.troubles:
            self.refused.set()
            raise self.troubles.pop()
        return await self._put(key, data, kind)

    async def _counting(self, block: Block) -> list[WindowPixels]:
        self.read += 1
        return await reading(block)


@pytest.fixture
def deaths(tmp_path: Path) -> Iterator[Deaths]:
    made = Deaths(tmp_path / "deaths")
    yield made
    made.close()


def running(tmp_path: Path) -> list[Path]:
    """Chunks that a death would be laid to."""
    return [*(tmp_path / "deaths" / "running").glob("*/*.beside")]


async def test_a_full_store_costs_no_second_run(local: Path, scene: Path, tmp_path: Path) -> None:
    """The chunk is read and run once, however often its result is refused."""
    bench = Full(scene, tmp_path, local)
    bench.troubles = [StoreFull("full"), StoreUnavailable("away"), StoreFull("full")]
    told = await asyncio.wait_for(bench.worker.handle(bench.planned), 60)
    assert told.reason is None
    assert list(bench.results.kept) == [told.result]
    assert (bench.read, bench.troubles) == (1, [])
    bench.close()


async def test_a_job_that_is_cancelled_meanwhile_waits_no_more(
    local: Path, scene: Path, tmp_path: Path
) -> None:
    """Nothing of it is stored any more."""
    bench = Full(scene, tmp_path, local)
    bench.troubles = [StoreFull("full")]

    async def cancelled(_: str) -> bool:
        return bench.refused.is_set()

    bench.results.is_cancelled = cancelled  # type: ignore[method-assign]
    told = await asyncio.wait_for(bench.worker.handle(bench.planned), 60)
    assert told.reason is Reason.DISMISSED
    assert not bench.results.kept
    bench.close()


async def test_a_chunk_that_is_somebody_elses_by_now_leaves_nothing(
    local: Path, scene: Path, tmp_path: Path, deaths: Deaths
) -> None:
    """What waits to be stored kills no process, and goes with the event. If it comes back, it is run."""
    bench = Full(scene, tmp_path, local, deaths=deaths)
    bench.troubles = [StoreFull("full")] * 1000
    first = asyncio.create_task(bench.worker.handle(bench.planned))
    await asyncio.wait_for(bench.refused.wait(), 60)
    assert not running(tmp_path)
    first.cancel()
    await asyncio.wait({first})
    assert first.cancelled()
    assert not bench.results.kept
    bench.troubles.clear()
    assert (await bench.worker.handle(bench.planned)).reason is None
    assert bench.read == 2
    bench.close()
