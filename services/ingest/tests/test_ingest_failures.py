"""A job's failures read out of its summary, however it is cut and however many there are."""

from __future__ import annotations

import asyncio
import json
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
    whole = summary(100_000)
    pieces = [whole[n : n + 500] for n in range(0, len(whole), 500)]
    ingest.store = cast(Any, Pieces(pieces))
    async with asyncio.timeout(10):
        assert len(await retry._failures(ingest, "j")) > 10_000_000


async def test_others_are_answered_while_failures_are_parsed(ingest: Ingest) -> None:
    """The event loop has many turns meanwhile: it stands still for none of the parsing."""
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.001)
            turns += 1

    turning = asyncio.create_task(turn())
    await read(ingest, [summary(30_000)])
    turning.cancel()
    assert turns > 10
