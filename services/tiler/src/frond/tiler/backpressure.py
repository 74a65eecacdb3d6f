"""Planning waits while inference is behind, job by job. Knows no Kafka."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping

from frond.contracts.errors import BrokerUnavailable
from frond.runtime import get_logger

_SHARES = 10
_LOOK_EVERY_S = 2.0
_log = get_logger(__name__)


class Backlog:
    """How many planned chunks wait for inference, and which jobs are to be planned no further.

    While more than ``bound`` wait, a job is held back that has a tenth of the bound waiting itself.
    So a big job stops at the bound, and a small one that comes then is planned all the same: what
    waits is at most the bound, a tenth of it for each open job, and the images in hand.

    Args:
        bound: below consumers' look-ahead, so that inference sees the small jobs' chunks among the
            big ones'.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._share = max(1, bound // _SHARES)
        self._lag = 0
        self._since = 0
        self._waiting: Counter[str] = Counter()
        self._sent: dict[int, deque[tuple[int, str]]] = {}

    @property
    def chunks(self) -> int:
        """How many wait: as of the last look, and all that was sent since."""
        return self._lag + self._since

    @property
    def full(self) -> bool:
        return self.chunks >= self._bound

    def waiting(self, job_id: str) -> int:
        """How many of the chunks that this process has sent of a job wait."""
        return self._waiting[job_id]

    def sent(self, job_id: str, partition: int, offset: int) -> None:
        """A chunk was sent, and lies there."""
        self._since += 1
        self._waiting[job_id] += 1
        self._sent.setdefault(partition, deque()).append((offset, job_id))

    def looked(self, lag: int, committed: Mapping[int, int], late: int = 0) -> None:
        """What the broker says.

        Args:
            lag: of inference, all partitions together.
            committed: by partition, up to where inference is done.
            late: how many were sent after the broker was asked. They may not be in the lag, and
                count until the next look.
        """
        self._lag, self._since = lag, late
        for partition, sent in self._sent.items():
            done = committed.get(partition, 0)
            while sent and sent[0][0] < done:
                _, job_id = sent.popleft()
                self._waiting[job_id] -= 1
                if not self._waiting[job_id]:
                    del self._waiting[job_id]

    def held(self, job_id: str) -> bool:
        """Whether no more of this job is to be planned for now."""
        return self.full and self._waiting[job_id] >= self._share

    async def keep(
        self,
        look: Callable[[], Awaitable[tuple[int, Mapping[int, int]]]],
        show: Callable[[int, bool], None],
    ) -> None:
        """Look every two seconds, for ever; while there is no answer, what was known last holds.

        Args:
            look: gives the arguments of ``looked``; raises BrokerUnavailable.
            show: told the lag, and whether planning waits for it.
        """
        full = False
        while True:
            try:
                known = self._since
                lag, committed = await look()
                self.looked(lag, committed, self._since - known)
            except BrokerUnavailable as e:
                _log.warning("inference's backlog is not known", error=str(e))
            show(self._lag, self.full)
            if self.full != full:
                full = self.full
                told = "planning waits for inference" if full else "planning goes on"
                _log.info(told, chunks=self.chunks, bound=self._bound)
            await asyncio.sleep(_LOOK_EVERY_S)
