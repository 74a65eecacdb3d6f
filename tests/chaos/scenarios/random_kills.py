"""SIGKILL at random of any process, the broker and the store included, each gated on progress."""

from __future__ import annotations

from typing import Final

from chaos.world import World
from frond.contracts import topics

NAME: Final = "random_kills"
ABOUT: Final = "SIGKILL at random of any process, broker and store included, during large jobs"
_KILLS: Final = 100
_SHORT_KILLS: Final = 8
_STAGES: Final = (topics.TILED, topics.DETECTED, topics.IMAGED, topics.COMPLETED)


async def run(world: World) -> None:
    """Kill after kill, each after new events; a further large job whenever one ends, and small ones
    through the other doors beside it."""
    images = 60 if world.short else max(60, round(1000 * world.scale))
    wanted = _SHORT_KILLS if world.short else max(_SHORT_KILLS, round(_KILLS * world.scale))
    # so that the kills are spread over the whole of the large job
    most = 6 if world.short else 18
    large = ""
    kills = 0
    async with world.feeder.flowing(1):
        while kills < wanted or (not world.short and world.time_left > 0):
            if large in world.watch.ended or not large:
                plan = world.feeder.big(images)
                large = plan.job_id
                await world.feeder.submit(plan)
            # from some stage on: of the later ones there is always more to come
            stages = _STAGES[world.rng.randrange(3) :]
            await world.progress(stages, world.rng.randint(1, most))
            kills += world.installation.kill(world.rng.choice(world.installation.everything()))
    await world.ended(within=900)
