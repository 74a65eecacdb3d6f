"""The two stages over a plain dict, with the real store and the real broker behind them."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import aggregator_world as world
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from frond.aggregator import chunks as chunks_module
from frond.aggregator import imaging as imaging_module
from frond.aggregator.chunks import dismissal_key
from frond.aggregator.closing import Closing, roster_key
from frond.aggregator.ending import Roster
from frond.aggregator.handlers import ImageStage, JobStage
from frond.aggregator.imaging import Imaging
from frond.aggregator.jobs import record_key
from frond.aggregator.reconcile import Reconciler
from frond.aggregator.settings import AggregatorSettings
from frond.aggregator.status import StatusBoard
from frond.aggregator.survey import survey
from frond.bus.offsets import Offsets
from frond.contracts import keys, topics
from frond.contracts.envelope import Envelope, decode, new_traceparent
from frond.contracts.errors import StoreFull
from frond.contracts.events import (
    ChunkDetected,
    Event,
    ImageFinished,
    JobCancelled,
    JobStatusChanged,
)
from frond.contracts.jobs import ImageStatus, JobStatus
from frond.contracts.reasons import Reason

pytestmark = pytest.mark.stack


@pytest.fixture
async def w(service_env: dict[str, str]) -> AsyncIterator[world.World]:
    async with world.World(service_env) as made:
        yield made


def told(event: Event) -> Envelope:
    return Envelope(event, new_traceparent())


class Killed(BaseException):
    """The process is no more."""


class Table(dict[bytes, bytes]):
    """Counts what is written, and dies after so many deletions."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.dies_after = 1 << 30

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self.writes += 1
        super().__setitem__(key, value)

    def __delitem__(self, key: bytes) -> None:
        if self.dies_after <= 0:
            raise Killed
        self.dies_after -= 1
        super().__delitem__(key)


def stages(w: world.World) -> tuple[ImageStage, JobStage]:
    imaging = Imaging(w.store, 2)
    return (
        ImageStage(Table(), imaging, w.producer),
        JobStage(Table(), Closing(w.store, w.producer, imaging)),
    )


async def finished(w: world.World) -> list[ImageFinished]:
    found = [decode(topics.IMAGED, m.value, m.headers).event for m in await w.every(topics.IMAGED)]
    return [e for e in found if isinstance(e, ImageFinished)]


async def images_done(w: world.World, count: int) -> list[ImageFinished]:
    stage, _ = stages(w)
    for n in range(count):
        await stage.handle(told(w.rejected(n)))
    return await finished(w)


async def last_status(w: world.World) -> JobStatus:
    last = (await w.every(topics.STATUS))[-1]
    event = decode(topics.STATUS, last.value, last.headers).event
    assert isinstance(event, JobStatusChanged)
    return event.status


@pytest.mark.parametrize("deletions", range(4))
async def test_a_kill_while_a_job_is_dropped_leaves_no_running_job(
    w: world.World, deletions: int
) -> None:
    """Wherever among the deletions it was: the event comes again, and nothing runs any more."""
    done = await images_done(w, 3)
    _, stage = stages(w)
    for event in done[:-1]:
        assert await stage.handle(told(event))
    await stage.closing.size(w.job_id, 3)
    last = told(done[-1].model_copy(update={"job_size": 3}))
    assert isinstance(stage.table, Table)
    stage.table.dies_after = deletions
    with pytest.raises(Killed):
        await stage.handle(last)

    _, again = stages(w)
    dict.update(again.table, stage.table)
    assert not await again.handle(last)
    assert again.snapshot(w.job_id) is None
    assert record_key(w.job_id) not in again.table
    assert await last_status(w) is JobStatus.FAILED


@pytest.mark.parametrize("restarted", [False, True])
async def test_nothing_runs_after_the_reconciler_closed_a_job(
    w: world.World, restarted: bool
) -> None:
    """A late copy of an event finds a record of the job, and says nothing more of it."""
    done = await images_done(w, 2)
    _, stage = stages(w)
    assert await stage.handle(told(done[0]))
    assert stage.snapshot(w.job_id) is not None
    ids = [bytes.fromhex(e.outcome.image_id) for e in done]
    ended = await stage.closing.close(
        w.job_id, ids, size=2, cancelled=False, timings=done[0].timings
    )
    assert ended
    assert stage.snapshot(w.job_id) is None
    if restarted:
        table = stage.table
        _, stage = stages(w)
        dict.update(stage.table, table)
    assert not await stage.handle(told(done[0]))
    assert stage.snapshot(w.job_id) is None
    assert not stage.table
    assert await last_status(w) is JobStatus.FAILED


async def test_a_job_that_was_deleted_may_begin_anew(w: world.World) -> None:
    """Its name is remembered as ended, but the store knows better."""
    done = await images_done(w, 1)
    _, stage = stages(w)
    await stage.closing.close(
        w.job_id, [bytes.fromhex(done[0].outcome.image_id)], size=1, cancelled=False,
        timings=done[0].timings,
    )  # fmt: skip
    await w.wipe()
    assert await stage.handle(told(done[0]))
    snapshot = stage.snapshot(w.job_id)
    assert snapshot is not None
    assert snapshot.images.failed == 1


async def test_a_job_that_was_deleted_does_not_end_once_more(w: world.World) -> None:
    """What comes late of it, and would make it whole, is passed over: of a deleted job nothing is
    left but that it was cancelled."""
    done = await images_done(w, 1)
    await w.wipe()
    await w.store.put(keys.job_cancelled(w.job_id), keys.TOLD)
    _, stage = stages(w)
    before = len(await w.every(topics.STATUS))
    for event in (done[0], done[0].model_copy(update={"job_size": 1})):
        assert not await stage.handle(told(event))
    assert not stage.table
    assert await stage.closing.completed(w.job_id) is None
    assert len(await w.every(topics.STATUS)) == before
    assert not await w.every(topics.COMPLETED)
    assert not await w.store.exists(keys.open_marker(w.job_id))


async def test_a_job_that_is_deleted_while_its_events_wait_is_forgotten(w: world.World) -> None:
    """Its images are counted after it was deleted, then the cancellation comes: the last that the topic
    of statuses says is that it is gone, and it does not end."""
    done = await images_done(w, 2)
    _, stage = stages(w)
    board = StatusBoard(stage.snapshot, w.producer.send)
    stage.closing.quiet = board.quiet
    assert await stage.handle(told(done[0]))
    await w.wipe()
    await w.store.put(keys.job_cancelled(w.job_id), keys.TOLD)
    assert await stage.handle(told(done[1]))
    board.changed(w.job_id)
    await board.publish()
    assert await last_status(w) is JobStatus.RUNNING
    board.changed(w.job_id)
    assert not await stage.handle(told(JobCancelled(job_id=w.job_id)))
    await board.publish()
    last = (await w.every(topics.STATUS))[-1]
    assert (last.key, last.value) == (w.job_id.encode(), None)
    assert not stage.table
    assert not await w.every(topics.COMPLETED)
    assert not await w.store.exists(keys.job_completed(w.job_id))


async def test_nothing_is_written_of_a_job_that_was_deleted(w: world.World) -> None:
    """Whatever comes late of it, and however late: images turned down, chunks that failed, of one
    chunk or of many, and events that are given up."""
    chunks = await w.detect(0, failing=range(5))
    (event,) = (e for e in chunks[:1] if isinstance(e, ChunkDetected))
    alone = event.model_copy(update={"chunks": 1})
    await w.wipe()
    kept = {keys.job_cancelled(w.job_id), keys.tombstone(w.job_id)}
    for key in kept:
        await w.store.put(key, b"")
    stage, _ = stages(w)
    for late in (w.rejected(1), *chunks, alone):
        await stage.handle(told(late))
        await stage.give_up(told(late))
    found = [i.key async for i in w.store.list(keys.job_prefix(w.job_id))]
    assert found == [keys.job_cancelled(w.job_id)]
    assert not stage.table
    assert await finished(w) == []


async def test_the_roster_that_is_stored_decides(w: world.World) -> None:
    """Whoever closes a job with other images closes it with those of whoever was first."""
    done = await images_done(w, 3)
    ids = [bytes.fromhex(e.outcome.image_id) for e in done]
    theirs = Roster.of(ids[:2], None, cancelled=True)
    await w.store.put(roster_key(w.job_id), theirs.model_dump_json().encode())
    _, stage = stages(w)
    assert await stage.closing.close(
        w.job_id, ids, size=3, cancelled=False, timings=done[0].timings
    )
    event = await stage.closing.completed(w.job_id)
    assert event is not None
    assert event.status is JobStatus.DISMISSED
    assert event.images.failed == 2
    assert {f.image for f in event.failures} == {e.outcome.image for e in done[:2]}


async def test_the_last_chunk_of_an_image_writes_no_state(w: world.World) -> None:
    """The table is written for chunks that wait, and forgotten; a lost result ends nothing."""
    stage, _ = stages(w)
    assert isinstance(stage.table, Table)
    events = await w.detect(0)
    for event in events:
        await stage.handle(told(event))
    assert stage.table.writes == len(events) - 1
    assert not stage.table
    outcome = await stage.imaging.outcome(w.job_id, w.image(0)[0])
    assert outcome is not None
    assert outcome.status is ImageStatus.COMPLETED

    events = await w.detect(1)
    lost = events[0]
    assert isinstance(lost, ChunkDetected)
    assert lost.result is not None
    await w.store.delete(lost.result)
    for event in events:
        await stage.handle(told(event))
    assert not stage.table
    assert await stage.imaging.outcome(w.job_id, w.image(1)[0]) is None
    assert len(await finished(w)) == 1


async def test_a_cancelled_jobs_image_has_one_record_of_what_was_not_run(w: world.World) -> None:
    """However many chunks: one object, an outcome that says so, and windows that add up."""
    stage, _ = stages(w)
    events = await w.detect(0, failing=[1, 2, 3])
    for event in events:
        assert isinstance(event, ChunkDetected)
        gone = {} if event.result else {"reason": Reason.DISMISSED, "detail": "Cancelled."}
        await stage.handle(told(event.model_copy(update=gone)))
    ident = w.image(0)[0]
    listing = w.store.list(keys.chunks_prefix(w.job_id, ident))
    assert [i.key async for i in listing if i.key.endswith(".json")] == [
        dismissal_key(w.job_id, ident)
    ]
    outcome = await stage.imaging.outcome(w.job_id, ident)
    assert outcome is not None
    assert (outcome.status, outcome.reason) == (ImageStatus.FAILED, Reason.DISMISSED)
    counts = outcome.windows
    assert counts.total == counts.done + counts.skipped + counts.failed


async def test_what_is_stored_of_a_bug_is_the_same_in_every_run(w: world.World) -> None:
    """No trace gets into an outcome."""
    stored: list[bytes] = []
    for _ in range(2):
        stage, _ = stages(w)
        event = (await w.detect(0))[0]
        await stage.give_up(told(event))
        stored.append(await w.store.get(keys.image_outcome(w.job_id, w.image(0)[0])))
        await w.wipe()
    assert stored[0] == stored[1]
    assert json.loads(stored[0])["reason"] == "internal"


async def test_an_image_of_which_nothing_comes_fails_in_the_end(
    w: world.World, service_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five times its chunks are sent again and handled in vain; then it fails, and says so."""
    for name, value in service_env.items():
        if name.startswith("FROND_"):
            monkeypatch.setenv(name, value)
    settings = AggregatorSettings()
    offsets = Offsets(w.bootstrap, w.prefix)
    reconciler = _reconciler(w, settings, offsets)
    plan = w.plan(0)
    await w.store_plan(plan)
    listed, real = [], w.store.list

    def listing(prefix: str, **more: Any) -> Any:
        listed.append(prefix)
        return real(prefix, **more)

    monkeypatch.setattr(w.store, "list", listing)
    try:
        await reconciler.round()
        for n in range(1, 6):
            await _all_handled(w, settings, offsets)
            _due_now(reconciler)
            await reconciler.round()
            assert len(await w.every(topics.TILED)) == n * plan.chunks
            assert await finished(w) == []
        # what was sent has not been handled yet: that is waiting, not standing still, and as long as it
        # waits its objects, a million maybe, are not listed
        _due_now(reconciler)
        listed.clear()
        await reconciler.round()
        assert listed == [keys.OPEN]
        assert await finished(w) == []
        await _all_handled(w, settings, offsets)
        _due_now(reconciler)
        await reconciler.round()
    finally:
        await offsets.close()
    (event,) = await finished(w)
    assert (event.outcome.status, event.outcome.reason) == (ImageStatus.FAILED, Reason.INTERNAL)
    assert event.outcome == await reconciler.imaging.outcome(w.job_id, plan.image_id)


def _reconciler(w: world.World, settings: Any, offsets: Any) -> Reconciler:
    stage, job_stage = stages(w)
    return Reconciler(
        settings, w.store, w.producer, stage.imaging, job_stage.closing, offsets, stall_s=0.001,
        owns=lambda _: True, idle_s=lambda _: 1e9,
    )  # fmt: skip


class _NothingWaits:
    """A broker all of whose events are handled."""

    async def ends(self, *_: object) -> dict[TopicPartition, int]:
        return {}

    done = ends


async def test_a_full_store_uses_up_no_try_and_keeps_no_image_from_its_chunks(
    w: world.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as it takes: what an image lacks is sent again each time, and the image that lacks
    nothing is finished once there is room."""
    whole, lacking = sorted((0, 1), key=lambda n: w.image(n)[0])
    await w.detect(whole)
    await w.store_plan(w.plan(lacking))
    reconciler = _reconciler(w, SimpleNamespace(group=str), _NothingWaits())

    async def full(*_: object, **__: object) -> None:
        raise StoreFull("no room")

    with monkeypatch.context() as patched:
        for name in ("put", "put_if_absent"):
            patched.setattr(w.store, name, full)
        patched.setattr(imaging_module, "write_image_artifacts", full)
        await reconciler.round()
        for n in range(1, 9):
            _due_now(reconciler)
            with pytest.raises(StoreFull):
                await reconciler.round()
            assert len(await w.every(topics.TILED)) == n * w.plan(lacking).chunks
    _due_now(reconciler)
    await reconciler.round()
    (event,) = await finished(w)
    assert event.outcome.image_id == w.image(whole)[0]
    assert event.outcome.status is ImageStatus.COMPLETED


async def test_an_outage_at_one_job_keeps_no_other_from_being_looked_at(
    w: world.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three in a row end the round: then nothing answers."""
    every = [f"job-{n}" for n in range(6)]
    for job_id in every:
        await w.store.put(keys.OPEN + job_id, b"")
    reconciler = _reconciler(w, SimpleNamespace(group=str), _NothingWaits())
    looked: list[str] = []
    away = {"job-0", "job-2", "job-3", "job-4"}

    async def look(job_id: str) -> None:
        looked.append(job_id)
        if job_id in away:
            raise StoreFull("no room")

    monkeypatch.setattr(reconciler, "_look", look)
    with pytest.raises(StoreFull):
        await reconciler.round()
    assert [j for j in looked if j in every] == every[:5]


async def test_what_an_outage_keeps_back_is_driven_ever_more_seldom_and_at_least_each_ten_minutes(
    w: world.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another image of the job lacks is sent again with it each time."""
    await w.store_plan(w.plan(0))
    reconciler = _reconciler(w, SimpleNamespace(group=str), _NothingWaits())

    async def away(*_: object, **__: object) -> None:
        raise StoreFull("no room")

    monkeypatch.setattr(reconciler, "drive", away)
    await reconciler.round()
    look = reconciler._looks[w.job_id]
    for pause, then in ((1.0, 2.0), (400.0, 600.0), (600.0, 600.0)):
        look.pause, look.due = pause, 0.0
        with pytest.raises(StoreFull):
            await reconciler.round()
        look = reconciler._looks[w.job_id]
        assert (look.pause, look.drives) == (then, 0)


async def test_an_error_at_one_image_counts_and_keeps_no_other_from_its_end(
    w: world.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five times; then it fails. Whoever came behind it was finished the first time."""
    first, second = sorted((0, 1), key=lambda n: w.image(n)[0])
    await w.detect(first)
    await w.detect(second)
    reconciler = _reconciler(w, SimpleNamespace(group=str), _NothingWaits())
    real = reconciler.imaging.finish

    async def finish(job_id: str, image: str, **more: Any) -> ImageFinished | None:
        if image == w.image(first)[0]:
            raise ZeroDivisionError
        return await real(job_id, image, **more)

    monkeypatch.setattr(reconciler.imaging, "finish", finish)
    await reconciler.round()
    _due_now(reconciler)
    await reconciler.round()
    (event,) = await finished(w)
    assert event.outcome.image_id == w.image(second)[0]
    # the first of them sees that something was written
    for _ in range(7):
        assert await reconciler.imaging.outcome(w.job_id, w.image(first)[0]) is None
        _due_now(reconciler)
        await reconciler.round()
    outcome = await reconciler.imaging.outcome(w.job_id, w.image(first)[0])
    assert outcome is not None
    assert (outcome.status, outcome.reason) == (ImageStatus.FAILED, Reason.INTERNAL)


async def test_the_last_drive_finishes_an_image_that_lacks_nothing(w: world.World) -> None:
    """What came at last, between two looks, is not thrown away."""
    await w.detect(0)
    reconciler = _reconciler(w, SimpleNamespace(group=str), _NothingWaits())
    found = await survey(w.job_id, w.store.list(keys.job_prefix(w.job_id)))
    await reconciler.drive(w.job_id, found, give_up=True)
    (event,) = await finished(w)
    assert event.outcome.status is ImageStatus.COMPLETED


async def test_what_nobody_measured_is_no_time_of_zero(w: world.World) -> None:
    """A job that is driven again is closed from its objects, which hold no times: its event has none."""
    done = await images_done(w, 2)
    reconciler = _reconciler(w, SimpleNamespace(group=str), _NothingWaits())
    await reconciler.closing.size(w.job_id, len(done))
    found = await survey(w.job_id, w.store.list(keys.job_prefix(w.job_id)))
    await reconciler.drive(w.job_id, found)
    stored = json.loads(await w.store.get(keys.job_completed(w.job_id)))
    assert stored["images"]["failed"] == 2
    assert "timings" not in stored


async def test_an_image_whose_model_was_removed_fails_and_says_so(w: world.World) -> None:
    """However it comes to its end: by its last chunk, or driven again."""
    events = await w.detect(0)
    await w.detect(1)
    await w.store.delete_prefix(keys.MODELS)
    stage, _ = stages(w)
    for event in events:
        await stage.handle(told(event))
    reconciler = _reconciler(w, SimpleNamespace(group=str), _NothingWaits())
    found = await survey(w.job_id, w.store.list(keys.job_prefix(w.job_id)))
    await reconciler.drive(w.job_id, found)
    outcomes = [e.outcome for e in await finished(w)]
    assert [o.image_id for o in outcomes] == [w.image(n)[0] for n in (0, 1)]
    assert {o.reason for o in outcomes} == {Reason.UNKNOWN_MODEL}


def _due_now(reconciler: Reconciler) -> None:
    # the pauses double; nobody wants to wait for them
    for look in reconciler._looks.values():
        look.due = 0.0


async def _all_handled(w: world.World, settings: AggregatorSettings, offsets: Offsets) -> None:
    """Commit the ends of everything, as services do that have handled what they read."""
    read = {
        "tiler": [topics.UPLOADED], "inference": [topics.TILED],
        "aggregator": [topics.DETECTED, topics.IMAGED],
    }  # fmt: skip
    for service, of in read.items():
        ends = await offsets.ends(of)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=w.bootstrap, group_id=settings.group(service),
            enable_auto_commit=False,
        )  # fmt: skip
        consumer.assign([TopicPartition(p.topic, p.partition) for p in ends])
        await consumer.start()
        try:
            await consumer.commit(dict(ends))
        finally:
            await consumer.stop()


async def test_an_empty_image_that_was_never_planned_is_ignored(w: world.World) -> None:
    """Its job was deleted while the event was on its way, or the event is not the tiler's: nothing
    is stored of it, and it is no failure of Frond's. One that was planned is finished."""
    event, planned = await w.emptied(0), await w.emptied(1)
    await w.store.delete(keys.image_plan(w.job_id, event.image_id))
    stage, _ = stages(w)
    await stage.handle(told(event))
    assert [o async for o in w.store.list(keys.image_prefix(w.job_id, event.image_id))] == []
    await stage.handle(told(planned))
    assert [f.outcome.image_id for f in await finished(w)] == [planned.image_id]


def found(events: list[Event]) -> int:
    return sum(e.detections for e in events if isinstance(e, ChunkDetected))


async def test_an_image_of_too_many_detections_is_turned_down_before_they_are_loaded(
    w: world.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With as many as there may be it is done; with one more it fails, and what is left is not
    read: neither as an image among others nor as one alone."""
    monkeypatch.setattr(chunks_module, "_READS", 1)
    few, many = found(await w.detect(0)), found(await w.detect(1))
    ids = [w.image(n)[0] for n in range(2)]
    done = await Imaging(w.store, 2, max_detections=few).finish(w.job_id, ids[0])
    assert done is not None and done.outcome.status is ImageStatus.COMPLETED
    done = await Imaging(w.store, 2, max_detections=many - 1).finish(w.job_id, ids[1])
    assert done is not None and done.outcome.reason is Reason.TOO_MANY
    assert str(many - 1) in (done.outcome.detail or "")

    chunks = len(await w.detect(2))
    read = list[str]()
    get = w.store.get

    async def reading(key: str) -> bytes:
        read.append(key)
        return await get(key)

    monkeypatch.setattr(w.store, "get", reading)
    done = await Imaging(w.store, 2, max_detections=1).finish(w.job_id, w.image(2)[0])
    assert done is not None and done.outcome.reason is Reason.TOO_MANY
    assert chunks > 2
    assert sum(key.endswith(".arrow") for key in read) == 2


async def test_images_of_many_detections_are_merged_one_by_one(
    w: world.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many slots there are: what they take together is bounded."""
    merging, most, lock = 0, 0, threading.Lock()
    merged = imaging_module._merged

    def counted(*args: Any) -> Any:
        nonlocal merging, most
        with lock:
            merging += 1
            most = max(most, merging)
        time.sleep(0.2)
        with lock:
            merging -= 1
        return merged(*args)

    monkeypatch.setattr(imaging_module, "_merged", counted)
    limit = max([found(await w.detect(n)) for n in range(3)])
    imaging = Imaging(w.store, 3, max_detections=limit)
    done = await asyncio.gather(*(imaging.finish(w.job_id, w.image(n)[0]) for n in range(3)))
    assert [d and d.outcome.status for d in done] == [ImageStatus.COMPLETED] * 3
    assert most == 1
