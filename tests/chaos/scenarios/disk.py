"""Disks that fill up: the object store's, then the broker's, while jobs flow."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import quote

import httpx

from chaos.installation import API_KEY
from chaos.jobs import Door, JobPlan
from chaos.world import Needs, World
from frond.contracts import keys, topics
from frond.contracts.errors import ObjectMissing
from frond.stack.small_disk import why_no_small_disk

NAME: Final = "disk"
ABOUT: Final = (
    "the object store's disk is filled, then the broker's: all waits, clients are told, and when"
    " there is room again all jobs end"
)
if _REASON := why_no_small_disk():
    raise RuntimeError(_REASON)
NEEDS: Final = Needs(small_disk_mb=256)

_AGAIN_S: Final = 300.0
_TOLD_S: Final = 120.0
_HOLD_S: Final = (3.0, 20.0)
_SHORT_HOLD_S: Final = 4.0
_LEFT: Final = (0, 40_000, 600_000, 0, 3 << 20)
"""Bytes that a store is left with: none, or so few that small objects fit and large ones do not."""


async def run(world: World) -> None:
    """Fill, see that clients are told, make room, see that all goes on; both disks in turns."""
    async with world.feeder.flowing(3):
        turn = 0
        while True:
            await world.progress(topics.DETECTED, 1, _AGAIN_S)
            await _store_full(world, _LEFT[turn % len(_LEFT)])
            await world.progress(topics.IMAGED, 1, _AGAIN_S)
            await _broker_full(world)
            await world.progress(topics.IMAGED, 1, _AGAIN_S)
            turn += 1
            if world.short or world.time_left <= 0:
                break
    await world.ended(within=_AGAIN_S)


async def _store_full(world: World, leave: int) -> None:
    plan = await _begun(world)
    async with _filled(world, "s3", "the store's disk is full", leave):
        if not leave:
            await _refused(world, plan, (507,))
        await _hold(world)
        await _all_whole(world)
    await world.feeder.submit(plan)


async def _broker_full(world: World) -> None:
    stack = world.installation.stack
    child = stack.kafka.child
    assert child is not None
    plan = await _begun(world)
    async with _filled(world, "kafka", "the broker's disk is full", 0):
        # it gives up by itself, once it has something to write; whoever keeps it running tries
        # to start it all the while
        end = time.monotonic() + _TOLD_S
        while child.running:
            assert time.monotonic() < end, "the broker goes on with a full disk"
            await asyncio.sleep(0.2)
        await _refused(world, plan, (503,))
        await _hold(world)
    await world.feeder.submit(plan)


@contextlib.asynccontextmanager
async def _filled(world: World, place: str, what: str, leave: int) -> AsyncIterator[None]:
    disk = world.installation.stack.disks[place]
    world.fault(what, places=(place,), leave=leave)
    world.say(what)
    await asyncio.to_thread(disk.fill, leave)
    try:
        yield
    finally:
        disk.make_room()
        world.over(what)
        world.say("")


async def _hold(world: World) -> None:
    hold = _SHORT_HOLD_S if world.short else world.rng.uniform(*_HOLD_S)
    await asyncio.sleep(hold)


async def _begun(world: World) -> JobPlan:
    """A job that a client has begun and not yet sent an image of."""
    plan = world.feeder.next(door=Door.PUT)
    await asyncio.to_thread(world.oracle.submitting, plan)
    await world.feeder.begin(plan)
    return plan


async def _refused(world: World, plan: JobPlan, statuses: tuple[int, ...]) -> None:
    """A client that sends an image meanwhile gets a problem document, told when to come again."""
    picture = plan.images[0]
    path = f"/jobs/{quote(plan.job_id)}/images/{quote(picture.name)}"
    headers = {"Authorization": f"Bearer {API_KEY}"}
    data = await asyncio.to_thread(picture.data)
    end = time.monotonic() + _TOLD_S
    told = "no answer"
    async with httpx.AsyncClient(timeout=60, trust_env=False, headers=headers) as http:
        while time.monotonic() < end:
            try:
                answer = await http.put(world.installation.url("ingest") + path, content=data)
            except httpx.TransportError as e:
                told = repr(e)  # a service may begin anew, because its broker is away
            else:
                told = f"{answer.status_code} {answer.headers} {answer.text[:500]}"
                if answer.status_code in statuses:
                    assert answer.headers["content-type"] == "application/problem+json", told
                    assert int(answer.headers["retry-after"]) > 0, told
                    assert answer.json()["detail"], told
                    return
            await asyncio.sleep(0.3)
    raise AssertionError(f"a client was not told to come again: {told}")


async def _all_whole(world: World) -> None:
    """What can be seen is whole: every document can be read."""
    store = world.installation.store()
    try:
        async for item in store.list(keys.JOBS):
            if item.key.endswith(("json", ".geojson")):
                with contextlib.suppress(ObjectMissing):
                    json.loads(await store.get(item.key))
    finally:
        store.close()
