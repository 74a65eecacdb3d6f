"""Faust's consumer, mended where it forgets the first messages of a partition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from faust.transport.drivers.aiokafka import Consumer


class RewindingConsumer(Consumer):
    """Seeks to what is committed, and to the beginning where nothing is.

    In a rebalance Faust drops what was fetched meanwhile, and seeks to the committed offsets to
    read it again. aiokafka's ``seek_to_committed`` leaves a partition where it is whose committed
    offset is 0 or none: its first messages were dropped for good, and later ones committed past
    them.
    """

    async def seek_to_committed(self) -> Mapping[Any, int]:
        """As Faust's; every partition of a source topic is where its group left it."""
        committed: Mapping[Any, int] = await super().seek_to_committed()
        sources = [
            tp
            for tp, offset in committed.items()
            if (offset is None or offset <= 0) and self.app.topics.acks_enabled_for(tp.topic)
        ]
        if sources:
            for tp, offset in (await self.earliest_offsets(*sources)).items():
                await self.seek(tp, offset)
        return committed
