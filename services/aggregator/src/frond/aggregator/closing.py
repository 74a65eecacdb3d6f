"""The job stage's effect: from stored outcomes to the job's results and its completed event.

Which images a job has, and whether it was cancelled, is stored first and only once
(``closing.json``); the results are a function of that; the completed event is stored only once
(``completed.json``) and sent as it is stored. Two workers that close one job write the same bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from frond.aggregator import metrics, room
from frond.aggregator.ending import Ids, Roster, Sums, completed_event
from frond.aggregator.imaging import Imaging
from frond.aggregator.spill import Outcomes
from frond.artifacts import Legend, write_job_artifacts
from frond.bus import EventProducer, Outgoing
from frond.contracts import keys, topics
from frond.contracts.envelope import Headers, encode, new_traceparent
from frond.contracts.errors import ModelRejected, ObjectMissing
from frond.contracts.events import JobCompleted, JobStatusChanged
from frond.contracts.jobs import Artifact, ImageOutcome, JobSpec, Timings
from frond.contracts.modelspec import ModelManifest
from frond.runtime import crash_point, get_logger
from frond.store import ObjectStore

SOURCE: Final = "/frond/aggregator"
_READS: Final = 16
_BATCH: Final = 512
_AT_ONCE: Final = 2
_ENDED: Final = 10_000
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Ended:
    """A completed event that is stored.

    Attributes:
        raw: as it is stored.
        waits: whether the job's spec names somebody who is to be told.
    """

    raw: bytes
    event: JobCompleted
    waits: bool


class Closing:
    """Ends jobs. Safe to run twice, at once, and beside a zombie.

    Attributes:
        quiet: awaited before a job's last word is said: nothing of it is being sent any more.
    """

    def __init__(self, store: ObjectStore, producer: EventProducer, imaging: Imaging) -> None:
        self.store = store
        self.producer = producer
        self.imaging = imaging
        # each holds a thread that waits for others
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self.quiet: Callable[[str], Awaitable[None]] | None = None
        # in the order in which they ended
        self._ended: dict[str, None] = {}

    def has_ended(self, job_id: str) -> bool:
        """Whether this process has said the job's last word, or is about to; of the latest jobs."""
        return job_id in self._ended

    def forget(self, job_id: str) -> None:
        """The job was deleted and has begun anew."""
        self._ended.pop(job_id, None)

    async def size(self, job_id: str, said: int) -> int:
        """The job's size as stored; what was said now, if nothing was stored before."""
        # whoever says it has stored it, as a rule
        raw = await self.store.get_or_put(
            keys.job_sealed(job_id), json.dumps({"job_size": said}).encode()
        )
        crash_point("aggregator.size-stored")
        return int(json.loads(raw)["job_size"])

    async def stored_size(self, job_id: str) -> int | None:
        """The job's size as stored, if it is sealed."""
        try:
            return int(json.loads(await self.store.get(keys.job_sealed(job_id)))["job_size"])
        except ObjectMissing:
            return None

    async def completed(self, job_id: str) -> JobCompleted | None:
        """The stored completed event, if the job has ended."""
        try:
            raw = await self.store.get(keys.job_completed(job_id))
        except ObjectMissing:
            return None
        return JobCompleted.model_validate_json(raw)

    async def close(
        self,
        job_id: str,
        images: Iterable[bytes],
        *,
        size: int | None,
        cancelled: bool,
        timings: Timings,
        traceparent: str | None = None,
    ) -> bool:
        """Write a job's results, store and send its completed event, drop its open marker.

        Args:
            images: packed ids of its finished images.

        Returns:
            Whether the job has ended; False when an outcome is missing: nothing is sent then.

        Raises:
            StoreUnavailable: the store is away, or this machine's disk has no room just now.
        """
        with room.needed_for("a job's outcomes"):
            ended = await self._write(job_id, images, size, cancelled, timings)
        if ended is None:
            return False
        await self._deliver(ended, traceparent)
        return True

    async def _write(
        self,
        job_id: str,
        images: Iterable[bytes],
        size: int | None,
        cancelled: bool,
        timings: Timings,
    ) -> _Ended | None:
        began = time.monotonic()
        mine = Roster.of(images, size, cancelled)
        with Outcomes() as outcomes:
            # another worker's roster may be there: then these are not the ones
            over, roster, whole, spec = await asyncio.gather(
                self.store.exists(keys.job_completed(job_id)),
                self._roster(job_id, mine),
                self._read(job_id, mine.ids(), outcomes),
                self._spec(job_id),
            )
            if over:
                return await self._stored(job_id)
            ids = roster.ids()
            if not roster.cancelled and len(ids) != roster.size:
                # only a ledger that was taken apart by hand comes here
                _log.error("a job would close with a hole", job_id=job_id, images=len(ids))
                await self.store.delete(roster_key(job_id))
                crash_point("aggregator.roster-deleted")
                return None
            if roster.images != mine.images:
                outcomes.clear()
                whole = await self._read(job_id, ids, outcomes)
            if not whole:
                return None
            sums = await asyncio.to_thread(Sums.over, outcomes)
            async with self._slots:
                artifacts = await self._artifacts(job_id, outcomes, spec)
        event = completed_event(job_id, roster, sums, artifacts, spec, timings, datetime.now(UTC))
        raw = await self.store.put_if_absent(
            keys.job_completed(job_id), event.model_dump_json(exclude_none=True).encode()
        )
        crash_point("aggregator.completed-stored")
        stored = JobCompleted.model_validate_json(raw)
        metrics.CLOSING.observe(time.monotonic() - began)
        metrics.JOBS.labels(stored.outcome.value).inc()
        _log.info(
            "job completed", job_id=job_id, status=stored.status.value,
            images=stored.images.model_dump(), took_s=round(time.monotonic() - began, 3),
        )  # fmt: skip
        return _Ended(raw, stored, _waits(spec))

    async def _roster(self, job_id: str, mine: Roster) -> Roster:
        raw = await self.store.put_if_absent(roster_key(job_id), mine.model_dump_json().encode())
        crash_point("aggregator.roster-stored")
        return Roster.model_validate_json(raw)

    async def _read(self, job_id: str, ids: Ids, outcomes: Outcomes) -> bool:
        reading = asyncio.Semaphore(_READS)

        async def one(image: str) -> ImageOutcome | None:
            async with reading:
                return await self.imaging.outcome(job_id, image)

        for start in range(0, len(ids), _BATCH):
            found = await asyncio.gather(*(one(i) for i in ids.part(start, start + _BATCH)))
            there = [o for o in found if o is not None]
            if len(there) < len(found):
                _log.error("outcomes are missing", job_id=job_id, missing=len(found) - len(there))
                return False
            await asyncio.to_thread(outcomes.add, there)
        return True

    async def _spec(self, job_id: str) -> JobSpec | None:
        try:
            return JobSpec.model_validate_json(await self.store.get(keys.job_spec(job_id)))
        except ObjectMissing:
            return None

    async def _artifacts(
        self, job_id: str, outcomes: Outcomes, spec: JobSpec | None
    ) -> Sequence[Artifact]:
        return await write_job_artifacts(
            self.store, job_id, outcomes, spec, await self._legend(job_id, spec),
            stored=lambda name: crash_point(f"aggregator.results-{name}"),
        )  # fmt: skip

    async def _legend(self, job_id: str, spec: JobSpec | None) -> Legend | ModelManifest | None:
        legend = await self.imaging.legend(job_id)
        if legend is not None or spec is None:
            return legend
        # no image was merged since there are legends; a model that was removed must not keep the job open
        with contextlib.suppress(ModelRejected):
            return await self.imaging.registry.manifest(spec.model)
        return None

    async def deliver(self, job_id: str, traceparent: str | None = None) -> None:
        """Send a stored completed event as it is stored, and the final status."""
        await self._deliver(await self._stored(job_id), traceparent)

    async def tell_deleted(self, job_id: str) -> None:
        """Say of a job that was deleted that it is gone, after whatever was said of it since."""
        await self._quiet(job_id)
        await self.producer.send_raw(topics.STATUS, job_id.encode(), None, [])

    async def _stored(self, job_id: str) -> _Ended:
        raw, spec = await asyncio.gather(
            self.store.get(keys.job_completed(job_id)), self._spec(job_id)
        )
        return _Ended(raw, JobCompleted.model_validate_json(raw), _waits(spec))

    async def _deliver(self, ended: _Ended, traceparent: str | None) -> None:
        event, job_id = ended.event, ended.event.job_id
        # whatever ends a job comes here: no snapshot may follow the last word
        self._ended[job_id] = None
        while len(self._ended) > _ENDED:
            del self._ended[next(iter(self._ended))]
        headers, _, _ = await asyncio.gather(
            self._headers(event, traceparent), self._note_untold(ended), self._quiet(job_id)
        )
        await self.producer.send_raw(topics.COMPLETED, job_id.encode(), ended.raw, headers)
        crash_point("aggregator.completed-sent")
        final = JobStatusChanged(
            job_id=job_id,
            status=event.status,
            images=event.images,
            windows=event.windows,
            detections=event.detections,
            updated=event.finished or datetime.now(UTC),
        )
        await self.producer.send(Outgoing(topics.STATUS, final))
        crash_point("aggregator.status-sent")
        await self.store.delete(keys.open_marker(job_id))
        crash_point("aggregator.marker-deleted")

    async def _quiet(self, job_id: str) -> None:
        if self.quiet is not None:
            await self.quiet(job_id)

    async def _note_untold(self, ended: _Ended) -> None:
        """A broker that loses the event must not lose its webhook."""
        job_id = ended.event.job_id
        if ended.waits or await self._somebody_waits(job_id):
            await self.store.put(keys.untold_marker(job_id), b"{}", "application/json")
            crash_point("aggregator.untold-stored")

    async def _somebody_waits(self, job_id: str) -> bool:
        with contextlib.suppress(ObjectMissing):
            to = json.loads(await self.store.get(keys.job_notify(job_id)))
            return bool(to.get("webhook_url") or to.get("email"))
        return False

    async def _headers(self, event: JobCompleted, traceparent: str | None) -> Headers:
        """The event's headers, stored at the first sending so that all others are the same."""
        mine = encode(
            event, source=SOURCE, traceparent=traceparent or new_traceparent(),
            time=event.finished,
        ).headers  # fmt: skip
        raw = await self.store.put_if_absent(
            headers_key(event.job_id), json.dumps([[k, v.decode()] for k, v in mine]).encode()
        )
        crash_point("aggregator.headers-stored")
        return [(str(k), str(v).encode()) for k, v in json.loads(raw)]


def _waits(spec: JobSpec | None) -> bool:
    return spec is not None and bool(spec.webhook_url or spec.email)


def roster_key(job_id: str) -> str:
    """Where it is kept which images a job is closed with."""
    return f"{keys.job_prefix(job_id)}closing.json"


def headers_key(job_id: str) -> str:
    """Where the completed event's headers are kept."""
    return f"{keys.job_prefix(job_id)}completed.headers.json"
