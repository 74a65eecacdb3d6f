"""The stack with a network and disks that can go wrong."""

from __future__ import annotations

import asyncio
import io
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError
from minio import Minio
from minio.error import S3Error

from frond.bus.admin import ensure_topics
from frond.contracts import topics
from frond.stack import Endpoints, NativeStack, StackError
from frond.stack.aio import metadata_answers
from frond.stack.small_disk import why_no_small_disk

pytestmark = [pytest.mark.stack, pytest.mark.slow]
_TOPIC = topics.UPLOADED.name


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeStack]:
    """A stack behind proxies, on small disks where this machine allows them."""
    small = 0 if why_no_small_disk() else 64
    folder = tmp_path_factory.mktemp("faulty")
    with NativeStack(folder, proxied=True, small_disk_mb=small) as stack:
        asyncio.run(ensure_topics(stack.direct.kafka_bootstrap))
        yield stack


@pytest.fixture(autouse=True)
def mended(faulty: NativeStack) -> Iterator[None]:
    """Whatever a test does to the proxies and disks ends with it."""
    yield
    for proxy in faulty.proxies.values():
        proxy.reset()
    for disk in faulty.disks.values():
        disk.make_room()


def _minio(endpoints: Endpoints, read_s: float = 5) -> Minio:
    pool = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(connect=3, read=read_s))
    return Minio(
        endpoints.s3_endpoint.removeprefix("http://"), endpoints.access_key, endpoints.secret_key,
        secure=False, http_client=pool,
    )  # fmt: skip


def _bucket(endpoints: Endpoints, name: str) -> Minio:
    client = _minio(endpoints)
    if not client.bucket_exists(name):
        client.make_bucket(name)
    return client


async def test_who_bootstraps_through_the_proxy_stays_on_it(faulty: NativeStack) -> None:
    """With the proxy off nothing of a proxied client gets through; others do not notice."""
    assert faulty.kafka_bootstrap != faulty.direct.kafka_bootstrap
    producer = AIOKafkaProducer(bootstrap_servers=faulty.kafka_bootstrap, request_timeout_ms=60_000)
    direct = AIOKafkaProducer(bootstrap_servers=faulty.direct.kafka_bootstrap)
    await producer.start()
    await direct.start()
    try:
        await producer.send_and_wait(_TOPIC, b"before")
        faulty.proxies["kafka"].disable()
        await direct.send_and_wait(_TOPIC, b"beside it")
        with pytest.raises((KafkaError, TimeoutError)):
            async with asyncio.timeout(6):
                await producer.send_and_wait(_TOPIC, b"during")
        faulty.proxies["kafka"].enable()
        async with asyncio.timeout(90):
            await producer.send_and_wait(_TOPIC, b"after")
    finally:
        await producer.stop()
        await direct.stop()


def test_a_disabled_proxy_refuses_and_an_enabled_one_takes(faulty: NativeStack) -> None:
    """Refusal is what a client sees of a server whose port is closed."""
    proxy = faulty.proxies["s3"]
    host, port = proxy.listen.split(":")
    proxy.disable()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), 2)
    proxy.enable()
    assert _minio(faulty.endpoints).list_buckets() is not None


def test_data_stops_while_the_connection_stays(faulty: NativeStack) -> None:
    """A half-open connection answers nothing until the fault is removed."""
    client = _minio(faulty.endpoints)
    client.list_buckets()
    toxic = faulty.proxies["s3"].add("timeout", "downstream", timeout=0)
    with pytest.raises(urllib3.exceptions.ReadTimeoutError):
        _minio(faulty.endpoints, read_s=0.5).list_buckets()
    faulty.proxies["s3"].remove(toxic)
    faulty.proxies["s3"].remove(toxic)  # a second time is no error
    client.list_buckets()


def test_latency_is_as_long_as_it_says_and_reset_removes_it(faulty: NativeStack) -> None:
    """A delayed answer is a right one."""
    client = _bucket(faulty.endpoints, "slow")
    faulty.proxies["s3"].add("latency", "downstream", latency=300, jitter=0)
    start = time.monotonic()
    assert client.bucket_exists("slow")
    assert time.monotonic() - start >= 0.3
    faulty.proxies["s3"].reset()
    assert faulty.proxies["s3"].toxics() == []


def test_an_unknown_fault_is_refused_in_words(faulty: NativeStack) -> None:
    """A wrong name fails where it stands, not as a fault that never happened."""
    with pytest.raises(StackError, match="invalid toxic type"):
        faulty.proxies["s3"].add("nonsense", "downstream")


def test_a_full_store_says_so_and_goes_on_when_there_is_room(faulty: NativeStack) -> None:
    """What lies there can be read meanwhile; nothing half-written shows."""
    if not faulty.disks:
        pytest.skip(why_no_small_disk())
    client = _bucket(faulty.direct, "full")
    client.put_object("full", "before", io.BytesIO(b"data"), 4)
    faulty.disks["s3"].fill()
    assert faulty.disks["s3"].free_bytes == 0
    with pytest.raises(S3Error, match=r"StorageFull|no space left"):
        client.put_object("full", "during", io.BytesIO(b"x" * 100_000), 100_000)
    assert client.get_object("full", "before").read() == b"data"
    assert [o.object_name for o in client.list_objects("full")] == ["before"]
    faulty.disks["s3"].make_room()
    _until(lambda: client.put_object("full", "after", io.BytesIO(b"x"), 1))


async def test_a_broker_whose_disk_was_full_loses_nothing(faulty: NativeStack) -> None:
    """What was acknowledged before is there when it is started again with room to write."""
    if not faulty.disks:
        pytest.skip(why_no_small_disk())
    bootstrap = faulty.direct.kafka_bootstrap
    name = topics.DETECTED.name
    sent = await _produce_until_refused(faulty, bootstrap, name)
    faulty.disks["kafka"].make_room()
    await asyncio.to_thread(faulty.kill_kafka)
    await asyncio.to_thread(faulty.start_kafka)
    consumer = AIOKafkaConsumer(name, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    seen: set[bytes] = set()
    try:
        async with asyncio.timeout(60):
            while not sent <= seen:
                seen.add(bytes((await consumer.getone()).key or b""))
    finally:
        await consumer.stop()
    assert metadata_answers(faulty.kafka_bootstrap)


async def _produce_until_refused(stack: NativeStack, bootstrap: str, name: str) -> set[bytes]:
    """Fill the broker's disk under a producer; returns the keys that were acknowledged."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", request_timeout_ms=4000)
    await producer.start()
    sent: set[bytes] = set()
    try:
        for i in range(10_000):
            if i == 20:
                stack.disks["kafka"].fill()
            try:
                async with asyncio.timeout(10):
                    await producer.send_and_wait(name, b"x" * 50_000, key=b"%d" % i)
            except Exception:
                return sent
            sent.add(b"%d" % i)
    finally:
        await asyncio.wait({asyncio.create_task(producer.stop())}, timeout=5)
    raise AssertionError("the broker took everything on a full disk")


def _until(call: object, within: float = 30) -> None:
    assert callable(call)
    end = time.monotonic() + within
    while True:
        try:
            call()
            return
        except S3Error:
            assert time.monotonic() < end, "still refused"
            time.sleep(0.2)  # MinIO looks at its disk's room by a clock of its own


def test_the_disk_is_nowhere_to_be_seen_and_ends_with_the_stack(tmp_path: Path) -> None:
    """Mounts are private to the servers: a killed run leaves none behind."""
    from frond.stack.small_disk import SmallDisk

    if why_no_small_disk():
        pytest.skip(why_no_small_disk())
    disk = SmallDisk(tmp_path / "d", 4)
    (disk.inside / "a").write_bytes(b"x")
    assert list((tmp_path / "d").iterdir()) == []
    disk.fill(1 << 20)
    assert 1 << 20 <= disk.free_bytes < 2 << 20
    disk.make_room()
    assert disk.free_bytes > 3 << 20
    disk.close()
    assert not disk.inside.exists()
