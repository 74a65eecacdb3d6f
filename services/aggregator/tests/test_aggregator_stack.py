"""The aggregator as a process, on real Kafka and real MinIO."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import aggregator_world as world
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from frond.contracts import keys, topics
from frond.contracts.envelope import decode
from frond.contracts.events import (
    Event,
    ImageUploaded,
    JobCancelled,
    JobStatusChanged,
)
from frond.contracts.jobs import JobOutcome, JobStatus
from frond.contracts.reasons import Reason
from frond.stack import NativeStack
from frond.stack import testing as stack_testing

pytestmark = [pytest.mark.stack, pytest.mark.slow]
IMAGES = 8


async def _all_events(w: world.World) -> list[Event]:
    """A job of eight images: five whole, one with a failed chunk, one rejected, one empty."""
    events: list[Event] = []
    for n in range(5):
        events += await w.detect(n)
    events += await w.detect(5, failing=[1])
    events.append(w.rejected(6))
    events.append(await w.emptied(7))
    return events


async def _until(check, timeout_s: float = 150) -> None:
    """Wait for progress that is durable in the store, which announces nothing."""
    async with asyncio.timeout(timeout_s):
        while not await check():  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def test_a_job_ends_the_same_however_it_is_disturbed(
    service_env: dict[str, str], tmp_path: Path
) -> None:
    """Shuffled, doubled events and two SIGKILLs give the bytes of the undisturbed run."""
    log = tmp_path / "log"
    async with world.World(service_env) as calm:
        with world.aggregator(service_env, log) as process:
            await calm.send(await _all_events(calm))
            await calm.seal(IMAGES)
            event = await calm.completed()
            assert process.stop() == 0
        assert event.outcome is JobOutcome.COMPLETED_WITH_ERRORS
        assert event.status is JobStatus.SUCCESSFUL
        images, windows = event.images, event.windows
        assert (images.expected, images.completed, images.failed) == (IMAGES, 6, 2)
        assert windows.total == windows.done + windows.skipped + windows.failed
        assert windows.failed == 2
        assert windows.total == sum(calm.plan(n).grid.count for n in (0, 1, 2, 3, 4, 5, 7))
        assert {f.reason for f in event.failures} == {Reason.READ_TIMEOUT, Reason.NOT_A_RASTER}
        assert sum(event.detections.values()) > 100
        assert event.timings.run > 0
        assert event.timings.merge > 0
        for artifact in event.artifacts:
            stat = await calm.store.stat(artifact.uri.split("/", 3)[3])
            assert stat.size == artifact.size
        assert not await calm.store.exists(keys.open_marker(calm.job_id))
        expected = await calm.hashes()
        await calm.wipe()

    prefix = stack_testing.new_prefix()
    env = {**service_env, "FROND_TOPIC_PREFIX": prefix}
    try:
        async with world.World(env) as wild:
            events = await _all_events(wild)
            events += random.Random(1).choices(events, k=len(events))
            random.Random(2).shuffle(events)
            half = len(events) // 2
            with world.aggregator(env, log) as process:
                await wild.send(events[:half])
                await _until(lambda: _at_least(wild, "outcome.json", 1))
                process.kill()
            with world.aggregator(env, log) as process:
                await wild.send(events[half:])
                await _until(lambda: _at_least(wild, "outcome.json", 3))
                process.kill()
            with world.aggregator(env, log) as process:
                await wild.seal(IMAGES)
                again = await wild.completed()
                assert process.stop() == 0
            assert await wild.hashes() == expected
            assert again.artifacts == event.artifacts
            assert (again.images, again.windows) == (event.images, event.windows)
            assert (again.detections, again.failures) == (event.detections, event.failures)
            sent = await wild.every(topics.COMPLETED)
            assert {(m.key, m.value, m.headers) for m in sent} == {
                (sent[0].key, sent[0].value, sent[0].headers)
            }
            assert sent[0].value == await wild.store.get(keys.job_completed(wild.job_id))
    finally:
        stack_testing.delete_topics(service_env["FROND_KAFKA_BOOTSTRAP"], prefix)


async def _at_least(w: world.World, name: str, count: int) -> bool:
    return await w.count(name) >= count


async def test_lost_events_and_a_wiped_changelog_are_made_good_from_the_store(
    service_env: dict[str, str], tmp_path: Path
) -> None:
    """Results whose events never came, and tables that are gone: the reconciler ends the job."""
    log = tmp_path / "log"
    async with world.World(service_env) as w:
        first, second = await w.detect(0), await w.detect(1)
        with world.aggregator(service_env, log) as process:
            await w.send([*first, *second[:-1]])
            await w.seal(2)
            await _until(lambda: _at_least(w, "outcome.json", 1))
            process.kill()
        await _delete_changelogs(w)
        with world.aggregator(service_env, log) as process:
            event = await w.completed()
            assert event.outcome is JobOutcome.COMPLETED
            assert event.images.completed == 2
            # as if it had been killed after storing the event, and before sending it
            await _until(lambda: _gone(w))
            await w.store.put(keys.open_marker(w.job_id), b"")
            await _until(lambda: _gone(w))
            assert process.stop() == 0
        once, again = await w.every(topics.COMPLETED)
        assert (once.key, once.value, once.headers) == (again.key, again.value, again.headers)


async def _delete_changelogs(w: world.World) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=w.bootstrap)
    await admin.start()
    try:
        mine = [
            t for t in await admin.list_topics()
            if t.startswith(w.prefix) and t.endswith("-changelog")
        ]  # fmt: skip
        assert len(mine) == 2
        await admin.delete_topics(mine)
    finally:
        await admin.close()


async def test_what_was_lost_before_the_aggregator_is_sent_again(
    service_env: dict[str, str], tmp_path: Path
) -> None:
    """An input without a plan is uploaded again; a plan without results is tiled again; an image that
    was refused when it was listed is counted."""
    async with world.World(service_env) as w:
        ident, uri, name = w.image(0)
        upload = ImageUploaded(job_id=w.job_id, image=uri, name=name)
        key = keys.job_input_record(w.job_id, ident)
        await w.store.put(key, upload.model_dump_json().encode())
        events = await w.detect(1)
        gone = events[2]
        await w.store.delete(gone.result)
        refused = w.rejected(2)
        key = keys.job_refused_record(w.job_id, refused.image_id)
        await w.store.put(key, refused.model_dump_json().encode())
        with world.aggregator(service_env, tmp_path / "log") as process:
            uploaded = await w.first(topics.UPLOADED)
            tiled = await w.first(topics.TILED)
            await _until(lambda: w.store.exists(keys.image_outcome(w.job_id, refused.image_id)))
            assert process.stop() == 0
        assert decode(topics.UPLOADED, uploaded.value, uploaded.headers).event == upload
        chunk = decode(topics.TILED, tiled.value, tiled.headers).event
        assert chunk.event_id == gone.natural_key() or chunk.chunk_id == gone.chunk_id


async def test_bytes_that_are_no_event_stop_nothing(
    service_env: dict[str, str], tmp_path: Path
) -> None:
    """Garbage, an empty value and a foreign type become dead letters; the job behind them ends,
    also with an image whose stored results cannot be read."""
    async with world.World(service_env) as w:
        garbage = [b"\xff\x00", b"", None, b"[1]", b'{"job_id": "x"}']
        for topic in (topics.DETECTED, topics.IMAGED):
            for n, value in enumerate(garbage):
                for key in (w.image(0)[0].encode(), w.job_id.encode(), None):
                    header = [("ce_type", b"frond.chunk.detected.v1")] if n % 2 else []
                    await w.producer.send_raw(topic, key, value, header)
        with world.aggregator(service_env, tmp_path / "log") as process:
            await w.send(await w.detect(0))
            broken = await w.detect(1)
            await w.store.put(broken[0].result, b"no Arrow file")
            await w.send(broken)
            await w.seal(2)
            event = await w.completed()
            assert process.stop() == 0
        assert (event.images.completed, event.images.failed) == (1, 1)
        assert event.failures[0].reason is Reason.INTERNAL
        letters = await w.every(topics.DEADLETTER)
        told = [dict(m.headers) for m in letters]
        assert len({h["dlq_id"] for h in told}) == len(garbage) * 2 * 3 + 1
        assert {h["dlq_reason"] for h in told} == {b"bad-request", b"internal"}


async def test_empty_and_cancelled_jobs_end_and_the_last_status_is_final(
    service_env: dict[str, str], tmp_path: Path
) -> None:
    """A job sealed with no image is successful; a cancelled one is dismissed as it stands."""
    async with world.World(service_env) as w:
        with world.aggregator(service_env, tmp_path / "log") as process:
            await w.seal(0)
            event = await w.completed()
            assert (event.status, event.images.expected) == (JobStatus.SUCCESSFUL, 0)

            cancelled = world.World(service_env, "cancelled-job")
            async with cancelled as c:
                await c.send(await c.detect(0))
                await c.send((await c.detect(1))[:-1])
                await _until(lambda: _at_least(c, "outcome.json", 1))
                await c.send([JobCancelled(job_id=c.job_id)])
                await _until(lambda: _at_least(c, "completed.json", 1))
                await _until(lambda: _gone(c))
            assert process.stop() == 0
        ends = {}
        for message in await w.every(topics.STATUS):
            told = decode(topics.STATUS, message.value, message.headers).event
            assert isinstance(told, JobStatusChanged)
            ends[told.job_id] = told
        assert ends[w.job_id].status is JobStatus.SUCCESSFUL
        assert ends["cancelled-job"].status is JobStatus.DISMISSED
        assert ends["cancelled-job"].images.completed == 1


async def _gone(w: world.World) -> bool:
    return not await w.store.exists(keys.open_marker(w.job_id))


async def test_the_broker_and_the_store_may_go_and_come_back(
    private_stack: NativeStack, tmp_path: Path
) -> None:
    """Killed in the middle of a job, one after the other: the job ends without a hand's help."""
    env = {
        **os.environ,
        **stack_testing.environment(private_stack.endpoints, "", "frond"),
        "FROND_CACHE_DIR": str(tmp_path / "cache"),
    }
    calm = world.World(env)
    await calm.store.ensure_bucket()
    async with calm as w:
        with world.aggregator(env, tmp_path / "log") as process:
            events = await _all_events(w)
            await w.send(events[:12])
            await _until(lambda: _at_least(w, "outcome.json", 1))
            await asyncio.to_thread(private_stack.kill_kafka)
            await asyncio.sleep(5)  # longer than the interval of commits
            await asyncio.to_thread(private_stack.start_kafka)
            await w.producer.stop()
            await w.producer.start()
            await w.send(events[12:20])
            await asyncio.to_thread(private_stack.kill_minio)
            await w.send(events[20:])
            await w.seal(IMAGES)
            await asyncio.sleep(3)
            await asyncio.to_thread(private_stack.start_minio)
            event = await w.completed(120)
            assert process.running
            assert process.stop() == 0
        assert (event.images.completed, event.images.failed) == (6, 2)


async def test_workers_come_and_go(service_env: dict[str, str], tmp_path: Path) -> None:
    """Partitions move to a second worker and back in the middle of a job; it ends complete, with
    one completed event in effect."""
    async with world.World(service_env) as w:
        events = await _all_events(w)
        with (
            world.aggregator(service_env, tmp_path / "one") as one,
            world.aggregator(service_env, tmp_path / "two") as two,
        ):
            await w.send(events[:12])
            await _until(lambda: _at_least(w, "outcome.json", 1))
            with world.aggregator(service_env, tmp_path / "three") as three:
                await w.send(events[12:20])
                assert one.stop() == 0
                await w.send(events[20:])
                two.kill()
                await w.seal(IMAGES)
                event = await w.completed()
                assert three.stop() == 0
        assert (event.images.completed, event.images.failed) == (6, 2)
        sent = await w.every(topics.COMPLETED)
        assert {(m.key, m.value, m.headers) for m in sent} == {
            (sent[0].key, sent[0].value, sent[0].headers)
        }
