"""Reading a topic to its end, whatever becomes of the broker. The source is a queue: what is put to
the test is when reading ends."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from frond.client.reading import let_go, messages_to
from frond.contracts.errors import BrokerUnavailable

LONG_S, SHORT_S = 60.0, 1.0


class Source:
    """Gives what it has, at most two at a time, then nothing; or hangs."""

    def __init__(self, has: dict[str, list[Any]], *, hangs: bool = False) -> None:
        self.has = has
        self.at = dict.fromkeys(has, 0)
        self.hangs = hangs

    async def getmany(self, *partitions: str, timeout_ms: int) -> Mapping[str, list[Any]]:
        got = {}
        for p in partitions:
            some = self.has[p][self.at[p] : self.at[p] + 2]
            self.at[p] += len(some)
            # None: the end of a transaction, which has an offset and is no message
            if given := [m for m in some if m is not None]:
                got[p] = given
        if not got and self.hangs:
            await asyncio.Event().wait()
        await asyncio.sleep(0.01)
        return got

    async def position(self, partition: str) -> int:
        return self.at[partition]

    async def stop(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()


async def read(source: Source, ends: dict[str, int]) -> list[Any]:
    return [m async for m in messages_to(source, ends, silence_s=LONG_S)]


async def test_all_up_to_the_end_is_read() -> None:
    """Of every partition; what is no message holds up nothing, however much of it there is."""
    source = Source({"a": [1, 2, 3], "b": [*[None] * 60, 4]})
    assert sorted(await read(source, {"a": 3, "b": 61})) == [1, 2, 3, 4]
    assert await read(source, {}) == []


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_broker_that_dies_in_the_middle_is_a_sentence(hangs: bool) -> None:
    """Not a wait without end: whether it gives nothing any more, or does not even answer."""
    source = Source({"a": [1, 2, 3]}, hangs=hangs)
    seen = []
    with pytest.raises(BrokerUnavailable, match="Look whether it runs"):
        async with asyncio.timeout(60):
            async for message in messages_to(source, {"a": 9}, silence_s=SHORT_S):
                seen.append(message)
    assert seen == [1, 2, 3]


async def test_a_reader_gets_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the broker does not answer to its farewell."""
    monkeypatch.setattr("frond.client.reading._STOP_S", 0.05)
    async with asyncio.timeout(60):
        await let_go(Source({}, hangs=True))
        await let_go(Source({}))
