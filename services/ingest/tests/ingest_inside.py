"""An ingest inside the test, whose places are counted and whose store does things in between."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from frond.contracts import keys
from frond.ingest.context import Ingest
from frond.ingest.intake import File
from frond.ingest.problems import Refused
from frond.ingest.rooms import Room, make_room
from frond.ingest.settings import IngestSettings
from frond.store import Listed, ObjectStore
from frond.store.client import Stat


class Watched(ObjectStore):
    """A store that does something after it was asked for one object or prefix, and before it answers."""

    at = ""
    then: Callable[[], Awaitable[None]]

    def once(self, at: str, then: Callable[[], Awaitable[None]]) -> None:
        self.at, self.then = at, then

    async def _asked(self, key: str) -> None:
        if key == self.at:
            self.at = ""
            await self.then()

    async def stat(self, key: str, *, bucket: str | None = None) -> Stat:
        try:
            return await super().stat(key, bucket=bucket)
        finally:
            await self._asked(key)

    async def list(
        self, prefix: str, *, bucket: str | None = None, start_after: str | None = None
    ) -> AsyncIterator[Listed]:
        found = [f async for f in super().list(prefix, bucket=bucket, start_after=start_after)]
        await self._asked(prefix)
        for item in found:
            yield item

    async def head_bytes(
        self, key: str, length: int, *, bucket: str | None = None
    ) -> tuple[Stat, bytes]:
        found = await super().head_bytes(key, length, bucket=bucket)
        await self._asked(key)
        return found

    async def put(
        self,
        key: str,
        data: bytes,
        content_type: str = "application/octet-stream",
        metadata: dict[str, str] | None = None,
    ) -> Stat:
        done = await super().put(key, data, content_type, metadata)
        await self._asked(key)
        return done


async def an_ingest(store: ObjectStore, database: Path) -> Ingest:
    """An ingest of this process, whose jobs may have two images."""
    s = store.settings
    made = Ingest(
        IngestSettings(
            s3_endpoint=s.endpoint, s3_access_key=s.access_key, s3_secret_key=s.secret_key,
            s3_bucket=store.bucket, DATABASE_PATH=database, max_files=2,
        )  # type: ignore[call-arg]
    )  # fmt: skip
    made.store.close()
    made.store = Watched(made.store.settings)
    await made.prepared()
    return made


def watched(ingest: Ingest) -> Watched:
    assert isinstance(ingest.store, Watched)
    return ingest.store


def raster(ingest: Ingest, job: str, name: str, mark: str = "upload:1") -> File:
    return File(name=name, image=ingest.store.uri(keys.job_upload(job, name)), mark=mark, size=0)


async def takes(ingest: Ingest, job: str, count: int) -> bool:
    """Whether exactly so many more images have room."""
    rooms: list[Room] = []
    try:
        for n in range(count):
            rooms.append(await make_room(ingest, job, [f"more-{n}.tif"]))
        with pytest.raises(Refused):
            await make_room(ingest, job, ["above.tif"])
    except (Refused, pytest.fail.Exception):
        return False
    finally:
        for room in rooms:
            room.leave()
    return True
