"""Jobs that nobody disturbs: what a sabotage is done to, when no scenario is named."""

from __future__ import annotations

from typing import Final

from chaos.sabotage import KINDS
from chaos.world import World

NAME: Final = "quiet"
ABOUT: Final = "a few small jobs, and no trouble"


async def run(world: World) -> None:
    """A job for each kind of sabotage."""
    for _ in KINDS:
        await world.feeder.submit(world.feeder.next(images=2, side=256, bad=0))
    await world.ended()
