"""What a scenario is given."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from chaos.feeder import Feeder
from chaos.figures import Figures
from chaos.installation import Installation, Needs
from chaos.letters import Rubbish
from chaos.oracle import Oracle
from chaos.outside import Copy
from chaos.receiver import Mode, Receiver
from chaos.watch import Watch
from frond.contracts.topics import Topic

__all__ = ["Mode", "Needs", "World"]


@dataclass
class World:
    """An installation, a client that feeds it, and a ledger outside it.

    Attributes:
        figures: ``kills`` are counted by the installation, ``faults`` by :meth:`fault`.
        rng: seeded by the run's seed and the scenario's name.
        short: the short matrix of ``make test``: a few jobs, one pass.
        until: ``time.monotonic()`` at which a long run should stop making trouble.
        scale: how much of the least that a scenario does (kills, images, points twice) is asked of
            it: 1 for a run of ``FULL_S`` seconds or more, less of it for a shorter one.
        strangers: ``fnmatch`` patterns of object keys that the scenario itself brings in, besides
            those of the jobs it submits; they count as no orphans.
        rubbish: what scenarios of this installation sent that is no event; each message that they do
            not note there must be none that becomes a dead letter.
        robbed: jobs of which the scenario itself took events away: the reconciler has to help them.
        receiver_lived: cleared by a scenario after which deliveries need not have arrived.
        gave_up: jobs whose receiver wants no more: their webhook need not have been taken.
        guests: jobs that are judged by a guestbook.
        posted_before: how many webhooks the receiver had got when the scenario before was judged.
        posted_judged: how many when this one was.
        copies_before: completed events of a broker that has lost its topics since.
        comparable: cleared by a scenario whose artifacts cannot be those of a calm run.
    """

    installation: Installation
    feeder: Feeder
    oracle: Oracle
    receiver: Receiver
    figures: Figures
    watch: Watch
    rng: random.Random
    short: bool
    until: float
    say: Callable[[str], None] = print
    scale: float = 1.0
    strangers: list[str] = field(default_factory=list)
    rubbish: Rubbish = field(default_factory=Rubbish)
    robbed: set[str] = field(default_factory=set)
    receiver_lived: bool = True
    comparable: bool = True
    gave_up: set[str] = field(default_factory=set)
    guests: set[str] = field(default_factory=set)
    posted_before: int = 0
    posted_judged: int | None = None
    copies_before: dict[str, list[Copy]] = field(default_factory=dict)

    @property
    def time_left(self) -> float:
        """Seconds in which more trouble may be made; 0 when the time is over."""
        return max(0.0, self.until - time.monotonic())

    def fault(self, what: str, **more: Any) -> None:
        """Count a fault that is no kill, and write it down.

        Args:
            more: ``places``, where it lasts until :meth:`over`: before which servers (kafka, s3).
        """
        self.figures.faults += 1
        self.oracle.note("fault", fault=what, **more)

    def over(self, what: str) -> None:
        """A fault that lasted is over."""
        self.oracle.note("fault over", fault=what)

    async def progress(
        self, topic: Topic | Iterable[Topic], more: int, within: float = 120
    ) -> None:
        """Wait for ``more`` further distinct events on a topic, or on several together: gate every
        kill on it.

        Raises:
            AssertionError: they did not come.
        """
        await self.watch.more(topic, more, within)

    async def ended(self, job_ids: Iterable[str] | None = None, within: float = 300) -> None:
        """Wait for the completed events of these jobs; of all that were acknowledged by default.

        Raises:
            AssertionError: one did not come.
        """
        wanted = self.oracle.acknowledged if job_ids is None else job_ids
        await self.watch.end_of(list(wanted), within)
