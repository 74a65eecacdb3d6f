"""Which offset may be committed: the one after the contiguous prefix of finished messages."""

from __future__ import annotations

from collections import deque


class CommitTracker:
    """One partition's messages in flight.

    Messages are added in the order of their offsets (which may have gaps), finish in any order,
    and the committable offset never passes one that is unfinished.
    """

    def __init__(self) -> None:
        self._order: deque[int] = deque()
        self._done: set[int] = set()
        self._committable: int | None = None

    def add(self, offset: int) -> None:
        """A message is taken up. Offsets ascend."""
        if self._order and offset <= self._order[-1]:
            raise ValueError(f"offset {offset} after {self._order[-1]}")
        self._order.append(offset)

    def finish(self, offset: int) -> None:
        """Its effects are durable. Finishing twice, or what was never added, changes nothing."""
        self._done.add(offset)
        while self._order and self._order[0] in self._done:
            first = self._order.popleft()
            self._done.discard(first)
            self._committable = first + 1
        if not self._order:
            self._done.clear()

    def pass_to(self, offset: int) -> None:
        """Reading has come to this offset: where nothing is in flight, all before it is done.

        Ends of transactions, and what they undid, have offsets and are no messages.
        """
        if not self._order and offset > (self._committable or 0):
            self._committable = offset

    @property
    def committable(self) -> int | None:
        """The next offset to read after a restart; None if nothing has finished yet."""
        return self._committable

    @property
    def in_flight(self) -> int:
        return len(self._order)
