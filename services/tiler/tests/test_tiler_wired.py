"""The tiler as a process, on the real Kafka and MinIO."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from rasterio.io import MemoryFile
from rasterio.transform import from_origin

from frond.bus import ensure_topics
from frond.client.scenes import palm_scene
from frond.contracts import keys, topics
from frond.contracts.envelope import decode
from frond.contracts.events import (
    ChunkPlanned,
    Event,
    ImageEmpty,
    ImageRejected,
    JobCancelled,
    JobSealed,
)
from frond.contracts.ids import image_id
from frond.contracts.jobs import JobSpec
from frond.contracts.plan import ImagePlan
from frond.contracts.reasons import Reason
from frond.models.registry import Registry
from frond.models.testing import blob_model
from frond.store import ObjectStore, StoreSettings
from support.kafka import all_done, whole
from support.waiting import until

PALMS = Path(__file__).parents[3] / "models" / "palm-detector"

pytestmark = pytest.mark.stack


def tiff(fill: int = 90, side: int = 600, **kwargs: Any) -> bytes:
    """A GeoTIFF of a little noise."""
    rng = np.random.default_rng(fill)
    data = (rng.integers(0, 9, (3, side, side)) + fill).astype(np.uint8)
    profile: dict[str, Any] = {
        "driver": "GTiff", "width": side, "height": side, "count": 3, "dtype": "uint8",
        "crs": "EPSG:32648", "transform": from_origin(300_000, 200_000, 0.5, 0.5),
    }  # fmt: skip
    with MemoryFile() as memory:
        with memory.open(**{**profile, **kwargs}) as out:
            out.write((data * 0 if fill == 0 else data)[: out.count])
        return bytes(memory.read())


def children_of(pid: int) -> set[int]:
    """Those that any of its threads has begun: readers are children of the threads that wait for them."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            found |= set(map(int, (task / "children").read_text().split()))
    return found


def alive(pids: set[int]) -> list[int]:
    """A zombie that init has not collected yet is dead all the same."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            found += [] if state == "Z" else [pid]
    return found


def copies(cache: Path) -> list[Path]:
    return list(cache.glob("tiler-*/*.tif"))


class Tiler:
    """A tiler process, what is sent to it, and what it sends."""

    def __init__(self, env: dict[str, str], log: Path) -> None:
        self.env = env
        self.log = log
        self.prefix = env["FROND_TOPIC_PREFIX"]
        self.store = ObjectStore(
            StoreSettings(
                env["FROND_S3_ENDPOINT"], env["FROND_S3_ACCESS_KEY"], env["FROND_S3_SECRET_KEY"],
                env["FROND_S3_BUCKET"],
            )
        )  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    async def begin(self) -> None:
        bootstrap = self.env["FROND_KAFKA_BOOTSTRAP"]
        await ensure_topics(bootstrap, self.prefix)
        self.sender = AIOKafkaProducer(bootstrap_servers=bootstrap)
        self.reader = AIOKafkaConsumer(
            *(t.named(self.prefix) for t in (topics.TILED, topics.DETECTED, topics.IMAGED)),
            bootstrap_servers=bootstrap, auto_offset_reset="earliest", group_id=None,
        )  # fmt: skip
        await self.sender.start()
        await self.reader.start()
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "frond.tiler"], env=self.env, stdout=out, stderr=out
            )

    def stop(self, sig: int) -> int:
        assert self.process is not None
        self.process.send_signal(sig)
        return self.process.wait(60)

    async def end(self) -> None:
        await self.sender.stop()
        await self.reader.stop()
        if self.process is not None and self.process.poll() is None:
            self.stop(signal.SIGKILL)
        self.store.close()

    async def send(self, **value: Any) -> None:
        """As any program would: no key, no headers."""
        await self.sender.send_and_wait(
            topics.UPLOADED.named(self.prefix), json.dumps(value).encode()
        )

    async def upload(self, job: str, name: str, data: bytes, **more: Any) -> str:
        await self.store.put(f"in/{name}", data)
        uri = self.store.uri(f"in/{name}")
        await self.send(job_id=job, image=uri, **more)
        return image_id(job, uri)

    async def until(self, enough: Callable[[list[Event]], bool]) -> list[Event]:
        """Everything that was sent from now on, until it is enough."""
        got: list[Event] = []
        try:
            async with asyncio.timeout(120):
                while not enough(got):
                    for partition, messages in (await self.reader.getmany(timeout_ms=500)).items():
                        topic = next(
                            t for t in topics.ALL if t.named(self.prefix) == partition.topic
                        )
                        got += [decode(topic, m.value, m.headers).event for m in messages]
        except TimeoutError:
            raise AssertionError(f"only {got}\n{self.log.read_text()[-3000:]}") from None
        return got


@pytest.fixture
async def tiler(service_env: dict[str, str], tmp_path: Path) -> AsyncIterator[Tiler]:
    it = Tiler({**service_env, "FROND_DEFAULT_MODEL": "blob"}, tmp_path / "tiler.log")
    await Registry(it.store).push(blob_model(tmp_path / "blob"))
    await it.begin()
    try:
        yield it
    finally:
        await it.end()


def of(events: list[Event], image: str) -> list[Any]:
    return [e for e in events if getattr(e, "image_id", None) == image]


async def test_every_kind_of_image(tiler: Tiler) -> None:
    """Good ones become chunks after their plan is stored; each bad one its own rejection."""
    store, job = tiler.store, "kinds"
    good = await tiler.upload(job, "good.tif", tiff(), job_size=8, webhook_url="http://x/y")
    empty = await tiler.upload(job, "empty.tif", tiff(0, nodata=0))
    text = await tiler.upload(job, "text.tif", b"no image at all\n" * 10)
    zero = await tiler.upload(job, "zero.tif", b"")
    cut = await tiler.upload(job, "cut.tif", tiff()[:200_000])
    grey = await tiler.upload(job, "grey.tif", tiff(count=1))
    await tiler.send(job_id=job, image=store.uri("in/none.tif"))
    await tiler.send(job_id=job, image="s3://somewhere-else/x.tif")
    images = {good, empty, text, zero, cut, grey}
    events = await tiler.until(
        lambda got: (
            len({getattr(e, "image_id", "") for e in got}) == len(images) + 2
            and any(isinstance(e, ChunkPlanned) for e in got)
        )
    )
    plan = ImagePlan.model_validate_json(await store.get(keys.image_plan(job, good)))
    chunks = of(events, good)
    assert [c.plan_digest for c in chunks] == [plan.plan_digest] * plan.chunks
    assert sorted(w for c in chunks for w in c.windows) == list(range(plan.grid.count))
    (nothing,) = of(events, empty)
    assert isinstance(nothing, ImageEmpty)
    assert nothing.windows_total == nothing.windows_skipped > 0
    reasons = {e.image: e.reason for e in events if isinstance(e, ImageRejected)}
    assert reasons == {
        store.uri("in/text.tif"): Reason.NOT_A_RASTER,
        store.uri("in/zero.tif"): Reason.EMPTY_FILE,
        store.uri("in/cut.tif"): Reason.TRUNCATED,
        store.uri("in/grey.tif"): Reason.MISSING_BANDS,
        store.uri("in/none.tif"): Reason.OBJECT_MISSING,
        "s3://somewhere-else/x.tif": Reason.BUCKET_NOT_ALLOWED,
    }
    spec = JobSpec.model_validate_json(await store.get(keys.job_spec(job)))
    assert spec.model == plan.model
    assert spec.webhook_url == "http://x/y"
    assert json.loads(await store.get(keys.job_sealed(job))) == {"job_size": 8}
    assert await store.exists(keys.open_marker(job))


async def test_the_same_event_gives_the_same_chunks(tiler: Tiler) -> None:
    """Also after the tiler was killed, and when the raster was replaced meanwhile."""
    job = "twice"
    image = await tiler.upload(job, "a.tif", tiff(side=900))
    first = await tiler.until(lambda got: bool(of(got, image)))
    before = await tiler.store.get(keys.image_plan(job, image))
    tiler.stop(signal.SIGKILL)
    tiler.start()
    await tiler.upload(job, "a.tif", tiff(side=700))
    again = await tiler.until(lambda got: bool(of(got, image)))
    assert {e.event_id for e in of(again, image)} == {e.event_id for e in of(first, image)}
    assert await tiler.store.get(keys.image_plan(job, image)) == before


async def test_a_finished_image_is_left_alone(tiler: Tiler) -> None:
    """Nothing more is sent of it, whatever lies under its name now."""
    job = "done"
    image = await tiler.upload(job, "a.tif", tiff())
    await all_done(tiler.env, "tiler", topics.UPLOADED)
    sent = await whole(tiler.env, topics.TILED, topics.DETECTED)
    assert sent
    await tiler.store.put(keys.image_outcome(job, image), b"{}")
    await tiler.upload(job, "a.tif", tiff(side=900))
    await all_done(tiler.env, "tiler", topics.UPLOADED)
    assert len(await whole(tiler.env, topics.TILED, topics.DETECTED)) == len(sent)
    assert "the image is done already" in tiler.log.read_text()


async def test_sealing_and_cancelling(tiler: Tiler) -> None:
    """Both go on to the aggregator; the first size wins; a cancelled job's images are dismissed."""
    job = "shut"
    await tiler.send(job_id=job, job_size=3)
    (first,) = await tiler.until(lambda got: len(got) == 1)
    assert isinstance(first, JobSealed) and first.job_size == 3
    await tiler.send(job_id=job, job_size=5)
    (second,) = await tiler.until(lambda got: len(got) == 1)
    assert isinstance(second, JobSealed) and second.job_size == 3
    await tiler.sender.send_and_wait(
        topics.UPLOADED.named(tiler.prefix), json.dumps({"job_id": job}).encode(),
        headers=[("ce_type", JobCancelled.TYPE.encode())],
    )  # fmt: skip
    (cancelled,) = await tiler.until(lambda got: len(got) == 1)
    assert isinstance(cancelled, JobCancelled)
    await tiler.upload(job, "late.tif", tiff())
    (late,) = await tiler.until(lambda got: len(got) == 1)
    assert isinstance(late, ImageRejected) and late.reason is Reason.DISMISSED


async def test_a_deleted_job_is_not_brought_back(tiler: Tiler) -> None:
    """Of its images and its seal nothing is said, and nothing is stored, whenever they are read: of a
    deleted job its cancellation alone is left."""
    job = "gone"
    await tiler.store.put(keys.job_cancelled(job), keys.TOLD)
    hook = "https://hooks.example.org/x"
    await tiler.upload(job, "late.tif", tiff(), webhook_url=hook, job_size=1)
    await tiler.send(job_id=job, job_size=1)
    await tiler.send(job_id=job, image="no address at all", job_size=1)
    await tiler.upload("here", "other.tif", tiff())
    events = await tiler.until(lambda got: any(e.job_id == "here" for e in got))
    # told one after the other, each on its own partition: another round trip for what may be on its way
    await tiler.upload("here", "next.tif", tiff())
    events += await tiler.until(lambda got: any(e.job_id == "here" for e in got))
    assert {e.job_id for e in events} == {"here"}
    left = [i.key async for i in tiler.store.list(keys.job_prefix(job))]
    assert left == [keys.job_cancelled(job)]
    assert not await tiler.store.exists(keys.open_marker(job))


async def test_a_message_that_is_no_event_closes_its_image(tiler: Tiler) -> None:
    """The ledger hears of it once, and its job is one to look after; what was sent rightly before
    is not failed by a botched copy."""
    job = "botched"
    good = await tiler.upload(job, "good.tif", tiff())
    await tiler.until(lambda got: bool(of(got, good)))
    await tiler.send(job_id=job, image=tiler.store.uri("in/good.tif"), webhook_url=5)
    await tiler.send(job_id=job, image="http://x/y.tif", job_size=2, email="a@b.c")
    (no,) = await tiler.until(lambda got: len(got) == 1)
    assert isinstance(no, ImageRejected)
    assert (no.image, no.reason, no.job_size) == ("http://x/y.tif", Reason.BAD_IMAGE_URI, 2)
    assert json.loads(await tiler.store.get(keys.job_sealed(job))) == {"job_size": 2}
    assert await tiler.store.exists(keys.open_marker(job))
    assert json.loads(await tiler.store.get(keys.job_notify(job)))["email"] == "a@b.c"


async def test_an_unknown_model_is_a_rejection(tiler: Tiler) -> None:
    """Nothing is pinned then, but whom the job's end is to be told is kept."""
    image = await tiler.upload(
        "ghost", "a.tif", tiff(), model="no-such-model", email="gis@example.org", tenant="acme"
    )
    (event,) = await tiler.until(lambda got: bool(of(got, image)))
    assert isinstance(event, ImageRejected) and event.reason is Reason.UNKNOWN_MODEL
    assert "no-such-model" in event.detail
    assert not await tiler.store.exists(keys.job_spec("ghost"))
    kept = json.loads(await tiler.store.get(keys.job_notify("ghost")))
    assert kept == {"webhook_url": None, "email": "gis@example.org", "tenant": "acme"}


async def test_a_slow_raster_is_read_from_its_copy(tiler: Tiler) -> None:
    """A large JPEG is planned on a tiled copy in the store, which the plan names."""
    with MemoryFile() as memory:
        with memory.open(driver="JPEG", width=4200, height=4000, count=3, dtype="uint8") as out:
            out.write(np.full((3, 4000, 4200), 77, np.uint8))
        data = bytes(memory.read())
    image = await tiler.upload("slow", "big.jpg", data)
    events = await tiler.until(lambda got: bool(of(got, image)))
    source = of(events, image)[0].source
    assert source.uri == tiler.store.uri(keys.cog("slow", image))
    stat = await tiler.store.stat(keys.cog("slow", image))
    assert (source.etag, source.size) == (stat.etag, stat.size)
    copied = await tiler.store.get(keys.cog("slow", image))
    with rasterio.open(io.BytesIO(copied)) as ds:
        assert ds.block_shapes[0] == (512, 512)
    assert not copies(Path(tiler.env["FROND_CACHE_DIR"]))


@pytest.mark.parametrize(("gsd", "palms"), [(0.28, 100), (0.07, 12)])
async def test_an_image_without_a_scale_is_planned_at_the_models(
    tiler: Tiler, gsd: float, palms: int
) -> None:
    """Half as fine as the model, and twice: windows are laid over what the model would have as its own
    pixels, by chunks whose ids another tiler would give them too."""
    await Registry(tiler.store).push(PALMS)
    side = round(700 * 0.14 / gsd)
    pixels = palm_scene(side, side, palms, 11, gsd)[0]
    with MemoryFile() as memory:
        with memory.open(driver="PNG", width=side, height=side, count=3, dtype="uint8") as out:
            out.write(pixels.transpose(2, 0, 1))
        data = bytes(memory.read())
    image = await tiler.upload("scale", "a.png", data, model="palm-detector")
    events = await tiler.until(lambda got: bool(of(got, image)))
    grid = of(events, image)[0].grid
    assert grid.scale == pytest.approx(gsd / 0.14, rel=0.2)
    assert grid.width == pytest.approx(700, rel=0.2)
    key = keys.image_plan("scale", image)
    stored = await tiler.store.get(key)
    plan = ImagePlan.model_validate_json(stored)
    assert plan.gsd_source == "estimated"
    assert plan.gsd_m == pytest.approx(gsd, rel=0.2)
    # killed before it was stored, it is made again
    tiler.stop(signal.SIGKILL)
    await tiler.store.delete(key)
    tiler.start()
    await tiler.upload("scale", "a.png", data, model="palm-detector")
    again = await tiler.until(lambda got: bool(of(got, image)))
    assert {e.event_id for e in of(again, image)} == {e.event_id for e in of(events, image)}
    assert await tiler.store.get(key) == stored


async def test_it_leaves_when_asked(tiler: Tiler) -> None:
    """SIGTERM to the whole process group ends it with code 0; its readers do not outlive it."""
    image = await tiler.upload("bye", "a.tif", tiff())
    await tiler.until(lambda got: bool(of(got, image)))
    assert tiler.process is not None
    children = children_of(tiler.process.pid)
    assert children
    for pid in children:
        os.kill(pid, signal.SIGTERM)
    assert alive(children)
    assert tiler.stop(signal.SIGTERM) == 0
    # what keeps count of their shared memory sees the end of its pipe, and follows
    await asyncio.to_thread(until, lambda: not alive(children))
