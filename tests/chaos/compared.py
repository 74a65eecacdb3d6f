"""Jobs of unusual kinds that a calm run repeats byte for byte: a point's turn may need one."""

from __future__ import annotations

import asyncio
from typing import Final

from chaos.jobs import Bad, Door, JobPlan, Picture
from chaos.rasters import Broken, Wide
from chaos.world import World
from frond.contracts.events import ImageUploaded

_MANY: Final = 10


class Compared:
    """Submits them by the feeder, which has them in the journal before."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.feeder = world.feeder

    async def by_rest(self) -> None:
        """A job through each of the doors of REST."""
        for door in (Door.PUT, Door.PREFIX):
            if len(self.feeder.open_jobs()) < 3 * _MANY:
                await self.feeder.submit(self.feeder.next(door=door, images=2))

    async def by_topic(self) -> None:
        """A job whose images come by events; none while many are open."""
        if len(self.feeder.open_jobs()) < _MANY:
            await self.feeder.submit(self.feeder.next(door=Door.TOPIC_SIZE, images=2))

    async def sealed_on_topic(self) -> None:
        """A job that is sealed by an event."""
        await self.feeder.submit(self.feeder.next(door=Door.TOPIC_SEAL, images=2))

    async def several_chunks(self) -> None:
        """An image of two chunks, which the table of the image stage counts."""
        plan = self.feeder.next(door=Door.TOPIC_SIZE, images=1, side=1300, bad=0)
        await self.feeder.submit(plan)

    async def wide(self) -> None:
        """An image that has to be copied into a tiled one."""
        await self._picture(Wide, "good-wide.tif", Bad.NO)

    async def broken(self) -> None:
        """An image of which a chunk fails: too large to be read whole when it is planned."""
        await self._picture(Broken, "broken.tif", Bad.TRUNCATED, side=2304)

    async def _picture(self, kind: type[Picture], name: str, bad: Bad, side: int = 256) -> None:
        base = self.feeder.next(door=Door.TOPIC_SIZE, images=1)
        picture = kind(name, base.images[0].seed, side=side, bad=bad)
        await self.feeder.submit(JobPlan(base.job_id, base.door, (picture,)))

    async def told_late(self) -> None:
        """A job whose first message names no webhook, and whose later ones do."""
        plan = self.feeder.next(door=Door.TOPIC_SIZE, images=2, bad=0)
        await asyncio.to_thread(self.world.oracle.submitting, plan)
        picture = plan.images[0]
        # its raster is there before its message is
        store = self.world.installation.store()
        await store.put(plan.key(picture), picture.data(), "image/tiff")
        store.close()
        first = ImageUploaded(
            job_id=plan.job_id, image=plan.uri(picture), name=picture.name, job_size=2
        )
        await self.feeder.send([first])
        await self.feeder.submit(plan)
