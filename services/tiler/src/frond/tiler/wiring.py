"""The tiler on Kafka and the object store: the one module that knows both."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

from frond.bus import EventProducer, Outgoing, consume
from frond.bus.offsets import Offsets
from frond.contracts import keys, topics
from frond.contracts.envelope import Envelope, Headers
from frond.contracts.errors import (
    BrokerUnavailable,
    JobRejected,
    StoreUnavailable,
    UnreadableEvent,
    UserError,
)
from frond.contracts.events import ChunkPlanned, Event, ImageUploaded, JobCancelled, JobSealed
from frond.contracts.plan import ImagePlan
from frond.contracts.reasons import Reason
from frond.models.registry import Registry
from frond.raster import configure_gdal
from frond.raster.sandbox import Sandbox
from frond.runtime import (
    Service,
    clear_folders,
    crash_point,
    folder_on_disk,
    get_logger,
    wait_out,
)
from frond.store import ObjectStore, StoreSettings
from frond.tiler import metrics
from frond.tiler.backpressure import Backlog
from frond.tiler.decide import (
    given_up,
    other_model,
    other_tenant,
    planned,
    refused,
    rejected,
)
from frond.tiler.jobs import Jobs
from frond.tiler.planning import Planner
from frond.tiler.salvage import addresses, salvage
from frond.tiler.settings import TilerSettings

T = TypeVar("T")

SOURCE: Final = "/frond/tiler"
_COPIES: Final = "tiler"
_BATCH: Final = 500
_LOOK_S: Final = 1.0
_log = get_logger(__name__)


class Tiler:
    """Handles the events of the ingest topic. Any of them may come again, or be handled twice."""

    def __init__(
        self,
        settings: TilerSettings,
        store: ObjectStore,
        producer: EventProducer,
        sandbox: Sandbox,
        scratch: Path,
        backlog: Backlog | None = None,
    ) -> None:
        self.settings = settings
        self.store = store
        self.producer = producer
        self.backlog = backlog or Backlog(settings.tiled_backlog)
        # chunks in any order do: each worker is to get as many as the others
        self._turns = itertools.count()
        self.registry = Registry(store, default_model=settings.default_model)
        self.jobs = Jobs(store, self.registry)
        self.planner = Planner(settings, store, self.registry, sandbox, scratch)

    async def handle(self, envelope: Envelope) -> Sequence[Outgoing]:
        """An event of the ingest topic; what is to be sent for it, where that is little."""
        match envelope.event:
            case ImageUploaded() as event:
                return await self._image(event, envelope)
            case JobSealed() as event:
                await self.jobs.look(event.job_id)
                if await self.jobs.deleted(event.job_id):
                    return ()
                await self._keep_open(event.job_id)
                size = await self.jobs.seal(event.job_id, event.job_size)
                return _to_detected(event.model_copy(update={"job_size": size}))
            case JobCancelled() as event:
                if not await self.jobs.cancel(event.job_id):
                    # a copy that came later would bring back a job that was deleted meanwhile
                    return ()
                await self._keep_open(event.job_id)
                # past the image stage: nothing has to be merged before a job can stop
                return (Outgoing(topics.IMAGED, event),)
        return ()

    def held(self, job_id: str) -> bool:
        """Whether a job's images are to wait: planning is far ahead, and the job is not over."""
        return self.backlog.held(job_id) and not self.jobs.known_cancelled(job_id)

    async def unreadable(
        self, value: bytes | None, headers: Headers, error: UnreadableEvent
    ) -> Sequence[Outgoing]:
        """What goes to the ledger for a message of the ingest topic that is no event."""
        no = salvage(value, headers, str(error))
        if no is None or not await self._goes_on(no.job_id):
            return ()
        if (told := addresses(value, no)) is not None:
            await self.jobs.keep_addresses(told)
        if no.job_size is not None:
            await self.jobs.sealed_once(no.job_id, no.job_size)
        # an image that was sent before, and rightly, is not failed by a botched copy of its event
        if await self.store.exists(keys.image_plan(no.job_id, no.image_id)):
            return ()
        metrics.IMAGES.labels(no.reason.value).inc()
        _log.info(
            "image rejected", job_id=no.job_id, image_id=no.image_id, reason=no.reason.value,
            detail=no.detail,
        )  # fmt: skip
        return _to_detected(no)

    async def give_up(self, envelope: Envelope, _: Exception) -> Sequence[Outgoing]:
        """What goes to the ledger for an event that cannot be handled."""
        if not isinstance(envelope.event, ImageUploaded):
            return ()
        metrics.IMAGES.labels(Reason.INTERNAL.value).inc()
        return _to_detected(given_up(envelope.event))

    async def _goes_on(self, job_id: str) -> bool:
        """Whether the job takes images: it is open, or this is its first one."""
        await self.jobs.look(job_id)
        return not await self.jobs.deleted(job_id) and await self._keep_open(job_id)

    async def _keep_open(self, job_id: str) -> bool:
        await self.jobs.look(job_id)
        if await self.jobs.completed(job_id):
            return False
        await self.jobs.open(job_id)
        return True

    async def _image(self, event: ImageUploaded, envelope: Envelope) -> Sequence[Outgoing]:
        log = _log.bind(job_id=event.job_id, image_id=event.image_id, trace_id=envelope.trace_id)
        is_open, stored, seen = await asyncio.gather(
            self._goes_on(event.job_id), self.planner.stored(event), self.planner.look(event)
        )
        if not is_open:
            log.info("the job has ended: image left out", image=event.image)
            return ()
        if event.webhook_url or event.email:
            await self.jobs.keep_addresses(event)
        if event.job_size is not None:
            await self.jobs.sealed_once(event.job_id, event.job_size)
        no = refused(
            event,
            self.settings.buckets,
            self.settings.s3_bucket,
            cancelled=await self.jobs.cancelled(event.job_id),
        )
        if no is not None:
            metrics.IMAGES.labels(no.reason.value).inc()
            return _to_detected(no)
        try:
            spec = await self.jobs.pinned(event)
            no = other_model(event, spec) or other_tenant(event, spec)
            if no is not None:
                metrics.IMAGES.labels(no.reason.value).inc()
                return _to_detected(no)
            planning_s = None
            plan = ImagePlan.model_validate_json(stored) if stored is not None else None
            if plan is None:
                began = time.monotonic()
                plan = await self._unless_cancelled(
                    event.job_id, self.planner.plan(event, spec, seen)
                )
                planning_s = time.monotonic() - began
            elif await self.store.exists(keys.image_outcome(event.job_id, event.image_id)):
                log.info("the image is done already")
                return ()
        except UserError as e:
            metrics.IMAGES.labels(e.reason.value).inc()
            log.info("image rejected", reason=e.reason.value, detail=e.detail)
            return _to_detected(rejected(event, e.reason, e.detail))
        except (StoreUnavailable, BrokerUnavailable):
            raise
        except Exception as e:
            metrics.IMAGES.labels(Reason.INTERNAL.value).inc()
            log.error("planning an image failed", exc_info=e)
            return _to_detected(given_up(event))
        metrics.IMAGES.labels("planned" if plan.chunks else "empty").inc()
        log.info(
            "image planned", windows=plan.grid.count, skipped=plan.windows_skipped,
            chunks=plan.chunks, scale=plan.grid.scale,
        )  # fmt: skip
        chunks = planned(plan, event, datetime.now(UTC), planning_s)
        await self._send(chunks, envelope.traceparent)
        return ()

    async def _send(self, events: Iterable[Event], traceparent: str) -> None:
        # a large raster has tens of thousands of chunks: they are made as they are sent
        for batch in _batches(events):
            out = [
                Outgoing(topics.TILED, e, turn=next(self._turns))
                if isinstance(e, ChunkPlanned)
                else Outgoing(topics.DETECTED, e)
                for e in batch
            ]
            sent = await self.producer.send(out, traceparent=traceparent)
            for one, where in zip(batch, sent, strict=True):
                if isinstance(one, ChunkPlanned):
                    self.backlog.sent(one.job_id, *where)
            crash_point("tiler.batch-sent")
        crash_point("tiler.chunks-sent")

    async def _unless_cancelled(self, job_id: str, work: Coroutine[None, None, T]) -> T:
        """What the work gives; JobRejected (DISMISSED), and the work is stopped, once the job is."""
        task = asyncio.create_task(work)
        try:
            while not (await asyncio.wait({task}, timeout=_LOOK_S))[0]:
                with contextlib.suppress(StoreUnavailable):
                    if await self.jobs.cancelled(job_id):
                        raise JobRejected(
                            Reason.DISMISSED, "The job was cancelled while this image was read."
                        )
            return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _to_detected(event: Event) -> Sequence[Outgoing]:
    return (Outgoing(topics.DETECTED, event),)


def _batches(events: Iterable[Event]) -> Iterator[list[Event]]:
    rest = iter(events)
    while batch := list(itertools.islice(rest, _BATCH)):
        yield batch


def readers(settings: TilerSettings) -> Sandbox:
    """The processes that open rasters."""
    return Sandbox(
        settings.tiler_readers,
        memory_mb=settings.tiler_reader_memory_mb,
        lost=lambda why: metrics.READERS_LOST.labels(why).inc(),
    )


async def tile(service: Service) -> None:
    """The tiler's one part: consume the ingest topic until the service is asked to stop."""
    settings = service.settings
    assert isinstance(settings, TilerSettings)
    service.health.expect("broker")
    secret = settings.s3_secret_key.get_secret_value()
    # reader processes inherit this
    configure_gdal(settings.s3_endpoint, settings.s3_access_key, secret, region=settings.s3_region)
    store = ObjectStore(
        StoreSettings(
            endpoint=settings.s3_endpoint,
            access_key=settings.s3_access_key,
            secret_key=secret,
            bucket=settings.s3_bucket,
            region=settings.s3_region,
        )
    )
    producer = EventProducer(settings.kafka_bootstrap, settings.topic_prefix, SOURCE)
    sandbox = readers(settings)
    await asyncio.to_thread(clear_folders, settings.cache, _COPIES)
    held = contextlib.ExitStack()
    scratch = await asyncio.to_thread(held.enter_context, folder_on_disk(settings.cache, _COPIES))
    offsets = Offsets(settings.kafka_bootstrap, settings.topic_prefix)
    looking: asyncio.Task[None] | None = None
    try:
        await wait_out(producer.start, what="connecting to the broker")
        service.health.ready("broker")
        tiler = Tiler(settings, store, producer, sandbox, scratch)
        group = settings.group("inference")
        looking = asyncio.create_task(
            tiler.backlog.keep(lambda: offsets.lag(group, topics.TILED), metrics.show_backlog)
        )
        await consume(
            service,
            topics.UPLOADED,
            tiler.handle,
            producer=producer,
            concurrency=settings.tiler_images,
            unreadable=tiler.unreadable,
            give_up=tiler.give_up,
            held=tiler.held,
            at_once=(JobCancelled.TYPE,),
        )
    finally:
        if looking is not None:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
        await offsets.close()
        sandbox.close()
        await producer.stop()
        store.close()
        await asyncio.to_thread(held.close)
