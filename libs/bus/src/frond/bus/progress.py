"""Whether a consumer gets on: a sign of life from the broker, and positions that move."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from frond.bus import metrics
from frond.contracts.errors import BrokerUnavailable
from frond.runtime import get_logger

PROBE_EVERY_S: Final = 10.0
SILENT_S: Final = 90.0
STUCK_S: Final = 120.0
_log = get_logger(__name__)


class Progress:
    """Looks at one consumer from time to time.

    aiokafka consumers can go silently dead: they neither raise nor read. What they read is compared
    with what there is to read.

    Args:
        in_hand: how many messages of a partition were read and wait: the lag that is shown has
            them in it.
    """

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        topic: str,
        in_hand: Callable[[TopicPartition], int] = lambda _: 0,
    ) -> None:
        self._consumer = consumer
        self._topic = topic
        self._in_hand = in_hand
        self._lags = metrics.Lags()
        self._answered = self._moved = time.monotonic()
        self._positions: dict[Any, int] = {}

    async def probe(self, *, busy: bool) -> str | None:
        """Ask the broker once; returns what is wrong, or None.

        Args:
            busy: messages are in hand, so that standing still means nothing.

        Raises:
            BrokerUnavailable: it has not answered for 90 s, or nothing was read for 120 s although
                there is something to read.
        """
        try:
            async with asyncio.timeout(PROBE_EVERY_S):
                lag = await self._look()
        except (KafkaError, OSError, TimeoutError) as e:
            if time.monotonic() - self._answered > SILENT_S:
                raise BrokerUnavailable(f"no answer for {SILENT_S:.0f} s") from e
            _log.warning("the broker does not answer", topic=self._topic, error=repr(e))
            return "the broker does not answer"
        self._answered = time.monotonic()
        if busy or not lag:
            self._moved = self._answered
        elif self._answered - self._moved > STUCK_S:
            raise BrokerUnavailable(f"{lag} messages wait, and none was read for {STUCK_S:.0f} s")
        return None

    async def _look(self) -> int:
        assigned = self._consumer.assignment()
        if not assigned:
            self._lags.show({})
            await self._consumer.topics()  # a sign of life, at least
            return 0
        lag = 0
        positions, lags = {}, {}
        for partition, end in (await self._consumer.end_offsets(assigned)).items():
            positions[partition] = await self._consumer.position(partition)
            behind = max(0, end - positions[partition])
            lags[self._topic, partition.partition] = behind + self._in_hand(partition)
            lag += behind
        self._lags.show(lags)
        if positions != self._positions:
            self._positions = positions
            self._moved = time.monotonic()
        return lag
