"""A topic up to where it ended when reading began, and no waiting for a broker that has gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Any, Final, Protocol, TypeVar

from frond.contracts.errors import BrokerUnavailable

T = TypeVar("T")

SILENCE_S: Final = 30.0
"""How long a broker may give nothing while there is something to be had."""
_STOP_S: Final = 5.0


class Source(Protocol):
    """What is asked of a consumer: see ``aiokafka.AIOKafkaConsumer``."""

    async def getmany(self, *partitions: Any, timeout_ms: int) -> Mapping[Any, list[Any]]: ...
    async def position(self, partition: Any) -> int: ...
    async def stop(self) -> None: ...


async def messages_to(
    source: Source, ends: Mapping[Any, int], *, silence_s: float = SILENCE_S
) -> AsyncIterator[Any]:
    """Every message from where the source stands up to these offsets, by partition.

    Raises:
        BrokerUnavailable: nothing came for so long.
    """
    at: dict[Any, int] = {}
    left, heard = set(ends), time.monotonic()
    while left:
        got = await _within(silence_s, source.getmany(*left, timeout_ms=1000))
        for messages in got.values():
            for message in messages:
                yield message
        # also past what is no message: ends of transactions, and those that were undone
        now = {p: await _within(silence_s, source.position(p)) for p in left}
        if got or any(at.get(p) != offset for p, offset in now.items()):
            heard = time.monotonic()
        elif time.monotonic() - heard > silence_s:
            raise _silent(silence_s)
        at = now
        left = {p for p, offset in now.items() if offset < ends[p]}


async def let_go(source: Source) -> None:
    """Stop a source; one whose broker has gone may not keep its reader."""
    try:
        async with asyncio.timeout(_STOP_S):
            await source.stop()
    except TimeoutError:
        pass


async def _within(seconds: float, what: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await what
    except TimeoutError:
        raise _silent(seconds) from None


def _silent(seconds: float) -> BrokerUnavailable:
    return BrokerUnavailable(
        f"Kafka has given nothing for {seconds:g} s in the middle of a topic. Look whether it runs, "
        "and try again."
    )
