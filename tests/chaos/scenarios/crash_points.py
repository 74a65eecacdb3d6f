"""SIGKILL between each pair of effects of each service, twice in a row.

The services go through their points side by side, each one point at a time: both tokens are laid
out, and the next point's turn comes when both have killed. Jobs flow all the while; a point
that they do not pass gets what it needs (:mod:`chaos.occasions`), again and again, until it has
fired. The points that only the reconciler's help passes come last: until then it helps nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import Final

from minio import MinioAdmin
from minio.credentials import StaticProvider

from chaos.jobs import Door
from chaos.occasions import Occasions, need_of
from chaos.world import Needs, World
from frond.runtime.crashpoints import POINTS

NAME: Final = "crash_points"
ABOUT: Final = (
    "SIGKILL at each named point between two effects (object written, event sent, offset committed,"
    " state changed, rows committed, webhook posted), twice in a row"
)
# what was begun in parts and given up is dropped while one looks
NEEDS: Final = Needs(env={"FROND_PRESIGN_SECONDS": "60"})

SHORT: Final = (
    "ingest.inputs-recorded", "ingest.seal-stored", "tiler.plan-stored", "tiler.chunks-sent",
    "inference.result-stored", "inference.sent", "aggregator.outcome-stored",
    "aggregator.roster-stored", "aggregator.completed-stored", "aggregator.completed-sent",
    "notifier.attempt-claimed", "notifier.posted",
)  # fmt: skip
"""The points of the short matrix, once each: those that a job's end hangs on most."""
_HELPED: Final = ("aggregator.roster-deleted", "aggregator.redriven")

_SIDE_BY_SIDE: Final = (("ingest",), ("tiler",), ("inference",), ("notifier", "aggregator"))
_WITHIN_S: Final = 600.0
_OPEN: Final = 1
_PAUSE_S: Final = 3.0
_AGAIN_S: Final = 15.0
_STALL_S: Final = "5"
_UNFINISHED: Final = "60s"
# of a full run: below it, each point comes once
_TWICE: Final = 0.3


async def run(world: World) -> None:
    """Fire every point; then everything that was submitted must end."""
    turns = _Turns(world)
    await asyncio.to_thread(_drop_unfinished, world)
    wanted = _chosen() or (SHORT if world.short else tuple(POINTS))

    async def through(*services: str) -> None:
        for service in services:
            mine = [p for p in wanted if p.startswith(f"{service}.") and p not in _HELPED]
            await turns.through(mine)

    # by REST and by the topic side by side: one door stands still while ingest does
    rest = world.feeder.flowing(_OPEN, doors=(Door.PUT, Door.PREFIX), pause_s=_PAUSE_S)
    topic = world.feeder.flowing(_OPEN, doors=(Door.TOPIC_SIZE, Door.TOPIC_SEAL), pause_s=_PAUSE_S)
    async with rest, topic:
        # the notifier has nothing to do while the aggregator keeps dying
        await asyncio.gather(*(through(*side) for side in _SIDE_BY_SIDE))
    await world.installation.ready()
    await world.ended()
    await turns.occasions.guests.book.ended()
    if helped := [p for p in _HELPED if p in wanted]:
        await _with_help(world)
        await turns.through(helped)
        await world.ended()
    await turns.occasions.guests.book.check()
    turns.occasions.judge()


def _drop_unfinished(world: World) -> None:
    """The store drops the parts of uploads that nobody completes while one looks, not in a day."""
    direct = world.installation.stack.direct
    admin = MinioAdmin(
        endpoint=direct.s3_endpoint.removeprefix("http://"),
        credentials=StaticProvider(direct.access_key, direct.secret_key), secure=False,
    )  # fmt: skip
    soon = {"stale_uploads_expiry": _UNFINISHED, "stale_uploads_cleanup_interval": "5s"}
    admin.config_set("api", soon)


async def _with_help(world: World) -> None:
    """From now on the reconciler drives again whatever stands still."""
    here = world.installation
    here.env["FROND_STALL_S"] = _STALL_S
    names = here.names("aggregator")
    here.stop(*names)
    here.start(*names)
    await here.ready(*names)


def _chosen() -> tuple[str, ...]:
    """The points named in POINTS, for replaying a failure: ``POINTS=tiler.,ingest.swept``."""
    named = tuple(n for n in os.environ.get("POINTS", "").split(",") if n)
    return tuple(p for p in POINTS if p.startswith(named)) if named else ()


class _Turns:
    def __init__(self, world: World) -> None:
        self.world = world
        self.occasions = Occasions(world)

    async def through(self, points: list[str]) -> None:
        """Each of these points in turn, twice in a row; in a short run once.

        A point that does not fire within its time counts as a loss.
        """
        times = 1 if self.world.short or self.world.scale < _TWICE else 2
        for point in points:
            began = time.monotonic()
            enough = asyncio.Event()
            need = asyncio.create_task(self._again_and_again(point, enough))
            try:
                await self.occasions.armed.fire(point, times, _WITHIN_S)
                self.world.figures.crash_points += 1
            except AssertionError as e:
                self.world.figures.lose(str(e))
            finally:
                enough.set()
                # to its end: half a submission would leave an open job
                await need
            took = round(time.monotonic() - began, 1)
            self.world.oracle.note("crash point", point=point, took=took)
            self.world.say(f"{point}: {took} s")

    async def _again_and_again(self, point: str, enough: asyncio.Event) -> None:
        while not enough.is_set():
            try:
                await need_of(point)(self.occasions)
            except Exception as e:
                # its clients try again whatever a death explains; what is left, they would complain of
                self.world.figures.lose(f"{point}: a client was let down: {e!r}")
            # the pipeline has it now; once more only if the point was passed by others' tokens
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(enough.wait(), _AGAIN_S)
