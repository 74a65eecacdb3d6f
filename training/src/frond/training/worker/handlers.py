"""What becomes of the events that the worker reads; each may come twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from frond.bus import Outgoing
from frond.contracts import topics
from frond.contracts.envelope import Envelope
from frond.contracts.events import DriftObserved, TrainingRequested
from frond.models.trainings import Trainings, event_of
from frond.training.worker.watch import DriftWatch


class Handlers:
    """Requests and drift, each handled in a moment.

    Args:
        wake: set when there may be something to train.
    """

    def __init__(self, trainings: Trainings, watch: DriftWatch, wake: asyncio.Event) -> None:
        self._trainings = trainings
        self._watch = watch
        self._wake = wake

    async def requested(self, envelope: Envelope) -> Sequence[Outgoing]:
        """A request: there is a run of it from now on, and nobody need tell of it again."""
        if isinstance(envelope.event, TrainingRequested):
            run = await self._trainings.begin(envelope.event)
            if not run.status.final:
                await self._trainings.told(run.training_id)
            self._wake.set()
        return ()

    async def observed(self, envelope: Envelope) -> Sequence[Outgoing]:
        """A period of drift: the request that it asks for, if it asks for one."""
        run = None
        if isinstance(envelope.event, DriftObserved):
            run = await self._watch.saw(envelope.event)
        return () if run is None else [Outgoing(topics.TRAINING, event_of(run))]
