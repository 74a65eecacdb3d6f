"""What a test of the whole aggregator needs: stored plans and chunk results, events, a process."""

from __future__ import annotations

import asyncio
import hashlib
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import yaml
from aiokafka import AIOKafkaConsumer

from frond.bus import EventProducer, Outgoing, ensure_topics
from frond.contracts import keys, topics
from frond.contracts.envelope import decode
from frond.contracts.events import (
    ChunkDetected,
    ChunkPlanned,
    Event,
    ImageEmpty,
    ImageRejected,
    JobCompleted,
    JobSealed,
)
from frond.contracts.ids import image_id
from frond.contracts.jobs import JobSpec, ModelRef, Timings, WindowCounts
from frond.contracts.modelspec import DecoderSpec, InputSpec, ModelManifest
from frond.contracts.plan import Georeference, ImagePlan, RasterSource, WindowGrid
from frond.contracts.reasons import Reason
from frond.contracts.topics import Topic
from frond.merge import Detections, own, to_ipc
from frond.raster.planning import chunks_of
from frond.raster.skip import pack_bitmap
from frond.store import ObjectStore, StoreSettings

SIDE = 64
MODEL = ModelRef(name="test-model", digest="5" * 64, version="1")
MANIFEST = ModelManifest(
    name=MODEL.name, version="1", decoder=DecoderSpec(name="yolo"), classes=("palm", "bush"),
    input=InputSpec(size=SIDE), margin=8,
)  # fmt: skip


class World:
    """One bucket, one topic prefix, and a job in them."""

    def __init__(self, env: dict[str, str], job_id: str = "survey-7") -> None:
        self.env = env
        self.job_id = job_id
        self.prefix = env["FROND_TOPIC_PREFIX"]
        self.bootstrap = env["FROND_KAFKA_BOOTSTRAP"]
        self.store = ObjectStore(
            StoreSettings(
                env["FROND_S3_ENDPOINT"], env["FROND_S3_ACCESS_KEY"], env["FROND_S3_SECRET_KEY"],
                env["FROND_S3_BUCKET"],
            )
        )  # fmt: skip
        self.producer = EventProducer(self.bootstrap, self.prefix, "/test")

    async def __aenter__(self) -> World:
        await ensure_topics(self.bootstrap, self.prefix)
        await self.producer.start()
        ref = keys.model_version(MODEL.name, MODEL.digest)
        manifest = yaml.safe_dump(MANIFEST.model_dump(mode="json"))
        await self.store.put(ref + "model.yaml", manifest.encode())
        await self.begin()
        return self

    async def begin(self) -> None:
        """Store what the tiler stores when a job begins."""
        spec = JobSpec(job_id=self.job_id, model=MODEL)
        await self.store.put(keys.job_spec(self.job_id), spec.model_dump_json().encode())
        await self.store.put(keys.open_marker(self.job_id), b"{}")

    async def __aexit__(self, *_: object) -> None:
        await self.producer.stop()
        self.store.close()

    def image(self, n: int) -> tuple[str, str, str]:
        """Id, URI and name of the n-th image."""
        uri = f"s3://rasters/{n:03}.tif"
        return image_id(self.job_id, uri), uri, f"{n:03}.tif"

    def plan(self, n: int, *, empty: bool = False) -> ImagePlan:
        """About 4 × 3 windows, two of which are skipped; all of them in an empty image."""
        import numpy as np

        ident, uri, name = self.image(n)
        grid = WindowGrid(width=190 + n, height=140, size=SIDE, margin=8)
        skipped = np.zeros(grid.count, dtype=bool)
        skipped[: grid.count if empty else 2] = True
        source = RasterSource(
            uri=uri, etag=f"etag{n}", size=1000, bands=(1, 2, 3), dtype="uint8",
            width=grid.width, height=grid.height,
        )  # fmt: skip
        return ImagePlan(
            job_id=self.job_id, image_id=ident, image=uri, name=name, checksum=f"etag{n}",
            source=source, grid=grid, model=MODEL, windows_per_chunk=2,
            georeference=Georeference(
                kind="affine", crs="EPSG:32647", transform=(0.1, 0, 500000 + n, 0, -0.1, 1200000)
            ),
            skipped=pack_bitmap(skipped), windows_skipped=int(skipped.sum()),
            chunks=0 if empty else sum(1 for _ in _blocks(grid, skipped)),
        )  # fmt: skip

    async def store_plan(self, plan: ImagePlan) -> None:
        key = keys.image_plan(plan.job_id, plan.image_id)
        await self.store.put(key, plan.model_dump_json().encode())

    async def detect(self, n: int, *, failing: Sequence[int] = ()) -> list[Event]:
        """Plan an image and store its chunks' results; returns the events that tell of them."""
        plan = self.plan(n)
        await self.store_plan(plan)
        events: list[Event] = []
        for chunk in chunks_of(plan):
            key: str | None = None
            found = 0
            if chunk.ordinal not in failing:
                key = keys.chunk_result(plan.job_id, plan.image_id, chunk.chunk_id)
                detections = _detections(chunk)
                found = len(detections)
                await self.store.put(key, to_ipc(detections))
            count = len(chunk.windows)
            bad = 0 if key else count
            events.append(
                ChunkDetected(
                    job_id=plan.job_id, image_id=plan.image_id, image=plan.image, name=plan.name,
                    plan_digest=chunk.plan_digest, chunk_id=chunk.chunk_id, ordinal=chunk.ordinal,
                    chunks=chunk.chunks, windows_total=plan.grid.count,
                    windows_skipped=plan.windows_skipped, result=key, detections=found,
                    windows=WindowCounts(total=count, done=count - bad, failed=bad), model=MODEL,
                    reason=Reason.READ_TIMEOUT if bad else None,
                    detail="The raster could not be read." if bad else None,
                    timings=Timings(run=0.5),
                )
            )  # fmt: skip
        return events

    def rejected(self, n: int) -> ImageRejected:
        ident, uri, name = self.image(n)
        return ImageRejected(
            job_id=self.job_id, image_id=ident, image=uri, name=name, reason=Reason.NOT_A_RASTER,
            detail="These bytes are no image.",
        )  # fmt: skip

    async def emptied(self, n: int) -> ImageEmpty:
        plan = self.plan(n, empty=True)
        await self.store_plan(plan)
        return ImageEmpty(
            job_id=self.job_id, image_id=plan.image_id, image=plan.image, name=plan.name,
            plan_digest=plan.plan_digest, windows_total=plan.grid.count,
            windows_skipped=plan.windows_skipped,
        )  # fmt: skip

    async def send(self, events: Sequence[Event], topic: Topic = topics.DETECTED) -> None:
        await self.producer.send([Outgoing(topic, e) for e in events])

    async def seal(self, size: int) -> None:
        await self.send([JobSealed(job_id=self.job_id, job_size=size)])

    async def hashes(self) -> dict[str, str]:
        """SHA-256 of everything of the job that must be the same in every run."""
        found: dict[str, str] = {}
        async for item in self.store.list(keys.job_prefix(self.job_id)):
            name = item.key.rsplit("/", 1)[-1]
            # these two hold measured times and a trace
            if name not in ("completed.json", "completed.headers.json"):
                found[item.key] = hashlib.sha256(await self.store.get(item.key)).hexdigest()
        return found

    async def wipe(self) -> None:
        await self.store.delete_prefix(keys.JOBS)
        await self.store.delete_prefix(keys.OPEN)

    async def count(self, name: str) -> int:
        """How many objects of the job have this last name."""
        listing = self.store.list(keys.job_prefix(self.job_id))
        return sum([item.key.endswith("/" + name) async for item in listing])

    @asynccontextmanager
    async def reading(self, topic: Topic) -> AsyncIterator[AIOKafkaConsumer]:
        """A reader of a topic from its beginning."""
        consumer = AIOKafkaConsumer(
            topic.named(self.prefix), bootstrap_servers=self.bootstrap,
            auto_offset_reset="earliest",
        )  # fmt: skip
        await consumer.start()
        try:
            yield consumer
        finally:
            await consumer.stop()

    async def first(self, topic: Topic, timeout_s: float = 240) -> Any:
        """The first message of a topic."""
        async with self.reading(topic) as consumer, asyncio.timeout(timeout_s):
            return await consumer.getone()

    async def completed(self, timeout_s: float = 240) -> JobCompleted:
        """The job's completed event, as a subscriber reads it."""
        message = await self.first(topics.COMPLETED, timeout_s)
        event = decode(topics.COMPLETED, message.value, message.headers).event
        assert isinstance(event, JobCompleted)
        return event

    async def every(self, topic: Topic) -> list[Any]:
        """All messages that are on a topic now."""
        async with self.reading(topic) as consumer:
            ends = await consumer.end_offsets(consumer.assignment())
            left = sum(ends.values())
            out: list[Any] = []
            async with asyncio.timeout(120):
                while len(out) < left:
                    out.append(await consumer.getone())
            return out


def _blocks(grid: WindowGrid, skipped: Any) -> Iterator[list[int]]:
    from frond.raster.skip import running_blocks

    return iter(running_blocks(grid, 2, skipped))


def _detections(chunk: ChunkPlanned) -> Detections:
    """Objects of 10 pixels about the same places in whichever window sees them."""
    rng = random.Random(chunk.image_id)
    grid = chunk.grid
    places = [
        (rng.uniform(0, grid.width), rng.uniform(0, grid.height), rng.random(), rng.randrange(2))
        for _ in range(60)
    ]
    parts: list[Detections] = []
    for window in chunk.windows:
        box = grid.window(window)
        seen = [p for p in places if box.x0 <= p[0] < box.x1 and box.y0 <= p[1] < box.y1]
        parts.append(
            own(
                [(x - 5, y - 5, x + 5, y + 5) for x, y, _, _ in seen],
                [s for _, _, s, _ in seen], [c for _, _, _, c in seen], window, grid,
            )
        )  # fmt: skip
    return Detections.concat(parts)


class Process:
    """The aggregator as a process."""

    def __init__(self, env: dict[str, str], log: Path, **settings: str) -> None:
        self.log = log
        self._out = log.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "frond.aggregator"], env={**env, **settings},
            stdout=self._out, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def kill(self) -> None:
        """SIGKILL, and reap."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)
        self._out.close()

    def stop(self, timeout_s: float = 120) -> int:
        """SIGTERM; its exit code."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(timeout_s)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait(10)
            self._out.close()

    @property
    def running(self) -> bool:
        return self._process.poll() is None


@contextmanager
def aggregator(env: dict[str, str], log: Path, **settings: str) -> Iterator[Process]:
    """A running aggregator; killed at the end if it still runs."""
    fast = {"FROND_RECONCILE_EVERY_S": "1", "FROND_STALL_S": "4"}
    process = Process(env, log, **{**fast, **settings})
    try:
        yield process
    except BaseException:
        sys.stderr.write(f"--- {log}\n{log.read_text()[-6000:]}\n" if log.exists() else "")
        raise
    finally:
        if process.running:
            process.kill()
