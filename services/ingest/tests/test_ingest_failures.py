"""A job's failures read out of its summary, however it is cut and however many there are."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from frond.contracts.reasons import Reason
from frond.ingest import retry
from frond.ingest.context import Ingest
from frond.ingest.problems import Refused
from frond.ingest.settings import IngestSettings


class Pieces:
    """A store whose only object comes in these pieces."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.pieces = pieces

    async def stream(self, _: str) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            await asyncio.sleep(0)
            yield piece

    def close(self) -> None:
        pass


@pytest.fixture
async def ingest(tmp_path: Path) -> AsyncIterator[Ingest]:
    made = Ingest(IngestSettings(DATABASE_PATH=tmp_path / "a.db"))  # type: ignore[call-arg]
    made.store.close()
    yield made
    await made.close()


def summary(failures: int, images: int = 1) -> bytes:
    told = [
        {
            "detail": 'It says ],"images":[ itself.', "image_id": f"{n}", "name": f"{n}.tif",
            "reason": "corrupt", "uri": f"s3://bucket/{n}.tif",
        }
        for n in range(failures)
    ]  # fmt: skip
    # as it is written: a failure, and an image, a line
    lists = [
        ",".join(f"\n{json.dumps(row, separators=(',', ':'))}" for row in rows)
        for rows in (told, [{"name": "x" * 64}] * images)
    ]
    return f'{{"counts":{{}},"failures":[{lists[0]}],"images":[{lists[1]}]}}\n'.encode()


async def read(ingest: Ingest, pieces: Sequence[bytes], *reasons: Reason) -> list[str]:
    ingest.store = cast(Any, Pieces(pieces))
    return [f.name for f in await retry._failed(ingest, "j", reasons)]


async def test_failures_are_found_wherever_the_summary_is_cut(ingest: Ingest) -> None:
    """In two pieces cut anywhere, or byte by byte; a detail that looks like their end is not it."""
    whole = summary(3)
    expected = ["0.tif", "1.tif", "2.tif"]
    for at in range(len(whole)):
        assert await read(ingest, [whole[:at], whole[at:]]) == expected
    assert await read(ingest, [whole[n : n + 1] for n in range(len(whole))]) == expected
    assert await read(ingest, [whole], Reason.CORRUPT) == expected
    with pytest.raises(Refused, match="Its reasons: corrupt"):
        await read(ingest, [whole], Reason.READER_DIED)
    for odd in (b"", b'{"images":[]}', whole[:60]):
        with pytest.raises(Refused, match="lists no failures"):
            await read(ingest, [odd])


async def test_small_pieces_are_looked_at_once(ingest: Ingest) -> None:
    """Reading takes time as the summary is long, not as its square."""

    async def seconds(failures: int) -> float:
        whole = summary(failures)
        ingest.store = cast(Any, Pieces([whole[n : n + 500] for n in range(0, len(whole), 500)]))
        begun = time.process_time()
        assert len(await retry._failures(ingest, "j")) > 100 * failures
        return time.process_time() - begun

    small, large = await seconds(10_000), await seconds(40_000)
    # as the square it would be sixteen times
    assert large < 10 * max(small, 0.05)


async def test_others_are_answered_while_failures_are_parsed(ingest: Ingest) -> None:
    """The event loop has many turns meanwhile: it stands still for none of the parsing."""
    # by the process's own time: another's, or that of collecting the session's garbage, is no matter here
    turns: list[float] = []
    gc.disable()

    async def turn() -> None:
        while True:
            turns.append(time.process_time())
            await asyncio.sleep(0.001)

    whole = summary(30_000)
    turning = asyncio.create_task(turn())
    await asyncio.sleep(0)
    try:
        await read(ingest, [whole])
    finally:
        gc.enable()
        turning.cancel()
    turns.append(time.process_time())
    pauses = [after - before for before, after in itertools.pairwise(turns)]
    assert max(pauses) < sum(pauses) / 2
