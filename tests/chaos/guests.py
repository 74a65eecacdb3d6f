"""Jobs that no calm run can repeat byte for byte: what a scenario needs besides the feeder's jobs.

Their ids are chosen, their objects' names are not always (a form's uploads have random ones), and
how a cancelled job ends depends on the moment. What must become of each is told to its
book (:mod:`chaos.guestbook`) before any of it is sent.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import Any, Final

import httpx

from chaos import jobs, rasters
from chaos.guestbook import REPLAY, Guest, Wanted
from chaos.hosting import COMPLETED, SOON_S, Hosting
from chaos.world import World
from frond.contracts import keys, topics
from frond.contracts.events import ImageUploaded
from frond.contracts.jobs import JobOutcome
from frond.contracts.reasons import Reason
from frond.models.registry import Registry
from frond.models.testing import blob_model

FAILED: Final = (JobOutcome.COMPLETED_WITH_ERRORS,)
DISMISSED: Final = (JobOutcome.DISMISSED,)
_ONCE: Final = (1, 1)
_PADDED: Final = 2 << 20
_LARGE: Final = 10 << 20


class Guests(Hosting):
    """Submits them, each to its end."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._pushed = False

    # -- by forms ----------------------------------------------------------------------------------

    async def form(self, key: str | None = None, times: int = 1, padded: int = _PADDED) -> str:
        """POST /upload, so many times over; one file is longer than a piece."""
        wanted = [Wanted("form-0.tif"), Wanted("form-1.tif")]
        job_id = await self.new("form", wanted, notices=_ONCE)
        fields = {"job_id": job_id, "webhook_url": self.world.feeder.webhook_url}
        headers = {"Idempotency-Key": key} if key else {}
        for _ in range(times):
            answer = await self.ask(
                "POST", "/upload", data=fields, files=_files("form", padded), headers=headers
            )
            assert answer.json()["job_id"] == job_id
        await self.book.acknowledge(job_id)
        return job_id

    async def form_with_key(self) -> str:
        """A form with an Idempotency-Key."""
        return await self.form(secrets.token_hex(8))

    async def form_large(self) -> str:
        """A form with a file that goes to the store in parts."""
        return await self.form(padded=_LARGE)

    async def form_twice(self) -> str:
        """The same form twice, without a key: one job, with the files of the first."""
        return await self.form(times=2)

    async def form_into_open(self) -> str:
        """POST /upload into a job that is open already; then it is sealed."""
        wanted = [Wanted("form-0.tif"), Wanted("form-1.tif")]
        job_id = await self.begun("form into open", wanted, put=())
        await self.ask("POST", "/upload", data={"job_id": job_id}, files=_files("form"))
        await self.seal(job_id)
        return job_id

    async def form_once(self) -> bool:
        """A form of a client that never comes back; whether it was answered."""
        job_id = await self.new("form once", [Wanted("lost-0.tif"), Wanted("lost-1.tif")])
        fields = {"job_id": job_id}
        answered = await self.try_once("POST", "/upload", data=fields, files=_files("lost"))
        if answered:
            await self.book.acknowledge(job_id)
        return answered

    # -- in parts ----------------------------------------------------------------------------------

    async def parts(self) -> str:
        """An image that its sender puts into the store in parts."""
        job_id = await self.begun("parts", [Wanted("parts.tif")], put=())
        await self._in_parts(job_id, rasters.small(1))
        await self.seal(job_id)
        return job_id

    async def misfit(self) -> str:
        """The same, but first with another size than was said: refused, and sent again."""
        job_id = await self.begun("misfit", [Wanted("parts.tif")], put=())
        data = rasters.small(1)
        try:
            await self._in_parts(job_id, data, said=len(data) + 1)
        except AssertionError as e:
            # who asks again after a death finds that there is no such upload any more
            if " 422 " not in str(e) and " 404 " not in str(e):
                raise
        else:
            raise AssertionError("a raster of another size than was said was taken")
        await self._in_parts(job_id, data)
        await self.seal(job_id)
        return job_id

    async def parts_given_up(self) -> str:
        """A job that is cancelled while a raster is coming in parts."""
        job_id = await self.begun("parts given up", [Wanted("parts.tif")], DISMISSED, put=())
        await self._begin_parts(job_id, 100)
        await self.cancel(job_id)
        return job_id

    async def _begin_parts(self, job_id: str, size: int) -> dict[str, Any]:
        path = f"/jobs/{job_id}/images/parts.tif/multipart"
        return dict((await self.ask("POST", path, json={"size": size})).json())

    async def _in_parts(self, job_id: str, data: bytes, said: int | None = None) -> None:
        begun = await self._begin_parts(job_id, said or len(data))
        async with httpx.AsyncClient(timeout=20, trust_env=False) as http:
            put = await http.put(begun["part_urls"][0], content=data)
        part = {"number": 1, "etag": put.headers["etag"]}
        done = {"upload_id": begun["upload_id"], "parts": [part]}
        await self.ask("POST", f"/jobs/{job_id}/images/parts.tif/multipart/complete", json=done)

    # -- how a job may go on -----------------------------------------------------------------------

    async def refused(self) -> str:
        """A prefix with objects whose addresses no event can hold."""
        bad = [Wanted(f"{n}\tcolumns.tif", Reason.BAD_IMAGE_URI) for n in ("two", "three")]
        wanted = [Wanted("fine.tif"), *bad]
        names = [w.name for w in wanted]
        job_id = await self.new("refused", wanted, FAILED, notices=_ONCE, brought=names)
        await self.bring(job_id, {name: rasters.small(2) for name in names})
        body = {
            "job_id": job_id, "s3_url": f"s3://{jobs.BUCKET}/guests/{job_id}/",
            "webhook_url": self.world.feeder.webhook_url,
        }  # fmt: skip
        await self.ask("POST", "/start-job", json=body)
        await self.book.acknowledge(job_id)
        return job_id

    async def cancelled(self) -> str:
        """A job that is cancelled while it is open."""
        job_id = await self.begun("cancelled", outcomes=DISMISSED, notices=_ONCE)
        await self.put(job_id)
        await self.cancel(job_id)
        return job_id

    async def retried(self) -> str:
        """A job that has ended with a failed image, and is run again."""
        text = [Wanted("text.tif", Reason.NOT_A_RASTER)]
        job_id = await self.begun("to be retried", text, FAILED, notices=_ONCE)
        await self.ask("PUT", f"/jobs/{job_id}/images/text.tif", content=b"no raster at all")
        await self.seal(job_id)
        await self.ended(job_id)
        retry = f"{job_id}-retry-1"
        await self.book.expect(Guest(retry, "retry", tuple(text), FAILED, _ONCE))
        answer = await self.ask("POST", f"/jobs/{job_id}/retry", json={})
        assert answer.json()["job_id"] == retry
        await self.book.acknowledge(retry)
        return retry

    async def deleted(self) -> str:
        """A job that has ended, and is deleted."""
        job_id = await self.begun("deleted", deleted=True)
        await self.put(job_id)
        await self.seal(job_id)
        await self.ended(job_id)
        try:
            await self.ask("DELETE", f"/jobs/{job_id}")
        except AssertionError as e:
            # the first attempt had done it all but answer
            if " 404 " not in str(e):
                raise
        return job_id

    async def replayed(self) -> str:
        """A job whose webhook is sent once more: one round, however often it is asked for."""
        job_id = await self._told((2, 2))
        headers = {"Idempotency-Key": secrets.token_hex(8)}
        self._replaying(job_id)
        await self.ask("POST", f"/jobs/{job_id}/webhooks/replay", headers=headers)
        return job_id

    async def replayed_by_two(self) -> str:
        """A client that never comes back asks for a round, another one for the next."""
        job_id = await self._told((2, 5))
        self._replaying(job_id)
        await self.try_once("POST", f"/jobs/{job_id}/webhooks/replay")
        self._replaying(job_id)

        async def taken() -> bool:
            try:
                await self.ask("POST", f"/jobs/{job_id}/webhooks/replay")
            except AssertionError as e:
                # for as long as the first round has not ended
                if " 409 " not in str(e):
                    raise
                return False
            return True

        assert await self.book.until(taken, 4 * SOON_S), f"{job_id} is never told of once more"
        return job_id

    def _replaying(self, job_id: str) -> None:
        self.world.oracle.note(REPLAY, job_id=job_id)

    async def _told(self, notices: tuple[int, int]) -> str:
        job_id = await self.begun("replayed", notices=notices)
        await self.put(job_id)
        await self.seal(job_id)
        await self.ended(job_id)
        return job_id

    async def forgotten(self) -> None:
        """The note of a job that was deleted before anybody was told of its end."""
        job_id = f"guest-{self.world.feeder.seed}-nobody-{secrets.token_hex(4)}"
        store = self.world.installation.store()
        try:
            await store.put(keys.untold_marker(job_id), b"{}", "application/json")

            async def gone() -> bool:
                return not await store.exists(keys.untold_marker(job_id))

            assert await self.book.until(gone, SOON_S), f"{job_id} is waited for in vain"
        finally:
            store.close()

    # -- by events ---------------------------------------------------------------------------------

    async def botched(self) -> str:
        """A job one of whose messages is no event, but names its image."""
        wanted = [Wanted("fine.tif"), Wanted("botched.tif", Reason.BAD_REQUEST)]
        job_id = await self.new("botched", wanted, FAILED, brought=["fine.tif"])
        await self.bring(job_id, {"fine.tif": rasters.small(4)})
        image = f"s3://{jobs.BUCKET}/guests/{job_id}/"
        await self.world.feeder.send(
            [ImageUploaded(job_id=job_id, image=f"{image}fine.tif", name="fine.tif", job_size=2)]
        )
        said = {"job_id": job_id, "image": f"{image}botched.tif", "thresholds": {"score": 7}}
        await self.rubbish(topics.UPLOADED, job_id.encode(), json.dumps(said).encode())
        await self.book.acknowledge(job_id)
        return job_id

    async def many_chunks(self) -> str:
        """An image of more chunks than are sent at once; to be cancelled by :meth:`drop`."""
        wanted = [Wanted("tiny.tif", squares=0)]
        job_id = await self.new(
            "many chunks", wanted, (*COMPLETED, *DISMISSED), brought=["tiny.tif"]
        )
        if not self._pushed:
            await self._push_tiny()
        await self.bring(job_id, {"tiny.tif": await asyncio.to_thread(rasters.empty)})
        image = f"s3://{jobs.BUCKET}/guests/{job_id}/tiny.tif"
        await self.world.feeder.send(
            [ImageUploaded(job_id=job_id, image=image, model="tiny", job_size=1)]
        )
        await self.book.acknowledge(job_id)
        return job_id

    async def _push_tiny(self) -> None:
        folder = self.world.installation.folder / "tiny"
        await asyncio.to_thread(blob_model, folder, 32, name="tiny", margin=8)
        store = self.world.installation.store()
        await Registry(store).push(folder, alias="production")
        self.world.strangers += [i.key async for i in store.list(f"{keys.MODELS}tiny/")]
        store.close()
        self._pushed = True

    async def drop(self, job_id: str) -> None:
        """Cancel a job that has done its duty, unless it has ended."""

        async def cancelled() -> bool:
            try:
                await self.ask("POST", f"/jobs/{job_id}/cancel")
            except AssertionError as e:
                # the read model has not heard of it yet; 409: it has ended
                if " 404 " not in str(e) and " 409 " not in str(e):
                    raise
                return " 409 " in str(e)
            return True

        assert await self.book.until(cancelled, SOON_S), f"nobody knows of {job_id}"


def _files(stem: str, padded: int = _PADDED) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [
        ("files", (f"{stem}-{i}.tif", rasters.small(i) + bytes(padded * i), "image/tiff"))
        for i in range(2)
    ]
