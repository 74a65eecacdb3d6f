"""The object store over a network and on a disk that go wrong."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from frond.contracts.errors import StoreFull, StoreUnavailable
from frond.stack import NativeStack
from frond.stack.small_disk import why_no_small_disk
from frond.store import ObjectStore, StoreSettings
from frond.store.s3 import S3

pytestmark = [pytest.mark.stack, pytest.mark.slow]
_MIB = 1 << 20


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeStack]:
    small = 0 if why_no_small_disk() else 96
    folder = tmp_path_factory.mktemp("faulty")
    with NativeStack(folder, proxied=True, small_disk_mb=small) as stack:
        yield stack


@pytest.fixture
async def store(faulty: NativeStack) -> ObjectStore:
    return await _open(faulty)


@pytest.fixture(autouse=True)
def mended(faulty: NativeStack) -> Iterator[None]:
    yield
    faulty.proxies["s3"].reset()
    for disk in faulty.disks.values():
        disk.make_room()


async def _open(stack: NativeStack) -> ObjectStore:
    settings = StoreSettings(stack.s3_endpoint, stack.access_key, stack.secret_key, "things")
    opened = ObjectStore(settings)
    await opened.ensure_bucket()
    return opened


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_large_part_gets_through_a_slow_line(
    store: ObjectStore, faulty: NativeStack, streamed: bool
) -> None:
    """Slow is fine: a part takes longer than a connection's deadline, and arrives."""
    faulty.proxies["s3"].add("bandwidth", "upstream", rate=800)
    data = secrets.token_bytes(8 * _MIB)
    # a connection that is new has the shortest deadline of all
    fresh = await _open(faulty)
    if streamed:

        def write() -> None:
            with fresh.writer("slow") as out:
                out.write(data)

        await fresh.in_thread(write)
    else:
        await fresh.put("slow", data)
    faulty.proxies["s3"].reset()
    assert await fresh.get("slow") == data
    fresh.close()


async def test_an_answer_that_is_cut_off_is_an_outage(
    store: ObjectStore, faulty: NativeStack
) -> None:
    """Half an object is never taken for the object."""
    await store.put("whole", secrets.token_bytes(2 * _MIB))
    faulty.proxies["s3"].add("limit_data", "downstream", bytes=300_000)
    with pytest.raises(StoreUnavailable):
        await store.get("whole")
    with pytest.raises(StoreUnavailable):
        async for _ in store.stream("whole"):
            pass


async def test_a_replacement_whose_answer_was_lost_has_happened(
    store: ObjectStore, faulty: NativeStack
) -> None:
    """The request is sent again by the client library; that its own first one won is no defeat."""
    first = await store.put("claim", b"old")

    class Deaf(S3):
        """Hears nothing of the first answer, as when a connection breaks after the request."""

        def put_bytes(self, *args: object) -> object:
            super().put_bytes(*args)  # type: ignore[arg-type]
            return super().put_bytes(*args)  # type: ignore[arg-type]

    store.s3.__class__ = Deaf
    assert await store.replace("claim", b"new", first.etag)
    assert not await store.replace("claim", b"newer", first.etag)
    assert await store.get("claim") == b"new"


async def test_a_full_store_is_an_outage_and_shows_nothing_half_written(
    store: ObjectStore, faulty: NativeStack, tmp_path: Path
) -> None:
    """Small objects, parts and whole files: each waits, none is taken for missing."""
    if not faulty.disks:
        pytest.skip(why_no_small_disk())
    await store.put("before", b"kept")
    large = tmp_path / "large"
    large.write_bytes(secrets.token_bytes(9 * _MIB))
    for leave in (6 * _MIB, 0):
        faulty.disks["s3"].make_room()
        faulty.disks["s3"].fill(leave)
        with pytest.raises(StoreUnavailable):
            await store.put_file("large", large)
    for size in (10, 200_000, 3 * _MIB):
        with pytest.raises(StoreFull):
            await store.put("during", b"x" * size)
        with pytest.raises(StoreFull):
            await store.put_if_absent("during", b"x" * size)
    assert await store.get("before") == b"kept"
    # whatever a metadata write that failed half-way left behind must not show
    assert [o.key async for o in store.list("")] == [
        k for k in ("before", "claim", "slow", "whole") if await store.exists(k)
    ]
    faulty.disks["s3"].make_room()
    await _once_there_is_room(store, large)
    assert await store.get("large") == large.read_bytes()


async def _once_there_is_room(store: ObjectStore, path: Path) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                return await store.put_file("large", path)
            except StoreUnavailable:
                await asyncio.sleep(0.2)  # MinIO looks at its disk's room by a clock of its own
