"""The service put together: Kafka, MinIO, models, HTTP. Decides nothing."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI

from frond.auth import Gate
from frond.bus import EventProducer, Outgoing, consume, ensure_topics
from frond.contracts import keys, topics
from frond.contracts.envelope import Envelope
from frond.contracts.errors import JobRejected
from frond.contracts.events import ChunkPlanned, DriftObserved
from frond.contracts.ids import parse_s3_uri
from frond.contracts.reasons import Reason
from frond.drift import Periods
from frond.inference import metrics
from frond.inference.api import Predictor, make_app
from frond.inference.deaths import Deaths
from frond.inference.decoding import Decoded, Image, decode, warm_up
from frond.inference.drifting import Drifting
from frond.inference.models import ModelCache
from frond.inference.pipeline import Runner
from frond.inference.settings import InferenceSettings
from frond.inference.shadowing import Shadowing
from frond.inference.warming import Warming
from frond.inference.worker import Worker
from frond.merge import warm_up as warm_up_rows
from frond.models import Registry
from frond.models.aliases import Aliases
from frond.raster import Block, WindowPixels, configure_gdal, read_block
from frond.raster.sandbox import PAUSES_S, Sandbox
from frond.runtime import Service, clear_folders, folder_on_disk, get_logger, wait_out
from frond.store import Marks, ObjectStore, StoreSettings

SOURCE: Final = "/frond/inference"
_COPY: Final = "inference-copy"
_SHADOWS: Final = 2
"""Shadows in memory, beside the models."""
_SHADOWLESS_S: Final = 5.0
"""The end of a drain: no shadow is waited for any more, that is noted, and chunks' events are sent."""
_log = get_logger(__name__)


class StoreResults:
    """The worker's view of the object store."""

    def __init__(self, store: ObjectStore, buckets: frozenset[str], scratch: Path) -> None:
        self._store = store
        self._scratch = scratch
        clear_folders(scratch, _COPY)
        self._buckets = buckets
        self._marks = Marks(store)

    async def get(self, key: str) -> bytes:
        return await self._store.get(key)

    async def put_if_absent(self, key: str, data: bytes, content_type: str) -> bytes:
        return await self._store.put_if_absent(key, data, content_type)

    def check(self, uri: str) -> None:
        bucket, _ = parse_s3_uri(uri)
        if bucket not in self._buckets:
            raise JobRejected(
                Reason.BUCKET_NOT_ALLOWED,
                f"Rasters may not lie in the bucket {bucket}. Ask whoever runs this installation "
                "to add it to FROND_ALLOWED_BUCKETS.",
            )

    async def etag(self, uri: str) -> str:
        self.check(uri)
        bucket, key = parse_s3_uri(uri)
        return (await self._store.stat(key, bucket=bucket)).etag

    @asynccontextmanager
    async def copy(self, uri: str) -> AsyncIterator[Path]:
        """A raster as a local file, surely whole; gone on leaving."""
        bucket, key = parse_s3_uri(uri)
        with folder_on_disk(self._scratch, _COPY) as folder:
            whole = folder / "whole.tif"
            await self._store.get_file(key, whole, bucket=bucket)
            yield whole

    async def is_cancelled(self, job_id: str) -> bool:
        """Whether the job was cancelled, as of a few seconds ago."""
        return await self._marks.there(keys.job_cancelled(job_id))


class Inference:
    """One process's parts, made once; ``consume_chunks`` and ``app`` are what ``serve`` is given.

    Args:
        read, decode: what readers do with a chunk's raster, and with an image of /predict.
    """

    def __init__(
        self,
        settings: InferenceSettings,
        *,
        read: Callable[[Block], list[WindowPixels]] = read_block,
        decode: Callable[[Image], Decoded] = decode,
    ) -> None:
        self.settings = settings
        secret = settings.s3_secret_key.get_secret_value()
        self.store = ObjectStore(
            StoreSettings(
                endpoint=settings.s3_endpoint,
                access_key=settings.s3_access_key,
                secret_key=secret,
                bucket=settings.s3_bucket,
                region=settings.s3_region,
            )
        )
        # reader processes inherit this
        configure_gdal(
            settings.s3_endpoint, settings.s3_access_key, secret,
            region=settings.s3_region, cache_mb=settings.gdal_cache_mb,
        )  # fmt: skip
        self.registry = Registry(self.store, default_model=settings.default_model)
        self.models = self._cache(capacity=settings.models_loaded, tuning_s=settings.tuning_s)
        self.warming = Warming(self.models, Aliases(self.store))
        self.runner = Runner(settings.chunks_in_flight + settings.predict_at_once)
        self.readers = _sandbox(settings, settings.inference_readers, "chunk")
        # of their own: a request is not kept waiting by a job's chunks, nor for long by a shortage
        self.decoders = _sandbox(settings, settings.predict_readers, "predict", (1.0,))
        self.drifting = _drifting(settings)
        timeout = settings.inference_read_timeout_s
        results = StoreResults(self.store, settings.buckets, settings.cache)
        self.shadows = Shadowing(
            results,
            # beside the others: a shadow costs no model its place
            self._cache(capacity=_SHADOWS, loaded=metrics.SHADOWS_LOADED),
            Runner(1, metrics.SHADOW_WINDOWS),
            timeout_s=settings.shadow_timeout_s,
            max_detections=settings.max_detections,
        )
        self.deaths = Deaths(settings.cache / "inference-deaths")
        self.worker = Worker(
            results,
            self.models,
            self.runner,
            lambda block: self.readers.run(read, block, timeout),
            readers=settings.inference_readers,
            in_flight=settings.chunks_in_flight,
            max_detections=settings.max_detections,
            patience_s=settings.model_patience_s,
            watch=self.drifting,
            shadows=self.shadows,
            deaths=self.deaths,
        )
        gate = Gate(settings, self.store, _log.warning)
        self.predictor = Predictor(
            settings, self.models, self.runner, gate,
            lambda image: self.decoders.wait(decode, image, timeout), self.warming.choose,
        )  # fmt: skip

    def _cache(self, **more: Any) -> ModelCache:
        settings = self.settings
        return ModelCache(
            self.registry, settings.cache, threads=settings.threads, batch=settings.batch,
            providers=[p.strip() for p in settings.providers.split(",") if p.strip()],
            servers=settings.servers, **more,
        )  # fmt: skip

    def close(self) -> None:
        """Stop every thread and reader; what runs is abandoned."""
        self.close_chunks()
        self.close_rest()

    def close_chunks(self) -> None:
        """Stop what only chunks need."""
        self.readers.close()
        self.worker.close()
        self.deaths.close()
        self.shadows.close()
        if self.drifting is not None:
            self.drifting.close()

    def close_rest(self) -> None:
        """Stop what requests need, too; chunks are closed."""
        self.decoders.close()
        self.predictor.close()
        self.runner.close()
        self.store.close()

    def app(self, _: Service | None = None) -> FastAPI:
        """The HTTP API; at its end, when the last request is answered, all is closed."""

        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            yield
            await asyncio.to_thread(self.close)

        return make_app(lambda: self.predictor, lifespan)

    async def handle(self, envelope: Envelope) -> list[Outgoing]:
        """A planned chunk in, what it gave out."""
        event = envelope.event
        assert isinstance(event, ChunkPlanned)
        return [Outgoing(topics.DETECTED, await self.worker.handle(event))]

    async def consume_chunks(self, service: Service) -> None:
        """Run chunks until the service is asked to stop."""
        settings = self.settings
        service.health.expect("broker")
        service.health.expect("store")
        self.decoders.warm(warm_up, None)
        await asyncio.to_thread(warm_up_rows)
        producer = EventProducer(settings.kafka_bootstrap, settings.topic_prefix, SOURCE)

        async def topics_there() -> None:
            await ensure_topics(
                settings.kafka_bootstrap,
                settings.topic_prefix,
                replication_factor=settings.replication_factor,
            )

        await wait_out(topics_there, what="making topics")
        await wait_out(producer.start, what="connecting to the broker")
        service.health.ready("broker")
        await wait_out(self.store.ensure_bucket, what="looking for the bucket")
        service.health.ready("store")
        try:
            async with self._telling(producer), self._giving_up(service), self._watching():
                await consume(
                    service,
                    topics.TILED,
                    self.handle,
                    producer=producer,
                    concurrency=settings.chunks_in_flight,
                )
        finally:
            await producer.stop()
            # requests are answered to the end of the drain: what they need stays
            await asyncio.to_thread(self.close_chunks)

    @asynccontextmanager
    async def _giving_up(self, service: Service) -> AsyncIterator[None]:
        """Shadows are waited for while the service drains, but never so long that a chunk is run again."""

        async def late() -> None:
            await service.stop.wait()
            await asyncio.sleep(self.settings.finish_s - _SHADOWLESS_S)
            self.shadows.give_up()

        waiting = asyncio.create_task(late())
        try:
            yield
        finally:
            waiting.cancel()

    @asynccontextmanager
    async def _watching(self) -> AsyncIterator[None]:
        """Versions that are promoted meanwhile are loaded."""
        watching = asyncio.create_task(self.warming.watch())
        try:
            yield
        finally:
            watching.cancel()

    @asynccontextmanager
    async def _telling(self, producer: EventProducer) -> AsyncIterator[None]:
        """Drift is told of meanwhile, and at the end what there is."""
        if self.drifting is None:
            yield
            return

        async def send(event: DriftObserved) -> None:
            await producer.send(Outgoing(topics.DRIFT, event))

        telling = asyncio.create_task(self.drifting.tell(send))
        try:
            yield
        finally:
            telling.cancel()
            await asyncio.wait({telling})
            await self.drifting.finish(send)


def _drifting(settings: InferenceSettings) -> Drifting | None:
    if settings.drift == "off":
        return None
    periods = Periods(
        uuid.uuid4().hex, lambda: datetime.now(UTC), time.monotonic, settings.drift_length,
        settings.drift_bounds,
    )  # fmt: skip
    return Drifting(periods, share=settings.drift_share, without_reference=settings.drift == "all")


def _sandbox(
    settings: InferenceSettings, readers: int, what: str, pauses_s: Sequence[float] = PAUSES_S
) -> Sandbox:
    return Sandbox(
        readers,
        memory_mb=settings.inference_reader_memory_mb,
        pauses_s=pauses_s,
        lost=lambda why: metrics.READERS_LOST.labels(what, why).inc(),
    )
