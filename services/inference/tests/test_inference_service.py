"""The wired service on a real object store and a real broker."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer
from pydantic import SecretStr
from service_bench import KEY, Bench, draw

from frond.bus import EventProducer, Outgoing, ensure_topics
from frond.contracts import keys, topics
from frond.contracts.envelope import decode
from frond.contracts.errors import ModelRejected, RasterRejected
from frond.contracts.events import ChunkDetected, ChunkPlanned, DriftObserved
from frond.contracts.jobs import ModelRef, Thresholds
from frond.contracts.reasons import Reason
from frond.inference.settings import InferenceSettings
from frond.inference.wiring import Inference, StoreResults
from frond.inference.worker import Worker
from frond.merge import Detections, from_ipc, merge
from frond.models.session import ModelSession
from frond.models.testing import blob_model
from frond.raster import (
    Block,
    PlanRequest,
    WindowPixels,
    chunks_of,
    inspect,
    open_raster,
    plan_image,
    read_block,
)
from frond.stack import Endpoints
from frond.store import Marks

pytestmark = pytest.mark.stack


@pytest_asyncio.fixture
async def bench(stack: Endpoints, bucket: str, tmp_path: Path) -> AsyncIterator[Bench]:
    inference = Inference(
        InferenceSettings(
            s3_endpoint=stack.s3_endpoint, s3_access_key=stack.access_key,
            s3_secret_key=SecretStr(stack.secret_key), s3_bucket=bucket,
            cache_dir=tmp_path / "cache", default_model="blob", batch=2, tuning_s=300,
        )
    )  # fmt: skip
    store = inference.store
    model = await inference.registry.push(blob_model(tmp_path / "model"))
    path = tmp_path / "scene.tif"
    truth = draw(path)
    await store.put_file(KEY, path)
    there = await store.stat(KEY)
    with open_raster(str(path)) as dataset:
        plan = plan_image(
            dataset, inspect(dataset),
            PlanRequest(
                job_id="job", image_id="1" * 32, image=store.uri(KEY), name="scene.tif",
                uri=store.uri(KEY), etag=there.etag, size=there.size, model=model,
                manifest=await inference.registry.manifest(model), windows_per_chunk=4,
            ),
        )  # fmt: skip
    yield Bench(inference, store, model, plan, list(chunks_of(plan)), truth)
    inference.close()


async def test_chunks_become_results(bench: Bench) -> None:
    """Each chunk has one result object; all of them merged are what was planted."""
    parts = []
    for chunk in bench.chunks:
        told = await bench.inference.worker.handle(chunk)
        assert told.reason is None
        assert told.result == bench.key(chunk)
        assert told.windows.total == told.windows.done == len(chunk.windows)
        assert told.timings.run > 0 and told.timings.read > 0 and told.timings.write > 0
        rows, about = from_ipc(await bench.store.get(told.result))
        assert len(rows) == told.detections
        assert about["model_digest"] == bench.model.digest
        assert about["plan_digest"] == bench.plan.plan_digest
        parts.append(rows)
    merged = merge(Detections.concat(parts), bench.plan.grid, 0.3)
    far = np.abs(merged.boxes[:, None] - bench.truth[None]).max(axis=2).min(axis=0)
    assert len(merged) == len(bench.truth)
    assert far.max() < 0.5


async def test_the_same_event_twice_is_one_result(bench: Bench) -> None:
    """The second run computes nothing and tells the same; without the object it makes the same
    bytes, also when two run at once."""
    chunk = bench.chunks[0]
    first = await bench.inference.worker.handle(chunk)
    raw = await bench.store.get(bench.key(chunk))
    again = await bench.inference.worker.handle(chunk)
    assert again.event_id == first.event_id
    assert again.timings.run == 0
    plain = {"timings"}
    assert again.model_dump(exclude=plain) == first.model_dump(exclude=plain)
    await bench.store.delete(bench.key(chunk))
    both = await asyncio.gather(*(bench.inference.worker.handle(chunk) for _ in range(2)))
    assert [b.model_dump(exclude=plain) for b in both] == [first.model_dump(exclude=plain)] * 2
    assert await bench.store.get(bench.key(chunk)) == raw


async def test_small_chunks_share_runs(bench: Bench) -> None:
    """Chunks of one window each, at once: they share runs, and get the bytes they get alone."""
    worker, runner = bench.inference.worker, bench.inference.runner
    session = await bench.inference.models.get(bench.model)
    assert (session.batch, session.rows_alike) == (2, True)
    small = [
        bench.chunks[0].model_copy(update={"chunk_id": f"{n:032x}", "windows": (w,)})
        for n, w in enumerate(bench.chunks[0].windows)
    ]
    assert len(small) == 4
    alone = []
    for chunk in small:
        assert (await worker.handle(chunk)).reason is None
        alone.append(await bench.store.get(bench.key(chunk)))
        await bench.store.delete(bench.key(chunk))

    asked, all_asked, sizes = [0], threading.Event(), []
    ask, infer = runner._ask, session.infer

    def counted(*call: Any) -> Any:
        told = ask(*call)
        asked[0] += 1
        if asked[0] == len(small):
            all_asked.set()
        return told

    def held(prepared: np.ndarray, n: int, *, beside: bool) -> dict[str, np.ndarray]:
        sizes.append(n)
        assert all_asked.wait(30)
        return infer(prepared, n, beside=beside)

    runner._ask, session.infer = counted, held  # type: ignore[method-assign]
    await asyncio.gather(*(worker.handle(chunk) for chunk in small))
    assert sum(sizes) == 4 and len(sizes) < 4
    assert [await bench.store.get(bench.key(chunk)) for chunk in small] == alone


async def test_a_jobs_threshold_overrides_the_models(bench: Bench) -> None:
    """A square that lies square on a cell scores 1, others less."""
    plain = await bench.inference.worker.handle(bench.chunks[0])
    await bench.store.delete(bench.key(bench.chunks[0]))
    strict = bench.chunks[0].model_copy(update={"thresholds": Thresholds(score=0.99)})
    assert (await bench.inference.worker.handle(strict)).detections < plain.detections / 2


async def test_failures_are_told_with_their_reason(bench: Bench, tmp_path: Path) -> None:
    """Every way to fail closes the chunk: total = failed, no result, a reason and a sentence."""
    chunk, worker = bench.chunks[0], bench.inference.worker

    async def fails(event: ChunkPlanned, reason: Reason) -> ChunkDetected:
        told = await worker.handle(event)
        assert told.reason is reason, told.detail
        assert told.detail
        assert told.result is None
        assert told.windows.total == told.windows.failed == len(event.windows)
        assert not await bench.store.exists(bench.key(event))
        return told

    other = chunk.model_copy(update={"model": ModelRef(name="blob", digest="0" * 64)})
    await fails(other, Reason.UNKNOWN_MODEL)
    source = chunk.source
    elsewhere = source.model_copy(update={"uri": "s3://secret-bucket/x.tif"})
    await fails(chunk.model_copy(update={"source": elsewhere}), Reason.BUCKET_NOT_ALLOWED)
    local = source.model_copy(update={"uri": "/etc/passwd"})
    await fails(chunk.model_copy(update={"source": local}), Reason.BAD_IMAGE_URI)
    gone = source.model_copy(update={"uri": bench.store.uri("nowhere.tif")})
    await fails(chunk.model_copy(update={"source": gone}), Reason.OBJECT_MISSING)
    far = chunk.model_copy(update={"windows": (10_000,)})
    await fails(far, Reason.BAD_REQUEST)
    await bench.store.put(KEY, b"replaced by something else")
    await fails(chunk, Reason.OBJECT_CHANGED)
    # the same ETag, but damaged: as if it had been so when it was planned
    raw = (tmp_path / "scene.tif").read_bytes()
    stat = await bench.store.put(KEY, raw[: len(raw) // 3])
    cut = source.model_copy(update={"etag": stat.etag, "size": stat.size})
    await fails(chunk.model_copy(update={"source": cut}), Reason.TRUNCATED)
    await bench.store.put(keys.job_cancelled("job"), b"")
    bench.inference.worker._results._marks = Marks(bench.store)  # type: ignore[attr-defined] # asked long ago
    await fails(chunk, Reason.DISMISSED)


class Shortage:
    """Fails the first few times, each time with the next error, then stands aside."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)


class ShortModels:
    """The models of the bench, when there is memory for them."""

    def __init__(self, inference: Inference, shortage: Shortage) -> None:
        self._inference = inference
        self._shortage = shortage

    async def get(self, ref: ModelRef) -> ModelSession:
        self._shortage()
        return await self._inference.models.get(ref)


def short_worker(
    bench: Bench,
    models: Shortage | None = None,
    reading: Shortage | None = None,
    **more: Any,
) -> Worker:
    """A worker of the bench's that does not pause."""

    async def read(block: Block) -> list[WindowPixels]:
        if reading is not None:
            reading()
        return await asyncio.to_thread(read_block, block)

    inference = bench.inference
    return Worker(
        StoreResults(bench.store, inference.settings.buckets, inference.settings.cache),
        ShortModels(inference, models or Shortage()), inference.runner, read,
        pauses_s=(0, 0, 0), **more,
    )  # fmt: skip


async def test_an_answer_that_broke_off_is_no_damage(bench: Bench) -> None:
    """GDAL takes it for the object's end. What the store gives as a whole decides: the result is
    the one of an undisturbed read, and no copy is left behind."""
    cut = Shortage(RasterRejected(Reason.TRUNCATED, "got 0 bytes, expected 295"))
    chunk = bench.chunks[0]
    told = await short_worker(bench, reading=cut).handle(chunk)
    assert told.reason is None
    assert cut.calls == 2
    stormy = await bench.store.get(bench.key(chunk))
    await bench.store.delete(bench.key(chunk))
    await short_worker(bench).handle(chunk)
    assert await bench.store.get(bench.key(chunk)) == stormy
    assert list(bench.inference.settings.cache.glob("*inference-copy-*")) == []


@pytest.mark.parametrize("reason", [Reason.TOO_LARGE, Reason.OBJECT_MISSING, Reason.NOT_A_RASTER])
async def test_a_passing_shortage_fails_nothing(bench: Bench, reason: Reason) -> None:
    """Too little memory, a model that would not load, a store that restarts: tried again."""
    reading = Shortage(RasterRejected(reason, "x"), RasterRejected(reason, "x"), MemoryError())
    worker = short_worker(bench, reading=reading)
    assert (await worker.handle(bench.chunks[0])).reason is None
    assert reading.calls == 4
    models = Shortage(ModelRejected(Reason.BAD_MODEL, "CUDA out of memory"), MemoryError())
    worker = short_worker(bench, models=models)
    assert (await worker.handle(bench.chunks[1])).reason is None
    assert models.calls == 3


async def test_what_lasts_is_told(bench: Bench) -> None:
    """With its own reason; the image's other chunks do not wait as long for the same."""
    models = Shortage(*(ModelRejected(Reason.BAD_MODEL, "no graph") for _ in range(50)))
    worker = short_worker(bench, models=models)
    told = [await worker.handle(chunk) for chunk in bench.chunks[:3]]
    assert [t.reason for t in told] == [Reason.BAD_MODEL] * 3
    assert told[0].detail == "no graph"
    assert models.calls == 4 + 1 + 1
    models.errors.clear()
    assert (await worker.handle(bench.chunks[0])).reason is None


async def test_a_model_that_only_fails_is_not_waited_for(bench: Bench) -> None:
    """A broken version fails a job of thousands of images soon, and keeps no other job's chunks
    waiting; once one of its chunks has come through, shortages pass again."""
    models = Shortage(*(ModelRejected(Reason.BAD_MODEL, "no graph") for _ in range(50)))
    worker = short_worker(bench, models=models)
    images = [bench.chunks[0].model_copy(update={"image_id": f"{n:032x}"}) for n in range(5)]
    assert (await worker.handle(images[0])).reason is Reason.BAD_MODEL
    assert models.calls == 4
    since, last = worker._failing._models[images[0].model.digest]
    worker._failing._models[images[0].model.digest] = since - 121, last
    told = [await worker.handle(chunk) for chunk in images[1:4]]
    assert [t.reason for t in told] == [Reason.BAD_MODEL] * 3
    assert models.calls == 4 + 3
    # after an idle time nobody knows whether it would
    worker._failing._models[images[0].model.digest] = since - 7200, last - 3600
    models.errors[3:] = []
    assert (await worker.handle(images[4])).reason is None
    models.errors += [ModelRejected(Reason.BAD_MODEL, "no graph") for _ in range(3)]
    assert (await worker.handle(bench.chunks[1])).reason is None


async def test_too_many_detections_are_told_not_cut(bench: Bench) -> None:
    """A window with more than the limit fails its image, at once and with a sentence, whichever
    worker runs it; with as many as the limit it does not."""
    whole = [await short_worker(bench).handle(chunk) for chunk in bench.chunks]
    most = max(one.detections for one in whole)
    assert most > 1
    one = bench.chunks[0]
    await bench.store.delete_prefix(keys.chunks_prefix(one.job_id, one.image_id))
    assert (await short_worker(bench, max_detections=most).handle(one)).reason is None
    await bench.store.delete_prefix(keys.chunks_prefix(one.job_id, one.image_id))
    reading = Shortage()
    told = [
        await short_worker(bench, reading=reading, max_detections=1).handle(chunk)
        for chunk in bench.chunks
    ]
    failed = [one for one in told if one.reason is not None]
    assert failed and {one.reason for one in failed} == {Reason.TOO_MANY}
    assert all("at most 1 are taken" in (one.detail or "") for one in failed)
    assert reading.calls == len(bench.chunks)


async def test_the_rasters_own_fault_is_told_at_once(bench: Bench) -> None:
    """Once it was seen in a whole copy, too; so is an image of which the store itself says that it
    is gone."""
    reading = Shortage(*(RasterRejected(Reason.TRUNCATED, "cut") for _ in range(2)))
    told = await short_worker(bench, reading=reading).handle(bench.chunks[0])
    assert (told.reason, reading.calls) == (Reason.TRUNCATED, 2)
    await bench.store.delete(KEY)
    gone = Shortage()
    told = await short_worker(bench, reading=gone).handle(bench.chunks[0])
    assert (told.reason, gone.calls) == (Reason.OBJECT_MISSING, 1)


async def test_a_new_version_loads_without_a_restart(bench: Bench, tmp_path: Path) -> None:
    """What the alias means is asked anew; old sessions stay for jobs that pinned them."""
    cache = bench.inference.models
    first = await cache.get(bench.model)
    new = await bench.inference.registry.push(blob_model(tmp_path / "two", version="2"))
    assert new != bench.model
    sessions = await asyncio.gather(*(cache.get(new) for _ in range(3)))
    assert len({id(s) for s in sessions}) == 1
    assert sessions[0].manifest.version == "2"
    assert await cache.get(bench.model) is first


async def test_the_process_runs_chunks_from_the_topic(
    bench: Bench, stack: Endpoints, topic_prefix: str, service_env: dict[str, str]
) -> None:
    """The service as a process: planned chunks in, detected events out, then a clean end, which tells
    of the period of drift that ran."""
    await ensure_topics(stack.kafka_bootstrap, topic_prefix)
    producer = EventProducer(stack.kafka_bootstrap, topic_prefix, "/test")
    await producer.start()
    await producer.send([Outgoing(topics.TILED, c) for c in bench.chunks])
    await producer.send_raw(topics.TILED, b"k", b"no event at all", [])
    await producer.stop()
    consumer = AIOKafkaConsumer(
        topics.DETECTED.named(topic_prefix), bootstrap_servers=stack.kafka_bootstrap,
        auto_offset_reset="earliest",
    )  # fmt: skip
    await consumer.start()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "frond.inference", stderr=subprocess.DEVNULL,
        env=service_env | {"FROND_DRIFT": "all", "FROND_DRIFT_SHARE": "1"},
    )  # fmt: skip
    try:
        told: dict[str, ChunkDetected] = {}
        async with asyncio.timeout(200):
            while len(told) < len(bench.chunks):
                message = await consumer.getone()
                event = decode(topics.DETECTED, message.value, message.headers).event
                assert isinstance(event, ChunkDetected)
                assert message.key == event.image_id.encode()
                told[event.chunk_id] = event
        assert set(told) == {c.chunk_id for c in bench.chunks}
        assert all(e.reason is None and e.result for e in told.values())
        process.terminate()
        async with asyncio.timeout(60):
            assert await process.wait() == 0
        consumer.unsubscribe()
        consumer.subscribe([topics.DRIFT.named(topic_prefix)])
        async with asyncio.timeout(60):
            message = await consumer.getone()
        seen = decode(topics.DRIFT, message.value, message.headers).event
        assert isinstance(seen, DriftObserved)
        assert message.key == bench.model.digest.encode()
        assert (seen.ended_by, seen.observer != "") == ("stop", True)
        assert seen.windows == seen.windows_run == sum(len(c.windows) for c in bench.chunks)
    finally:
        await consumer.stop()
        if process.returncode is None:
            process.kill()
            await process.wait()
