"""The consumers, each as its service puts it together, over an object store in memory.

A target takes an input, hands its messages to the consumer one after the other, and raises when
a law is broken. Everything begins anew with each input.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from frond.bus.ahead import job_of
from frond.bus.handling import Handling
from frond.contracts import keys, topics
from frond.contracts.envelope import decode, encode
from frond.contracts.errors import RasterRejected, UnreadableEvent
from frond.contracts.jobs import ImageOutcome, ImageStatus, WindowCounts
from frond.contracts.plan import ImagePlan
from frond.contracts.reasons import Reason
from frond.contracts.topics import Topic
from frond.models import Registry
from fuzz.laws import CheckingProducer, check_names, checked, round_trip, strict
from fuzz.memory import BUCKET, MemoryStore
from fuzz.places import JOB, TIFF, model, model_folder, plan_of, planned, runner, scratch
from fuzz.raw import Raw, unpack

Target = Callable[[bytes], None]


def _letters(topic: Topic, messages: list[Raw], producer: CheckingProducer) -> None:
    """As many dead letters as messages that cannot be read, at least; and no read one is lost."""
    for message in messages:
        job_of(message.value)
        try:
            envelope = decode(topic, message.value, message.headers)
        except UnreadableEvent as e:
            assert str(e)
            assert any(d.offset == message.offset for d in producer.letters), "no dead letter"
        else:
            round_trip(topic, envelope)


def _consumer(
    topic: Topic, data: bytes, make: Callable[[MemoryStore, CheckingProducer], Any],
    objects: dict[str, bytes],
) -> None:  # fmt: skip
    store, producer = _store(), CheckingProducer()
    store.seed({**model()[1], **objects})
    messages = unpack(data)

    async def run() -> None:
        deliver = make(store, producer)
        for message in messages:
            await deliver(message)
            # a second time: everything may come again
            if len(messages) < 3:
                await deliver(message)

    def work() -> None:
        runner()(run())
        _letters(topic, messages, producer)
        check_names(store.memory.written)

    checked(work)


@cache
def _store() -> MemoryStore:
    return MemoryStore()


# -- tiler -------------------------------------------------------------------------------------


class _Planner:
    """In the place of reader processes: plans any raster that is there, refuses some."""

    async def run(self, _: Any, task: Any, *__: Any, **___: Any) -> ImagePlan:
        r = task.request
        if r.size == 0:
            raise RasterRejected(Reason.EMPTY_FILE, "The file has no bytes. Export it again.")
        plan = plan_of(r.job_id, r.image_id, r.image, r.name)
        return plan.model_copy(update={"thresholds": r.thresholds})


def tiler(data: bytes) -> None:
    """frond.uploaded.v1"""
    from frond.tiler.settings import TilerSettings
    from frond.tiler.wiring import Tiler

    settings = TilerSettings(s3_bucket=BUCKET, cache_dir=scratch())

    def make(store: MemoryStore, producer: CheckingProducer) -> Any:
        one = Tiler(settings, store, producer, _Planner(), scratch())  # type: ignore[arg-type]
        return Handling(
            topics.UPLOADED, "fuzz", strict(one.handle), producer,
            unreadable=strict(one.unreadable), give_up=strict(one.give_up),
        ).handle  # fmt: skip

    _consumer(topics.UPLOADED, data, make, {"uploads/a/north.tif": TIFF, "uploads/empty.tif": b""})


# -- inference -----------------------------------------------------------------------------------


@cache
def _raster() -> str:
    import numpy as np
    import rasterio

    path = scratch() / "north.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=150, height=100, count=3, dtype="uint8", tiled=True,
        blockxsize=64, blockysize=64,
    ) as out:  # fmt: skip
        out.write(np.zeros((3, 100, 150), np.uint8))
    return str(path)


@cache
def _models() -> Any:
    from frond.inference.models import ModelCache

    store = MemoryStore()
    store.seed(model()[1])
    cache = ModelCache(
        Registry(store), scratch() / "models", capacity=1000, providers=["CPUExecutionProvider"]
    )
    cache._sessions["ab" * 32] = cache._open(model_folder())
    return cache


@cache
def _pipeline() -> Any:
    from frond.inference.pipeline import Runner as Pipeline

    return Pipeline()


_open_workers: list[Any] = []


def _close_last(worker: Any) -> None:
    while _open_workers:
        _open_workers.pop().close()
    _open_workers.append(worker)


def inference(data: bytes) -> None:
    """frond.tiled.v1"""
    from frond.bus import Outgoing
    from frond.contracts.events import ChunkPlanned
    from frond.inference.wiring import StoreResults
    from frond.inference.worker import Worker
    from frond.raster import Block, RasterReader, WindowPixels

    async def read(block: Block) -> list[WindowPixels]:
        with RasterReader(block.source, block.grid, layout=block.layout, path=_raster()) as reader:
            return reader.read_block(block.windows)

    def make(store: MemoryStore, producer: CheckingProducer) -> Any:
        worker = Worker(
            StoreResults(store, frozenset({BUCKET}), scratch()), _models(), _pipeline(),
            read, pauses_s=(),
        )  # fmt: skip
        _close_last(worker)

        async def handle(envelope: Any) -> list[Any]:
            assert isinstance(envelope.event, ChunkPlanned)
            told = await worker.handle(envelope.event)
            if told.reason is Reason.INTERNAL:
                raise AssertionError(f"a chunk failed for a reason of our own: {envelope.event!r}")
            return [Outgoing(topics.DETECTED, told)]

        return Handling(topics.TILED, "fuzz", strict(handle), producer).handle

    raster = {"uploads/a/north.tif": TIFF}
    _consumer(topics.TILED, data, make, raster)


# -- aggregator ----------------------------------------------------------------------------------


def images(data: bytes) -> None:
    """frond.detected.v1"""
    from frond.aggregator.delivery import delivery
    from frond.aggregator.handlers import ImageStage
    from frond.aggregator.imaging import Imaging

    def make(store: MemoryStore, producer: CheckingProducer) -> Any:
        stage = ImageStage({}, Imaging(store, 1), producer)
        return delivery(
            topics.DETECTED, strict(stage.handle), strict(stage.give_up), producer, "fuzz"
        )

    _consumer(topics.DETECTED, data, make, planned()[2])


@cache
def _outcomes() -> dict[str, bytes]:
    plan, _, objects = planned()
    done = ImageOutcome(
        job_id=JOB, image_id=plan.image_id, image=plan.image, name=plan.name,
        status=ImageStatus.COMPLETED, windows=WindowCounts(total=6, done=6), width=150, height=100,
    )  # fmt: skip
    key = keys.image_outcome(JOB, plan.image_id)
    return {**objects, key: done.model_dump_json(exclude_none=True).encode()}


def jobs(data: bytes) -> None:
    """frond.imaged.v1"""
    from frond.aggregator.closing import Closing
    from frond.aggregator.delivery import delivery
    from frond.aggregator.handlers import JobStage
    from frond.aggregator.imaging import Imaging

    def make(store: MemoryStore, producer: CheckingProducer) -> Any:
        stage = JobStage({}, Closing(store, producer, Imaging(store, 1)))

        async def handle(envelope: Any) -> None:
            if await stage.handle(envelope):
                snapshot = stage.snapshot(envelope.event.job_id)
                assert snapshot is None or encode(snapshot, source="/fuzz")

        return delivery(topics.IMAGED, strict(handle), strict(stage.give_up), producer, "fuzz")

    _consumer(topics.IMAGED, data, make, _outcomes())


# -- notifier ------------------------------------------------------------------------------------


def notifier(data: bytes) -> None:
    """frond.completed.v1"""
    from frond.contracts.deliveries import Delivery, Kind
    from frond.contracts.events import JobCompleted
    from frond.notifier.delivery import Answer, Policy, State
    from frond.notifier.outbox import Outbox
    from frond.notifier.text import mail, webhook_body

    async def posted(delivery: Delivery, _: datetime) -> Answer:
        assert webhook_body(delivery, "https://frond.example.org")
        return Answer(State.DELIVERED, "HTTP 200")

    async def mailed(delivery: Delivery, now: datetime) -> Answer:
        assert mail(delivery, "frond@localhost", "", now).as_bytes()
        return Answer(State.DELIVERED, "accepted")

    def make(store: MemoryStore, producer: CheckingProducer) -> Any:
        senders = {Kind.WEBHOOK: strict(posted), Kind.EMAIL: strict(mailed)}
        outbox = Outbox(store, senders, Policy(0, 1.0))

        async def handle(envelope: Any) -> tuple[()]:
            assert isinstance(envelope.event, JobCompleted)
            await outbox.take(envelope.event)
            await outbox.idle()
            return ()

        return Handling(topics.COMPLETED, "fuzz", strict(handle), producer).handle

    _consumer(topics.COMPLETED, data, make, planned()[2])


# -- training worker -----------------------------------------------------------------------------


def _worker(topic: Topic, data: bytes, handler: str) -> None:
    from frond.models.trainings import Trainings
    from frond.training.worker.drifted import Policy
    from frond.training.worker.handlers import Handlers
    from frond.training.worker.watch import DriftWatch

    # each drifted period asks, however long ago it was
    policy = Policy(periods=1, fresh=timedelta(days=365_000))

    def make(store: MemoryStore, producer: CheckingProducer) -> Any:
        trainings = Trainings(store)
        recipes = {"palm-detector": "palm"}
        watch = DriftWatch(store, trainings, Registry(store), recipes, policy)
        handlers = Handlers(trainings, watch, asyncio.Event())
        return Handling(topic, "fuzz", strict(getattr(handlers, handler)), producer).handle

    _consumer(topic, data, make, {})


def training(data: bytes) -> None:
    """frond.training.v1"""
    _worker(topics.TRAINING, data, "requested")


def drift(data: bytes) -> None:
    """frond.drift.v1"""
    _worker(topics.DRIFT, data, "observed")


# -- read model ----------------------------------------------------------------------------------


@cache
def _database() -> Any:
    from frond.ingest.readmodel.database import Database

    db = Database(f"sqlite+aiosqlite:///{scratch()}/readmodel.db")
    runner()(db.migrate())
    return db


_READ = (topics.UPLOADED, topics.DETECTED, topics.IMAGED, topics.STATUS, topics.COMPLETED)


def readmodel(data: bytes) -> None:
    """all that ingest reads; the first byte chooses the topic"""
    import json

    from frond.ingest.readmodel import queries, tables
    from frond.ingest.readmodel.changes import apply_all
    from frond.ingest.readmodel.consumer import _when
    from frond.ingest.readmodel.summary import summary

    topic = _READ[data[0] % len(_READ)] if data else topics.STATUS
    db = _database()
    dated = []
    for message in unpack(data[1:]):
        try:
            e = decode(topic, message.value, message.headers)
        except UnreadableEvent:
            continue
        round_trip(topic, e)
        dated.append((e.event, _when(e.time, message.timestamp)))

    async def run() -> None:
        async with db.engine.connect() as c:
            changed = await apply_all(db, c, dated) if dated else set()
            for job_id in changed:
                found = await c.execute(tables.jobs.select().where(tables.jobs.c.job_id == job_id))
                row = queries.JobRow(**found.one()._mapping)
                assert json.dumps(summary(row), allow_nan=False)
                for image in await c.execute(tables.images.select()):
                    assert json.loads(image.detections) is not None
            await c.rollback()

    checked(lambda: runner()(run()))


CONSUMERS: dict[str, tuple[Target, tuple[Topic, ...]]] = {
    "tiler": (tiler, (topics.UPLOADED,)),
    "inference": (inference, (topics.TILED,)),
    "aggregator_images": (images, (topics.DETECTED,)),
    "aggregator_jobs": (jobs, (topics.IMAGED,)),
    "notifier": (notifier, (topics.COMPLETED,)),
    "training": (training, (topics.TRAINING,)),
    "drift": (drift, (topics.DRIFT,)),
    "readmodel": (readmodel, _READ),
}
