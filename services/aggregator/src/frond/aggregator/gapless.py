"""Faust's consumer, mended where it passes over messages in a rebalance."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

from faust.transport.drivers.aiokafka import Consumer

# below broker_request_timeout, 90 s by default
_SEEK_S: Final = 30.0
# how soon it is seen that a partition is not full any more
_AGAIN_S: Final = 0.1


class GaplessConsumer(Consumer):
    """Reads every message of a source topic from where the group left it, in each generation.

    At the end of a rebalance Faust resumes the source topics, seeks to the committed offsets, and
    then resumes the flow, in this order. Each step leaves a hole of its own:

    - Resuming the flow empties the agents' queues (``clear_on_resume``). What had come in since the
      partitions were resumed was passed over, and later offsets were committed past it.
    - A fetch under way returns what lay behind the old position after the seek, and what it has
      taken is not fetched again.
    - aiokafka's ``seek_to_committed`` leaves a partition where it is whose committed offset is 0 or
      none: what was dropped of its beginning was dropped for good.

    So here partitions are resumed last, nothing is fetched while positions change, and a partition
    without a committed offset is read from its beginning.

    A partition that is full is not read, and the others are. This is left to none of Faust's own ways:
    what has been fetched of a partition is dropped when it is paused meanwhile (``getmany``), a paused
    partition is resumed by the next rebalance, and a queue that is full stops every partition. What is
    not asked for stays in aiokafka's fetcher, and positions do not move.

    Args:
        full: the partitions that nothing is to be read of now.

    Attributes:
        begins: where reading began in this generation, by partition of a source topic.
    """

    def __init__(
        self, *args: Any, full: Callable[[], AbstractSet[Any]] = frozenset, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._full = full
        self.begins: dict[Any, int] = {}
        self._positions = asyncio.Lock()
        self._resuming: set[Any] = set()

    def _is_source(self, tp: Any) -> bool:
        return bool(self.app.topics.acks_enabled_for(tp.topic))

    def resume_partitions(self, tps: Iterable[Any]) -> None:
        """As Faust's; partitions of source topics are resumed together with the flow."""
        every = set(tps)
        sources = {tp for tp in every if self._is_source(tp)}
        self._resuming |= sources
        super().resume_partitions(every - sources)

    def on_buffer_drop(self, tp: Any) -> None:
        """As Faust's, which would resume a partition that a rebalance has paused since."""
        super().on_buffer_drop(tp)
        if tp in self._paused_partitions:
            self._get_active_partitions().discard(tp)

    def resume_flow(self) -> None:
        """As Faust's, which has just emptied the agents' queues."""
        super().resume_flow()
        # those that were sought: a flow is also resumed to recover tables
        ready = {tp for tp in self._resuming if tp in self.begins}
        self._resuming -= ready
        super().resume_partitions(ready)

    async def on_partitions_revoked(self, revoked: set[Any]) -> None:
        """As Faust's. The whole assignment is revoked in each rebalance."""
        self._forget()
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[Any], generation_id: int = 0) -> None:
        """As Faust's. What was sought since the revocation was the assignment of before."""
        self._forget()
        await super().on_partitions_assigned(assigned, generation_id)

    def _forget(self) -> None:
        self._resuming.clear()
        self.begins.clear()
        # Faust empties the queues that were full, and goes on reading those partitions
        self._buffered_partitions.clear()

    async def _getmany(self, active_partitions: set[Any] | None, timeout: float) -> Any:
        active = active_partitions
        if active is not None:
            # Faust's set changes under aiokafka's hands, which takes an empty one for "all"
            active = active - self._full()
            if active != active_partitions:
                timeout = min(timeout, _AGAIN_S)
            if not active:
                await asyncio.sleep(timeout)
                return {}
        async with self._positions:
            return await super()._getmany(active, timeout)

    async def perform_seek(self) -> None:
        """As Faust's; begins when no fetch is under way, which may take a second.

        Raises:
            TimeoutError: the broker has not answered for 30 s.
        """
        generation = self.app.consumer_generation_id
        # where Faust's own limit passes, it takes the silence for an order to stop, and goes to sleep
        async with asyncio.timeout(_SEEK_S), self._positions:
            await super().perform_seek()
        if generation == self.app.consumer_generation_id:
            sources = {tp: at or 0 for tp, at in self._read_offset.items() if self._is_source(tp)}
            self.begins.update(sources)

    async def seek_to_committed(self) -> Mapping[Any, int]:
        """As Faust's; every partition of a source topic is where its group left it.

        Returns:
            By partition the offset that is read next, which retention may have moved.
        """
        committed = dict(await super().seek_to_committed())
        sources = [tp for tp in committed if self._is_source(tp)]
        if not sources:
            return committed
        earliest = await self.earliest_offsets(*sources)
        moved = {tp: at for tp, at in earliest.items() if (committed[tp] or -1) < max(at, 1)}
        if moved:
            await self.seek_wait(moved)
        return committed | moved
