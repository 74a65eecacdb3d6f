"""The two stages: an event, a table, the store's effects, and the events out.

A table is any mapping of bytes to bytes: Faust's in the service. It only saves looking into the
store; whatever it has forgotten, the store tells.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Final

from frond.aggregator import images, jobs, metrics
from frond.aggregator.closing import Closing
from frond.aggregator.imaging import Imaging
from frond.bus import EventProducer, Outgoing
from frond.contracts import keys, topics
from frond.contracts.envelope import Envelope
from frond.contracts.errors import ObjectMissing
from frond.contracts.events import (
    ChunkDetected,
    Event,
    ImageEmpty,
    ImageFinished,
    ImageRejected,
    JobCancelled,
    JobEvent,
    JobSealed,
    JobStatusChanged,
)
from frond.contracts.reasons import Reason
from frond.runtime import crash_point, get_logger

Table = MutableMapping[bytes, bytes]

_INTERNAL: Final = (
    "Frond itself failed on this image; its operator finds why in the logs and among the dead "
    "letters. Sending the image again is worth a try."
)
_log = get_logger(__name__)


class ImageStage:
    """Events of ``detected``, keyed by image: each image's outcome goes to ``imaged``."""

    def __init__(self, table: Table, imaging: Imaging, producer: EventProducer) -> None:
        self.table = table
        self.imaging = imaging
        self.producer = producer

    async def handle(self, envelope: Envelope) -> None:
        """Take an event in; what follows from it is stored and sent when this returns."""
        event = envelope.event
        match event:
            case ChunkDetected():
                await self._chunk(event, envelope.traceparent)
            case ImageRejected():
                await self._tell(await self.imaging.reject(event), envelope.traceparent)
                self._forget(event.image_id)
            case ImageEmpty():
                finished = await self.imaging.empty(event)
                if finished is None:
                    metrics.STRANGERS.inc()
                await self._tell(finished, envelope.traceparent)
                self._forget(event.image_id)
            case JobSealed() | JobCancelled():
                await self._tell(event, envelope.traceparent)
            case _:
                raise TypeError(f"{event.TYPE} on {topics.DETECTED.name}")

    async def give_up(self, envelope: Envelope) -> None:
        """Close the ledger of an image whose event cannot be handled."""
        event = envelope.event
        if isinstance(event, ChunkDetected | ImageRejected | ImageEmpty):
            # the trace is another one in every run: it must not get into what is stored
            _log.error(
                "an image is given up", job_id=event.job_id, image_id=event.image_id,
                trace_id=envelope.trace_id,
            )  # fmt: skip
            finished = await self.imaging.fail(
                event.job_id, event.image_id, event.image, event.name, Reason.INTERNAL,
                _INTERNAL, event.job_size,
            )  # fmt: skip
            await self._tell(finished, envelope.traceparent)
            self._forget(event.image_id)

    async def _chunk(self, event: ChunkDetected, traceparent: str) -> None:
        key = event.image_id.encode()
        # an image of one chunk is looked up when it is finished
        if key not in self.table and event.chunks > 1:
            outcome = await self.imaging.outcome(event.job_id, event.image_id)
            if outcome is not None:
                finished = await self.imaging.finish(
                    event.job_id, event.image_id, job_size=event.job_size
                )
                await self._tell(finished, traceparent)
                return
        if images.has_failed(event) and not await self.imaging.note_failure(event):
            self._forget(event.image_id)
            return
        decision = images.apply(self._state(key), event)
        if decision.next is images.Next.ASK:
            plan = await self.imaging.plan(event.job_id, event.image_id)
            known = images.Stored(plan.plan_digest, plan.chunks) if plan else images.NOTHING
            decision = images.apply(self._state(key), event, known)
        if decision.next is images.Next.IGNORE:
            metrics.STRANGERS.inc()
            _log.warning(
                "a chunk of another plan is ignored", job_id=event.job_id,
                image_id=event.image_id, plan=event.plan_digest,
            )  # fmt: skip
            return
        state = decision.state
        assert state is not None
        if decision.next is not images.Next.FINISH:
            self.table[key] = state.to_bytes()
            crash_point("aggregator.chunk-counted")
            return
        # the state of a whole image is not written: the event counts as unread until it is finished
        finished = await self.imaging.finish(
            event.job_id, event.image_id, timings=state.timings, job_size=event.job_size,
            seen="" if state.failed else state.plan, unless_cancelled=True,
        )  # fmt: skip
        if finished is None:
            # the job ends without this image, or the state belongs to a plan that is not the stored
            # one, or objects were taken away: what is true is found by the reconciler
            self._forget(event.image_id)
            return
        await self._tell(finished, traceparent)
        self._forget(event.image_id)

    def _state(self, key: bytes) -> images.ImageState | None:
        raw = self.table.get(key)
        return images.ImageState.from_bytes(raw) if raw else None

    def _forget(self, image_id: str) -> None:
        key = image_id.encode()
        if key in self.table:
            del self.table[key]
            crash_point("aggregator.image-forgotten")

    async def _tell(self, event: Event | None, traceparent: str) -> None:
        if event is not None:
            await self.producer.send(Outgoing(topics.IMAGED, event), traceparent=traceparent)
            crash_point("aggregator.imaged-sent")


class JobStage:
    """Events of ``imaged``, keyed by job: a job that is whole is closed."""

    def __init__(self, table: Table, closing: Closing) -> None:
        self.table = table
        self.closing = closing
        self._tallies: dict[str, jobs.Tally] = {}
        # which buckets of a job are there, beside its tally: there are thousands to look for
        self._filled: dict[str, set[str]] = {}

    async def handle(self, envelope: Envelope) -> bool:
        """Take an event in; a job that it completes is closed when this returns.

        Returns:
            Whether there is something new to tell of the job.
        """
        event = envelope.event
        assert isinstance(event, JobEvent)
        job_id = event.job_id
        record = self.record(job_id)
        # a record may outlive its job: the reconciler closes jobs too, here or where the partition
        # was before; and who deletes one waits for us only so long
        doubtful = record is None or job_id not in self._tallies or self.closing.has_ended(job_id)
        if doubtful or isinstance(event, JobCancelled):
            if await self._over(event, envelope.traceparent):
                self._drop(job_id)
                return False
            if isinstance(event, JobCancelled) and not await self._is_open(job_id):
                self._drop(job_id)
                # it may have ended between the two looks: its marker goes after that is stored
                if await self.closing.completed(job_id) is None:
                    await self.closing.tell_deleted(job_id)
                return False
            self.closing.forget(job_id)
        if record is None:
            record = await self._begin(job_id, event)
        if record is None:
            return False
        record = await self._taken(record, event)
        tally = self.tally(job_id)
        if jobs.decide(record, tally.images) is jobs.Next.CLOSE:
            await self._close(job_id, record, tally, envelope.traceparent)
            return False
        return True

    async def give_up(self, envelope: Envelope) -> None:
        """Nothing more can be done: the reconciler goes on with what the store holds."""

    def record(self, job_id: str) -> jobs.JobRecord | None:
        """What the table holds of a job that has not ended."""
        raw = self.table.get(jobs.record_key(job_id))
        return jobs.JobRecord.from_bytes(raw) if raw else None

    def tally(self, job_id: str) -> jobs.Tally:
        """A job's sums, derived from its sets once and kept until the partitions move."""
        tally = self._tallies.get(job_id)
        if tally is None:
            tally = jobs.Tally.over(b for _, b in self._buckets(job_id))
            self._tallies[job_id] = tally
        return tally

    def forget_tallies(self) -> None:
        """The tables were given other contents."""
        self._tallies.clear()
        self._filled.clear()

    def snapshot(self, job_id: str) -> JobStatusChanged | None:
        """The job's status of now; None when it has ended."""
        record = self.record(job_id)
        if record is None or self.closing.has_ended(job_id):
            return None
        return jobs.running(job_id, record, self.tally(job_id), datetime.now(UTC))

    async def _over(self, event: JobEvent, traceparent: str) -> bool:
        """Whether the job has ended; the end is told again if that may not have happened."""
        if await self.closing.completed(event.job_id) is None:
            return False
        if await self.closing.store.exists(keys.open_marker(event.job_id)):
            await self.closing.deliver(event.job_id, traceparent)
        elif isinstance(event, ImageFinished):
            metrics.LATE.inc()
            _log.info(
                "an image of a job that has ended is ignored",
                job_id=event.job_id, image_id=event.outcome.image_id,
            )  # fmt: skip
        return True

    async def _is_open(self, job_id: str) -> bool:
        # without its marker it has ended and was deleted: a second cancellation is late
        return await self.closing.store.exists(keys.open_marker(job_id))

    async def _begin(self, job_id: str, event: JobEvent) -> jobs.JobRecord | None:
        """A job's first record; None: it was deleted, and this came late."""
        store, marker = self.closing.store, keys.open_marker(job_id)
        try:
            # whoever began the job made it
            await store.get(marker)
        except ObjectMissing:
            # of a job that was deleted its cancellation alone is left
            late = not isinstance(event, JobCancelled)
            if late and await store.exists(keys.job_cancelled(job_id)):
                metrics.LATE.inc()
                _log.info("an event of a job that was deleted is ignored", job_id=job_id)
                return None
            # without one nothing would tell after a crash that the completed event may not have been
            # sent
            await store.put_if_absent(marker, b"{}")
        crash_point("aggregator.job-marked")
        return jobs.JobRecord()

    async def _taken(self, record: jobs.JobRecord, event: JobEvent) -> jobs.JobRecord:
        job_id, said = event.job_id, None
        match event:
            case ImageFinished():
                said = event.job_size
                self._add(event)
            case JobSealed():
                said = event.job_size
            case JobCancelled():
                size = record.size or await self.closing.stored_size(job_id)
                record = replace(record, size=size, cancelled=True)
            case _:
                raise TypeError(f"{event.TYPE} on {topics.IMAGED.name}")
        if said is not None and record.size is None:
            record = replace(record, size=await self.closing.size(job_id, said))
        if said is not None and said != record.size:
            _log.warning("a job's size does not change", job_id=job_id, size=record.size, said=said)
        raw = record.to_bytes()
        if self.table.get(jobs.record_key(job_id)) != raw:
            self.table[jobs.record_key(job_id)] = raw
            crash_point("aggregator.record-changed")
        return record

    def _add(self, event: ImageFinished) -> None:
        job_id = event.job_id
        prefix, before = jobs.place(event.outcome.image_id, partial(self._bucket, job_id))
        after = before.add(event)
        if after is before:
            return
        tally = self.tally(job_id)
        self._filled[job_id].add(prefix)
        self.table[jobs.bucket_key(job_id, prefix)] = after.to_bytes()
        crash_point("aggregator.image-counted")
        self._tallies[job_id] = tally.plus(jobs.Bucket().add(event))

    def _bucket(self, job_id: str, prefix: str) -> jobs.Bucket:
        raw = self.table.get(jobs.bucket_key(job_id, prefix))
        return jobs.Bucket.from_bytes(raw) if raw else jobs.Bucket()

    def _buckets(self, job_id: str) -> Iterator[tuple[bytes, jobs.Bucket]]:
        for key in self._bucket_keys(job_id):
            raw = self.table.get(key)
            if raw:
                yield key, jobs.Bucket.from_bytes(raw)

    def _bucket_keys(self, job_id: str) -> list[bytes]:
        filled = self._filled.get(job_id)
        if filled is None:
            filled = self._filled[job_id] = set(jobs.held(job_id, self.table.get))
        return [jobs.bucket_key(job_id, prefix) for prefix in sorted(filled)]

    async def _close(
        self, job_id: str, record: jobs.JobRecord, tally: jobs.Tally, traceparent: str
    ) -> None:
        ended = await self.closing.close(
            job_id,
            (image for _, b in self._buckets(job_id) for image in b.completed | b.failed),
            size=record.size,
            cancelled=record.cancelled,
            timings=tally.timings,
            traceparent=traceparent,
        )
        if not ended:
            # outcomes that the table counts are not in the store: begin again from the store
            _log.error("the ledger and the store disagree", job_id=job_id)
        self._drop(job_id)

    def _drop(self, job_id: str) -> None:
        # the record first: whatever is left when we are killed here is no job any more, and the
        # event, when it comes again, finds that the job is over
        self._tallies.pop(job_id, None)
        if self.table.get(jobs.record_key(job_id)) is None:
            self._filled.pop(job_id, None)
            return
        del self.table[jobs.record_key(job_id)]
        crash_point("aggregator.record-dropped")
        # a bucket that others went past is found before these, and goes after them
        for key in sorted(self._bucket_keys(job_id), reverse=True):
            if key in self.table:
                del self.table[key]
                crash_point("aggregator.images-dropped")
        self._filled.pop(job_id, None)
