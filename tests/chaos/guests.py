"""Jobs that no calm run can repeat byte for byte: what a scenario needs besides the feeder's jobs.

Their ids are chosen, their objects' names are not always (a form's uploads have random ones), and
how a cancelled job ends depends on the moment. So they are held against what must be true of any
job: each ends once, with the images it was given.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from dataclasses import dataclass
from typing import Any, Final

import httpx
import numpy as np
from rasterio.io import MemoryFile

from chaos import jobs
from chaos.jobs import Bad, Door, JobPlan, Picture
from chaos.world import World
from frond.contracts import keys
from frond.contracts.events import ImageUploaded
from frond.models.registry import Registry
from frond.models.testing import blob_model
from frond.store import ObjectStore
from support.planted import BACKGROUND, MAGENTA, SIDE, planted

_WIDE: Final = (8448, 1920)
_TINY: Final = 2240
_PADDED: Final = 2 << 20
_ABANDONED_S: Final = 120.0
_MANY: Final = 10


@dataclass(frozen=True)
class Wide(Picture):
    """A raster in strips so wide that it is copied before it is read."""

    def data(self) -> bytes:
        width, height = _WIDE
        image = _plain(width, height)
        for i in range(self.count):
            x, y = 200 + 900 * i, 300 + 100 * i
            image[y : y + SIDE, x : x + SIDE] = MAGENTA
        return _tiff(image, tiled=False)


@dataclass(frozen=True)
class Broken(Picture):
    """A raster with a tile that cannot be decoded: planned, and then failed by its reader."""

    def data(self) -> bytes:
        whole = bytearray(planted(self.name, self.seed, side=self.side, count=self.count).data)
        middle = len(whole) // 2
        whole[middle : middle + 600] = b"\xff" * 600
        return bytes(whole)


class Guests:
    """Submits them, and knows what must have become of each.

    Attributes:
        expected: images of each job that must end; None where it is a matter of chance.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.expected: dict[str, int | None] = {}
        self._count = 0
        self._pushed = False
        world.strangers += [
            "deleted/*",
            "models/tiny/*",
            f"{keys.UPLOADS}u-*",
            f"{keys.RECEIVING}*",
        ]

    def new_id(self) -> str:
        """A job id of its own; what is stored of it is no orphan."""
        self._count += 1
        job_id = f"guest-{self.world.feeder.seed}-{self._count:04d}"
        self.world.strangers += [
            f"jobs/{job_id}/*", f"{keys.OPEN}{job_id}", f"{keys.DELIVERIES}{job_id}/*",
            f"{keys.UPLOADS}{job_id}/*", f"guests/{job_id}/*",
        ]  # fmt: skip
        return job_id

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        return await self.world.feeder.ask(method, path, **more)

    # -- jobs that are compared, but not of the usual kind -----------------------------------------

    async def by_rest(self) -> None:
        """A job through each of the doors of REST that are compared."""
        for door in (Door.PUT, Door.PREFIX):
            if len(self.world.feeder.open_jobs()) < 3 * _MANY:
                await self.world.feeder.submit(self.world.feeder.next(door=door, images=2))

    async def by_topic(self) -> None:
        """A job whose images come by events; none while many are open."""
        if len(self.world.feeder.open_jobs()) < _MANY:
            await self.world.feeder.submit(self.world.feeder.next(door=Door.TOPIC_SIZE, images=2))

    async def sealed_on_topic(self) -> None:
        """A job that is sealed by an event."""
        await self.world.feeder.submit(self.world.feeder.next(door=Door.TOPIC_SEAL, images=2))

    async def several_chunks(self) -> None:
        """An image of two chunks, which the table of the image stage counts."""
        plan = self.world.feeder.next(door=Door.TOPIC_SIZE, images=1, side=1300, bad=0)
        await self.world.feeder.submit(plan)

    async def wide(self) -> None:
        """An image that has to be copied into a tiled one."""
        await self._picture(Wide, "good-wide.tif", Bad.NO)

    async def broken(self) -> None:
        """An image of which a chunk fails: too large to be read whole when it is planned."""
        await self._picture(Broken, "broken.tif", Bad.TRUNCATED, side=2304)

    async def _picture(self, kind: type[Picture], name: str, bad: Bad, side: int = 256) -> None:
        base = self.world.feeder.next(door=Door.TOPIC_SIZE, images=1)
        picture = kind(name, base.images[0].seed, side=side, bad=bad)
        await self.world.feeder.submit(JobPlan(base.job_id, base.door, (picture,)))

    async def told_late(self) -> None:
        """A job whose first message names no webhook, and whose later ones do."""
        plan = self.world.feeder.next(door=Door.TOPIC_SIZE, images=2, bad=0)
        await asyncio.to_thread(self.world.oracle.submitting, plan)
        picture = plan.images[0]
        # its raster is there before its message is
        store = self.world.installation.store()
        await store.put(plan.key(picture), picture.data(), "image/tiff")
        store.close()
        await self.world.feeder.send(
            [
                ImageUploaded(
                    job_id=plan.job_id, image=plan.uri(picture), name=picture.name, job_size=2
                )
            ]
        )
        await self.world.feeder.submit(plan)

    # -- jobs that are not -------------------------------------------------------------------------

    async def form(self) -> str:
        """POST /upload with a key of idempotency; one file is longer than a piece."""
        job_id = self.new_id()
        files = [
            ("files", (f"form-{i}.tif", _small(i) + bytes(_PADDED * i), "image/tiff"))
            for i in range(2)
        ]
        headers = {"Idempotency-Key": secrets.token_hex(8)}
        answer = await self.ask(
            "POST", "/upload", data={"job_id": job_id}, files=files, headers=headers
        )
        assert answer.json()["job_id"] == job_id
        self.expected[job_id] = 2
        return job_id

    async def form_into_open(self) -> str:
        """POST /upload into a job that is open already; then it is sealed."""
        job_id = await self._begun()
        files = [("files", (f"more-{i}.tif", _small(i), "image/tiff")) for i in range(2)]
        await self.ask("POST", "/upload", data={"job_id": job_id}, files=files)
        await self.ask("POST", f"/jobs/{job_id}/seal", json={})
        self.expected[job_id] = 2
        return job_id

    async def parts(self) -> str:
        """An image that its sender puts into the store in parts."""
        job_id = await self._begun()
        data = _small(1)
        path = f"/jobs/{job_id}/images/parts.tif/multipart"
        begun = (await self.ask("POST", path, json={"size": len(data)})).json()
        async with httpx.AsyncClient(timeout=20, trust_env=False) as http:
            put = await http.put(begun["part_urls"][0], content=data)
        done = {
            "upload_id": begun["upload_id"],
            "parts": [{"number": 1, "etag": put.headers["etag"]}],
        }
        await self.ask("POST", f"{path}/complete", json=done)
        await self.ask("POST", f"/jobs/{job_id}/seal", json={})
        self.expected[job_id] = 1
        return job_id

    async def refused(self) -> str:
        """A prefix with an object whose address no event can hold."""
        job_id = self.new_id()
        store = self.world.installation.store()
        for name in ("fine.tif", "two\tcolumns.tif"):
            await store.put(f"guests/{job_id}/{name}", _small(2), "image/tiff")
        store.close()
        where = f"s3://{jobs.BUCKET}/guests/{job_id}/"
        await self.ask("POST", "/start-job", json={"job_id": job_id, "s3_url": where})
        self.expected[job_id] = 2
        return job_id

    async def cancelled(self) -> str:
        """A job that is cancelled while it is open."""
        job_id = await self._begun()
        await self.put(job_id)
        await self.ask("POST", f"/jobs/{job_id}/cancel")
        self.expected[job_id] = None
        return job_id

    async def retried(self) -> str:
        """A job that has ended with a failed image, and is run again."""
        job_id = await self._begun()
        await self.ask("PUT", f"/jobs/{job_id}/images/text.tif", content=b"no raster at all")
        await self.seal(job_id, 1)
        await self.world.watch.end_of([job_id], 180)
        retry = f"{job_id}-retry-1"
        self.world.strangers += [
            f"jobs/{retry}/*", f"{keys.OPEN}{retry}", f"{keys.DELIVERIES}{retry}/*",
        ]  # fmt: skip
        answer = await self.ask("POST", f"/jobs/{job_id}/retry", json={})
        assert answer.json()["job_id"] == retry
        self.expected[retry] = 1
        return retry

    async def deleted(self) -> str:
        """A job that has ended, and is deleted."""
        job_id = await self._begun()
        await self.put(job_id)
        await self.ask("POST", f"/jobs/{job_id}/seal", json={})
        await self.world.watch.end_of([job_id], 180)
        while (await self.ask("GET", f"/jobs/{job_id}")).json()["status"] != "successful":
            await self.world.watch.any_change(0.3)
        try:
            await self.ask("DELETE", f"/jobs/{job_id}")
        except AssertionError as e:
            # the first attempt had done it all but answer
            if "404" not in str(e):
                raise
        return job_id

    async def many_chunks(self) -> str:
        """An image of more chunks than are sent at once; cancelled by :meth:`drop`."""
        job_id = self.new_id()
        store = self.world.installation.store()
        if not self._pushed:
            folder = self.world.installation.folder / "tiny"
            await asyncio.to_thread(blob_model, folder, 32, name="tiny", margin=8)
            await Registry(store).push(folder, alias="production")
            self._pushed = True
        key = f"guests/{job_id}/tiny.tif"
        data = await asyncio.to_thread(lambda: _tiff(_plain(_TINY, _TINY), tiled=True))
        await store.put(key, data, "image/tiff")
        store.close()
        image = f"s3://{jobs.BUCKET}/{key}"
        await self.world.feeder.send(
            [ImageUploaded(job_id=job_id, image=image, model="tiny", job_size=1)]
        )
        self.expected[job_id] = None
        return job_id

    async def put(self, job_id: str, *, once: bool = False) -> bool:
        """PUT an image; with ``once``, as a client that never comes back. Whether it was answered."""
        path = f"/jobs/{job_id}/images/one.tif"
        if not once:
            await self.ask("PUT", path, content=_small(3))
            return True
        return await self.try_once("PUT", path, content=_small(3))

    async def try_once(self, method: str, path: str, **more: Any) -> bool:
        """One request; whether it was answered well."""
        here = self.world.installation
        headers = {"Authorization": f"Bearer {here.env['FROND_API_KEY']}"}
        async with httpx.AsyncClient(timeout=20, trust_env=False, headers=headers) as http:
            try:
                answer = await http.request(
                    method, here.url(here.names("ingest")[0]) + path, **more
                )
            except httpx.TransportError:
                return False
        return answer.is_success

    async def begun(self) -> str:
        """A job of REST without an image yet."""
        return await self._begun()

    async def _begun(self) -> str:
        job_id = self.new_id()
        await self.ask("POST", "/jobs", json={"job_id": job_id})
        return job_id

    async def seal(self, job_id: str, size: int) -> None:
        await self.ask("POST", f"/jobs/{job_id}/seal", json={})
        self.expected[job_id] = size

    # -- what must be true of them -----------------------------------------------------------------

    async def drop(self, job_id: str) -> None:
        """Cancel a job that has done its duty."""
        while True:
            try:
                await self.ask("POST", f"/jobs/{job_id}/cancel")
                return
            except AssertionError as e:
                if "404" not in str(e):  # the read model has not heard of it yet
                    return
                await self.world.watch.any_change(0.5)

    async def check(self) -> None:
        """Every one of them has ended, with its images; what is not so is lost."""
        figures = self.world.figures
        try:
            await self.world.watch.end_of(self.expected, 240)
        except AssertionError as e:
            figures.lose(str(e))
        store = self.world.installation.store()
        try:
            for job_id, images in self.expected.items():
                if images is None:
                    continue
                raw = await store.get(keys.job_completed(job_id))
                told = jobs_images(raw)
                if told != images:
                    figures.lose(f"job {job_id} ended with {told} images, not {images}")
            await self._no_abandoned_forms(store)
        finally:
            store.close()

    async def _no_abandoned_forms(self, store: ObjectStore) -> None:
        """What forms left whose requests died is removed in time; all else is some job's."""
        given = set()
        for job_id in self.expected:
            async for found in store.list(keys.job_inputs(job_id)):
                given.add(json.loads(await store.get(found.key))["image"])
        end = time.monotonic() + _ABANDONED_S
        while True:
            left = [
                item.key
                async for item in store.list(f"{keys.UPLOADS}u-")
                if store.uri(item.key) not in given
            ]
            if not left:
                return
            if time.monotonic() > end:
                self.world.figures.lose(f"orphans of forms: {left[:5]}")
                return
            await asyncio.sleep(1.0)  # the sweeper announces itself to nobody


def jobs_images(completed: bytes) -> int:
    """How many images a completed event accounts for."""
    counts = json.loads(completed)["images"]
    return int(counts["completed"] + counts["failed"])


def _plain(width: int, height: int) -> Any:
    image = np.empty((height, width, 3), np.uint8)
    image[:] = BACKGROUND
    return image


def _tiff(image: Any, *, tiled: bool) -> bytes:
    layout: dict[str, Any] = {"tiled": True, "blockxsize": 256, "blockysize": 256} if tiled else {}
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", width=image.shape[1], height=image.shape[0], count=3, dtype="uint8",
            compress="deflate", **layout,
        ) as out:  # fmt: skip
            out.write(image.transpose(2, 0, 1))
        return bytes(memory.read())


def _small(seed: int) -> bytes:
    return planted(f"guest-{seed}", 77_000 + seed).data
