"""What every guest does: it begins, is given images, and comes to its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import httpx
from aiokafka import AIOKafkaProducer

from chaos import rasters
from chaos.guestbook import Guest, Guestbook, Wanted
from chaos.world import World
from frond.contracts import keys
from frond.contracts.jobs import JobOutcome
from frond.contracts.topics import Topic

COMPLETED: Final = (JobOutcome.COMPLETED,)
ONE: Final = (Wanted("one.tif"),)
SOON_S: Final = 150.0
# a service that is killed every few seconds finishes nothing meanwhile; on a busy machine the points
# of one service take five minutes and more. Whether a job ends at all is judged afterwards
_PATIENCE_S: Final = 900.0


class Hosting:
    """Raises AssertionError where a client would complain."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.book = Guestbook(world)
        self._count = 0

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        return await self.world.feeder.ask(method, path, **more)

    async def new(
        self, kind: str, images: Sequence[Wanted], outcomes: Sequence[JobOutcome] = COMPLETED,
        **more: Any,
    ) -> str:  # fmt: skip
        """A job id of its own, and in the journal what may become of the job; ``put`` names what its
        client will PUT whole, ``brought`` what it will put beside the uploads."""
        self._count += 1
        job_id = f"guest-{self.world.feeder.seed}-{self._count:04d}"
        put = (keys.job_upload(job_id, name) for name in more.pop("put", ()))
        brought = (f"guests/{job_id}/{name}" for name in more.pop("brought", ()))
        await self.book.expect(
            Guest(job_id, kind, tuple(images), tuple(outcomes), brought=(*put, *brought), **more)
        )
        return job_id

    async def begun(
        self, kind: str, images: Sequence[Wanted] = ONE, outcomes: Sequence[JobOutcome] = COMPLETED,
        *, webhook: str = "", **more: Any,
    ) -> str:  # fmt: skip
        """A job of REST without an image yet; its images are PUT unless ``put`` names others.

        Args:
            webhook: another receiver than the world's.
        """
        more.setdefault("put", [w.name for w in images])
        job_id = await self.new(kind, images, outcomes, **more)
        asked: dict[str, str] = {"job_id": job_id}
        if webhook or more.get("notices"):
            asked["webhook_url"] = webhook or self.world.feeder.webhook_url
        await self.ask("POST", "/jobs", json=asked)
        return job_id

    async def put(self, job_id: str, *, once: bool = False) -> bool:
        """PUT its image; with ``once``, as a client that never comes back. Whether it was answered."""
        path = f"/jobs/{job_id}/images/one.tif"
        if not once:
            await self.ask("PUT", path, content=rasters.small(3))
            return True
        return await self.try_once("PUT", path, content=rasters.small(3))

    async def seal(self, job_id: str) -> None:
        await self.ask("POST", f"/jobs/{job_id}/seal", json={})
        await self.book.acknowledge(job_id)

    async def cancel(self, job_id: str) -> None:
        await self.ask("POST", f"/jobs/{job_id}/cancel")
        await self.book.acknowledge(job_id)

    async def try_once(self, method: str, path: str, **more: Any) -> bool:
        """One request of a client that never comes back; whether it was answered well."""
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

    async def ended(self, job_id: str) -> None:
        """Wait until its client is told by REST that it has ended, and by its webhook if it asked
        for one."""
        await self.world.watch.end_of([job_id], _PATIENCE_S)

        async def told() -> bool:
            job = (await self.ask("GET", f"/jobs/{job_id}")).json()
            return job["status"] in ("successful", "failed", "dismissed")

        assert await self.book.until(told, SOON_S), f"{job_id} has ended, and GET says otherwise"
        if self.book.guests[job_id].notices[0]:

            async def noticed() -> bool:
                return self.book.was_noticed(job_id)

            assert await self.book.until(noticed, SOON_S), f"nobody was told that {job_id} ended"

    async def rubbish(self, topic: Topic, key: bytes, value: bytes) -> None:
        """A message that is no event."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self.world.installation.stack.direct.kafka_bootstrap
        )
        await producer.start()
        try:
            told = await producer.send_and_wait(topic.name, value, key=key)
            self.world.rubbish.sent(topic, told.partition, told.offset, key, value, [])
        finally:
            await producer.stop()

    async def bring(self, job_id: str, objects: dict[str, bytes]) -> None:
        store = self.world.installation.store()
        for name, data in objects.items():
            await store.put(f"guests/{job_id}/{name}", data, "image/tiff")
        store.close()
