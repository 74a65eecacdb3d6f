"""Bad input on the ingest topic: a rejection in the ledger, or a dead letter; never a job that
stands still."""

from __future__ import annotations

import json
from typing import Any

import pytest
from confluent_kafka import Producer

from frond.contracts import topics
from frond.store import ObjectStore
from support.kafka import all_done, completed, whole
from support.planted import planted

pytestmark = [pytest.mark.stack, pytest.mark.slow]


def publish(env: dict[str, str], *values: bytes) -> None:
    """From librdkafka, without headers."""
    producer = Producer({"bootstrap.servers": env["FROND_KAFKA_BOOTSTRAP"]})
    for value in values:
        producer.produce(env["FROND_TOPIC_PREFIX"] + "frond.uploaded.v1", value)
    assert producer.flush(30) == 0


def message(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


async def test_every_bad_message_ends_in_its_ledger(frond: Any, store: ObjectStore) -> None:
    """Addresses that are none, objects that are not there, buckets that are not allowed and fields
    out of range are failures of their job, each with its reason; the good image completes."""
    good = planted("good.tif", 1)
    await store.put("in/good.tif", good.data)
    size = 6
    publish(
        frond.env,
        message(job_id="j", image=store.uri("in/good.tif"), job_size=size),
        message(job_id="j", image="http://example.org/a.tif", job_size=size),
        message(job_id="j", image=store.uri("in/not-there.tif"), job_size=size),
        message(job_id="j", image="s3://somebody-elses-bucket/a.tif", job_size=size),
        message(job_id="j", image=store.uri("in//empty-folder.tif"), job_size=size),
        message(job_id="j", image=store.uri("in/odd.tif"), job_size=size, webhook_url=5),
        b"\x00 this is no event",
    )
    event = await completed(frond.env, "j")
    assert event["images"] == {"expected": size, "completed": 1, "failed": size - 1}
    reasons = sorted(f["reason"] for f in event["failures"])
    assert reasons == sorted(
        ["bad-image-uri", "object-missing", "bucket-not-allowed", "bad-image-uri", "bad-request"]
    )
    assert all(len(f["detail"]) > 20 for f in event["failures"])
    letter, _ = await _dead(frond.env, b"\x00 this is no event")
    told = {k: v.decode() for k, v in letter.headers}
    assert told["dlq_topic"] == "frond.uploaded.v1"
    assert told["dlq_detail"]


async def _dead(env: dict[str, str], value: bytes) -> tuple[Any, Any]:
    from support.kafka import reading

    async with reading(env, topics.DEADLETTER) as consumer:
        async for got in consumer:
            if got.value == value:
                return got, None
    raise AssertionError("the topic ended")


async def test_an_unknown_model_fails_the_job_with_a_sentence(
    frond: Any, store: ObjectStore
) -> None:
    """By the topic: every image is rejected, and the job ends as failed."""
    good = planted("good.tif", 1)
    await store.put("in/good.tif", good.data)
    publish(
        frond.env,
        message(job_id="m", image=store.uri("in/good.tif"), job_size=1, model="no-such-model"),
    )
    event = await completed(frond.env, "m")
    assert event["status"] == "failed"
    assert [f["reason"] for f in event["failures"]] == ["unknown-model"]


async def test_the_same_event_twice_is_one_result(frond: Any, store: ObjectStore) -> None:
    """Published three times, counted once; a copy that comes after the end changes nothing."""
    good = planted("good.tif", 1)
    await store.put("in/good.tif", good.data)
    one = message(job_id="t", image=store.uri("in/good.tif"), job_size=1)
    publish(frond.env, one, one, one)
    await completed(frond.env, "t")
    before = await _ending(frond.env, "t")
    assert json.loads(before[0])["images"] == {"expected": 1, "completed": 1, "failed": 0}
    publish(frond.env, one)
    assert await _ending(frond.env, "t") == before


async def _ending(env: dict[str, str], job_id: str) -> tuple[bytes, Any]:
    """Value and headers of the job's one ending, once all that was published has gone through every
    service. Its id is made of the job's alone: endings that differ have the same."""
    await all_done(env, "tiler", topics.UPLOADED)
    await all_done(env, "inference", topics.TILED)
    # what images come to goes from the first to the second
    await all_done(env, "aggregator", topics.DETECTED, topics.IMAGED)
    (ending,) = {
        (m.value, m.headers)
        for m in await whole(env, topics.COMPLETED)
        if json.loads(m.value)["job_id"] == job_id
    }
    return ending
