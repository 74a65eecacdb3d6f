"""That each message of a partition follows the one before it: the last guard before the ledger."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from frond.aggregator.progress import FaustCrashed


class Continuity:
    """Sees that no offset of a partition is passed over between the broker and the agents.

    What is passed over would be committed together with what follows it, and never be counted. A
    new process begins at the committed offsets, so ending this one loses nothing.

    Args:
        begins: where reading began in this generation, by partition (topic, partition).
        first_from: the first offset that a partition holds from this one on, as the broker says.
    """

    def __init__(
        self,
        begins: Callable[[], Mapping[Any, int]],
        first_from: Callable[[Any, int], Awaitable[int]],
    ) -> None:
        self._begins = begins
        self._first_from = first_from
        self._next: dict[Any, tuple[int, int]] = {}

    async def admit(self, tp: Any, generation: int, offset: int) -> None:
        """Take note of a message that is about to be handled; one that comes again may come.

        Raises:
            FaustCrashed: a message of the partition lies between this one and the one before.
            BrokerUnavailable: offsets are missing, and the broker does not say why.
        """
        known, expected = self._next.get(tp, (generation, -1))
        if expected < 0 or known != generation:
            expected = self._begins().get(tp, offset)
        if offset > expected:
            # transactions and retention leave holes of their own
            first = await self._first_from(tp, expected)
            if first < offset:
                raise FaustCrashed(
                    f"{tp.topic}[{tp.partition}]: {first} was passed over, {offset} came instead"
                )
        self._next[tp] = (generation, max(expected, offset + 1))
