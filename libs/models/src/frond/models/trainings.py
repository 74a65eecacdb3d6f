"""Training runs in the object store: asked for once, changed by one at a time.

``trainings/open/{id}``            put first and deleted last; ``told`` once its event was sent
``trainings/runs/{id}.json``       the run: the first writer says what was asked for
``trainings/listed/{time}-{id}``   marks that the store names newest first

A run without its marker has ended, or its marker is about to be there; a marker without a run is
left by a request that died, and nobody was told yes.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from frond.contracts import keys
from frond.contracts.errors import ObjectMissing
from frond.contracts.events import TrainingRequested
from frond.contracts.training import (
    TRAINING_ID_PATTERN,
    TrainingRequest,
    TrainingRun,
    TrainingStatus,
)
from frond.store import Listed, ObjectStore

_TOLD: Final = keys.TOLD
_UNTOLD: Final = b"{}"
_MOST_BYTES: Final = 1 << 20
# clocks of two machines are compared here, and alone here
_GIVEN_UP: Final = timedelta(hours=1)
_ID: Final = re.compile(TRAINING_ID_PATTERN)

Decide = Callable[[TrainingRun, str], TrainingRun | None]
"""From a run and its ETag, the run as it is to be; None: as it is."""


class UnreadableRun(ObjectMissing):
    """What is stored is no run that this version can read."""


def event_of(run: TrainingRequest) -> TrainingRequested:
    """The event that tells of a request."""
    return TrainingRequested.model_validate(
        {name: getattr(run, name) for name in TrainingRequest.model_fields}
    )


def same_request(a: TrainingRequest, b: TrainingRequest) -> bool:
    """Whether both ask for the same, whoever asked and when."""
    aside = {"requested", "requested_by"}
    fields = set(TrainingRequest.model_fields) - aside
    return all(getattr(a, name) == getattr(b, name) for name in fields)


def to_be_cancelled(run: TrainingRun, who: str, now: datetime) -> TrainingRun | None:
    """A run that is to stop: one that waits has ended with it, and so has one whose worker has been
    silent for an hour: nobody else may ever come to end it. None: there is nothing to stop."""
    last = run.updated or run.requested
    alone = run.status is TrainingStatus.RUNNING and now - last > _GIVEN_UP
    if run.status is TrainingStatus.QUEUED or alone:
        by = run.cancelled_by or who
        return run.model_copy(
            update={"status": TrainingStatus.CANCELLED, "cancelled_by": by, "ended": now}
        )
    if run.status is TrainingStatus.RUNNING and run.cancelled_by is None:
        return run.model_copy(update={"cancelled_by": who})
    return None


class Trainings:
    """All training runs of an installation."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def begin(self, wanted: TrainingRequest) -> TrainingRun:
        """Have a run of this id, and return how it stands: the first request is what counts."""
        training_id = wanted.training_id
        await self._store.put_if_absent(keys.training_open(training_id), _UNTOLD)
        fresh = TrainingRun(**dict(wanted))
        raw = await self._store.put_if_absent(
            keys.training_run(training_id), fresh.model_dump_json().encode()
        )
        run = _read(training_id, raw)
        await self._store.put_if_absent(keys.training_listed(run.requested, training_id), _UNTOLD)
        if run.status.final:
            await self.close(training_id)
        return run

    async def told(self, training_id: str) -> None:
        """Its event was sent: nobody need send it again."""
        await self._store.put(keys.training_open(training_id), _TOLD)

    async def close(self, training_id: str) -> None:
        """It has ended: nobody looks for it any more."""
        await self._store.delete(keys.training_open(training_id))

    async def get(self, training_id: str) -> TrainingRun:
        """Raises ObjectMissing."""
        return (await self._held(training_id))[1]

    async def change(self, training_id: str, decide: Decide) -> TrainingRun:
        """Change a run, and return how it stands then.

        Args:
            decide: asked again when somebody else has changed it meanwhile. What two of them make
                of one run must not be equal: each would take the other's for its own.

        Raises:
            ObjectMissing: there is no such run.
        """
        while True:
            etag, run = await self._held(training_id)
            changed = decide(run, etag)
            if changed is None or changed == run:
                return run
            data = changed.model_dump_json().encode()
            if await self._store.replace(keys.training_run(training_id), data, etag):
                return changed

    async def cancel(self, training_id: str, who: str) -> TrainingRun:
        """Have a run stop. One that waits ends at once; a running one when its worker sees it, or,
        where it has none any more, at once when this is asked for an hour later.

        Raises:
            ObjectMissing: there is no such run.
        """
        now = datetime.now(UTC)
        run = await self.change(training_id, lambda run, _: to_be_cancelled(run, who, now))
        if run.status.final:
            await self.close(training_id)
        return run

    async def page(self, after: str | None, limit: int) -> tuple[Sequence[TrainingRun], str | None]:
        """Runs, the newest first, and where the next page begins. One that cannot be read is left out."""
        names: list[str] = []
        start = f"{keys.TRAININGS_LISTED}{after}" if after else None
        more = False
        async for found in self._store.list(keys.TRAININGS_LISTED, start_after=start):
            if len(names) == limit:
                more = True
                break
            names.append(found.key.removeprefix(keys.TRAININGS_LISTED))

        async def read(name: str) -> TrainingRun | None:
            try:
                return await self.get(name.rpartition("-")[2])
            except ObjectMissing:
                return None

        found_runs = await asyncio.gather(*(read(n) for n in names))
        return [r for r in found_runs if r is not None], names[-1] if more else None

    async def waiting(self, *, untold: bool = False) -> AsyncIterator[tuple[str, Listed]]:
        """The ids of runs that have not ended, with their markers; or of those alone whose event may
        never have been sent."""
        async for found in self._store.list(keys.TRAININGS_OPEN):
            training_id = found.key.removeprefix(keys.TRAININGS_OPEN)
            if _ID.fullmatch(training_id) and not (untold and found.size == len(_TOLD)):
                yield training_id, found

    async def _held(self, training_id: str) -> tuple[str, TrainingRun]:
        stat, raw = await self._store.head_bytes(keys.training_run(training_id), _MOST_BYTES)
        return stat.etag, _read(training_id, raw)


def _read(training_id: str, raw: bytes) -> TrainingRun:
    try:
        return TrainingRun.model_validate_json(raw)
    except ValueError as e:
        raise UnreadableRun(f"training run {training_id}: {e}") from None
