"""The object store, on the real one: whole objects, streams, ranges, first writer wins."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
from collections.abc import Iterator

import pytest
from minio.error import S3Error

from frond.contracts.errors import ObjectMissing, StoreUnavailable
from frond.store import ObjectStore, StoreSettings

pytestmark = pytest.mark.stack


@pytest.fixture
def store(service_env: dict[str, str]) -> Iterator[ObjectStore]:
    opened = ObjectStore(
        StoreSettings(
            service_env["FROND_S3_ENDPOINT"], service_env["FROND_S3_ACCESS_KEY"],
            service_env["FROND_S3_SECRET_KEY"], service_env["FROND_S3_BUCKET"],
        )
    )  # fmt: skip
    yield opened
    opened.close()


async def test_an_object_comes_back_as_it_was(store: ObjectStore) -> None:
    """Bytes, size, content type and metadata; names in other scripts too."""
    for key in ("a/b.bin", "ø/пальма 棕榈 (1)+=.tif"):
        await store.put(key, b"12345", "image/tiff", {"sha256": "ab"})
        assert await store.get(key) == b"12345"
        stat = await store.stat(key)
        assert (stat.size, stat.content_type, stat.metadata["sha256"]) == (5, "image/tiff", "ab")


async def test_what_is_not_there_is_missing(store: ObjectStore) -> None:
    """A missing key and a missing bucket raise ObjectMissing, never anything else."""
    for call in (store.get("no"), store.stat("no"), store.stat("x", bucket="no-such-bucket-1")):
        with pytest.raises(ObjectMissing):
            await call
    for odd in ("a//b.tif", "x/" + "n" * 300, "k" * 1100, "a/../b.tif"):
        with pytest.raises(ObjectMissing):
            await store.stat(odd)
    assert not await store.exists("no")
    await store.delete("no")


async def test_bytes_are_those_whose_hash_is_told(store: ObjectStore) -> None:
    """The hash of what a writer was given goes with it: the store takes no other bytes."""
    with store.writer("a/b.bin") as out:
        out.write(b"12345")
    assert await store.get("a/b.bin") == b"12345"
    told = hashlib.sha256(b"12345").hexdigest()
    for data, sha256, stored in ((b"12346", told, b"12345"), (b"12346", None, b"12346")):
        with contextlib.suppress(S3Error):
            store.s3.put_bytes(store.bucket, "a/b.bin", data, {}, sha256=sha256)
        assert await store.get("a/b.bin") == stored


async def test_the_first_writer_wins(store: ObjectStore) -> None:
    """Of many that put at once one wins, and all are told the same."""
    told = await asyncio.gather(
        *(store.put_if_absent("jobs/x/job.json", str(i).encode()) for i in range(20))
    )
    assert len(set(told)) == 1
    assert await store.get("jobs/x/job.json") == told[0]


async def test_what_is_deleted_meanwhile_is_put(store: ObjectStore) -> None:
    """Refused because it was there, gone when it is read: no error, and somebody's bytes."""

    async def putting(me: bytes) -> list[bytes]:
        return [await store.put_if_absent("deliveries/x", me) for _ in range(100)]

    async def deleting() -> None:
        for _ in range(100):
            await store.delete("deliveries/x")

    *told, _, _ = await asyncio.gather(putting(b"a"), putting(b"b"), deleting(), deleting())
    assert {one for some in told if some for one in some} <= {b"a", b"b"}


async def test_what_is_there_is_read_and_what_is_not_is_put(store: ObjectStore) -> None:
    """Of many at once one puts it, all are told the same, and later ones, too."""
    told = await asyncio.gather(
        *(store.get_or_put("jobs/x/sealed.json", str(i).encode()) for i in range(20))
    )
    assert len(set(told)) == 1
    assert await store.get_or_put("jobs/x/sealed.json", b"late") == told[0]
    assert await store.get("jobs/x/sealed.json") == told[0]


async def test_a_stream_of_parts_is_one_object(store: ObjectStore) -> None:
    """20 MiB written in odd pieces come back whole, by range too, with the digest counted."""
    piece = bytes(range(256)) * 1001

    def write() -> tuple[str, int]:
        with store.writer("big", "image/tiff") as sink:
            for _ in range(82):
                sink.write(piece)
        return sink.sha256, sink.size

    digest, size = await store.in_thread(write)
    whole = piece * 82
    assert (digest, size) == (hashlib.sha256(whole).hexdigest(), len(whole))
    got = b"".join([part async for part in store.stream("big")])
    assert got == whole
    got = b"".join([part async for part in store.stream("big", offset=1_000_003, length=77)])
    assert got == whole[1_000_003 : 1_000_003 + 77]


async def test_an_aborted_stream_leaves_nothing(store: ObjectStore) -> None:
    """An exception while writing leaves the object as it was: not there."""

    def write() -> None:
        with store.writer("half") as sink:
            sink.write(bytes(9 << 20))
            raise RuntimeError("the source broke off")

    with pytest.raises(RuntimeError):
        await store.in_thread(write)
    assert not await store.exists("half")


async def test_listing_is_in_order_over_pages(store: ObjectStore) -> None:
    """1,100 objects, more than a page, each once and in order; then all gone."""
    names = [f"p/{i:05d}" for i in range(1100)]
    slots = asyncio.Semaphore(16)

    async def put(name: str) -> None:
        async with slots:
            await store.put(name, b"x")

    await asyncio.gather(*map(put, names))
    listed = [item.key async for item in store.list("p/")]
    assert listed == names
    rest = [item.key async for item in store.list("p/", start_after=names[1000])]
    assert rest == list(itertools.islice(names, 1001, None))
    assert await store.delete_prefix("p/") == 1100
    assert [item async for item in store.list("p/")] == []


async def test_refused_in_our_own_bucket_is_no_missing_object(store: ObjectStore) -> None:
    """A wrong secret is a fault of the installation: it is waited out, never taken for a hole."""
    s = store.settings
    wrong = ObjectStore(StoreSettings(s.endpoint, s.access_key, "wrong-secret", s.bucket))
    for call in (wrong.stat("x"), wrong.get("x"), wrong.put("x", b"")):
        with pytest.raises(StoreUnavailable):
            await call
    wrong.close()


async def test_head_bytes_tell_what_a_stat_tells(store: ObjectStore) -> None:
    """In one request; also of objects shorter than asked for, and of none."""
    for data in (b"0123456789" * 100, b"abc", b""):
        await store.put("h/x", data)
        stat, head = await store.head_bytes("h/x", 512)
        there = await store.stat("h/x")
        assert head == data[:512]
        assert (stat.key, stat.size, stat.etag) == (there.key, there.size, there.etag)
    with pytest.raises(ObjectMissing):
        await store.head_bytes("h/none", 512)


async def test_a_store_that_is_away_says_so() -> None:
    """Nothing listens there: StoreUnavailable, which the caller waits out."""
    away = ObjectStore(StoreSettings("http://127.0.0.1:9", "a", "b" * 8, "bucket"))
    with pytest.raises(StoreUnavailable):
        await away.get("x")
    away.close()
