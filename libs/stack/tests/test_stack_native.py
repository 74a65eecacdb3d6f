"""The native stack: real servers, the same address and data after every kill."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from minio import Minio

from frond.bus.admin import ensure_topics
from frond.contracts import topics
from frond.stack import Endpoints, NativeStack

pytestmark = pytest.mark.stack


def _minio(stack: NativeStack | Endpoints) -> Minio:
    host = stack.s3_endpoint.removeprefix("http://")
    return Minio(host, stack.access_key, stack.secret_key, secure=False)


async def test_the_shared_stack_takes_events_and_objects(
    stack: Endpoints, topic_prefix: str, bucket: str
) -> None:
    """The fixtures give a broker with this test's topics and a store with this test's bucket."""
    await ensure_topics(stack.kafka_bootstrap, topic_prefix)
    name = topics.UPLOADED.named(topic_prefix)
    producer = AIOKafkaProducer(bootstrap_servers=stack.kafka_bootstrap)
    await producer.start()
    sent = await producer.send_and_wait(name, b"hello")
    await producer.stop()
    assert (sent.topic, sent.offset) == (name, 0)
    _minio(stack).put_object(bucket, "a", io.BytesIO(b"x"), 1)
    assert _minio(stack).stat_object(bucket, "a").size == 1


async def test_a_topic_that_nobody_declared_is_refused(stack: Endpoints, topic_prefix: str) -> None:
    """The broker makes no topic on demand: it would have other partitions than declared."""
    name = f"nobody.declared.{topic_prefix}"
    producer = AIOKafkaProducer(bootstrap_servers=stack.kafka_bootstrap)
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.kafka_bootstrap)
    await producer.start()
    await admin.start()
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                await producer.send_and_wait(name, b"x")
        # it was asked for, and not only not waited for
        assert name not in await admin.list_topics()
    finally:
        await producer.stop()
        await admin.close()


@pytest.mark.slow
async def test_killed_servers_come_back_with_their_data(private_stack: NativeStack) -> None:
    """SIGKILL loses no acknowledged event and no object, and the addresses stay."""
    stack = private_stack
    before = stack.endpoints
    await ensure_topics(stack.kafka_bootstrap)
    producer = AIOKafkaProducer(bootstrap_servers=stack.kafka_bootstrap, acks="all")
    await producer.start()
    for i in range(100):
        await producer.send_and_wait(topics.UPLOADED.name, str(i).encode(), partition=0)
    _minio(stack).make_bucket("kept")
    _minio(stack).put_object("kept", "a", io.BytesIO(b"data"), 4)

    stack.kill_kafka()
    stack.kill_minio()
    assert stack.trouble() == ["kafka", "minio"]
    stack.start_minio()
    stack.start_kafka()

    assert stack.trouble() == []
    assert stack.endpoints == before
    assert _minio(stack).get_object("kept", "a").read() == b"data"
    await producer.send_and_wait(topics.UPLOADED.name, b"100", partition=0)
    await producer.stop()
    consumer = AIOKafkaConsumer(
        topics.UPLOADED.name, bootstrap_servers=stack.kafka_bootstrap, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        async with asyncio.timeout(30):
            got = [int((await consumer.getone()).value or b"") for _ in range(101)]
    finally:
        await consumer.stop()
    assert got == list(range(101))


@pytest.mark.slow
def test_servers_die_with_the_process_that_started_them(tmp_path: Path) -> None:
    """A test runner that is killed leaves no broker and no object store behind."""
    script = (
        "import sys, time; from pathlib import Path; from frond.stack import NativeStack\n"
        "s = NativeStack(Path(sys.argv[1])); s.start()\n"
        "print(s.kafka.child.pid, s.minio.child.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        pids = [int(p) for p in owner.stdout.readline().split()]
        assert len(pids) == 2
        owner.kill()
    deadline = time.monotonic() + 15
    while any(_alive(p) for p in pids):
        assert time.monotonic() < deadline, "a server outlived its owner"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        # a zombie that init has not collected yet is dead all the same
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
