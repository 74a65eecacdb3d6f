"""Two who seal one job: what holds for the images that come meanwhile."""

from __future__ import annotations

import asyncio

import pytest
from ingest_inside import raster, watched
from ingest_world import fresh

from frond.contracts import keys
from frond.contracts.envelope import new_traceparent
from frond.contracts.ids import image_id
from frond.ingest import intake, places, sealing
from frond.ingest.context import Ingest
from frond.ingest.problems import Refused
from frond.ingest.rooms import make_room

pytestmark = pytest.mark.stack


async def marks(ingest: Ingest, job: str) -> int:
    return len([m async for m in ingest.store.list(places.sealing(job))])


async def test_a_sealer_that_gives_up_opens_the_job_to_nobody(
    here: Ingest, there: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another one counts, no name is claimed: an image that is let in then is answered, and is
    not in the job."""
    job = fresh()
    waited_for = raster(here, job, "a.tif")
    room = await make_room(here, job, [waited_for.name])
    await intake.claim(here, job, [waited_for], room)
    room.leave()
    counts = asyncio.Event()

    async def begun() -> None:
        counts.set()

    watched(here).once(places.claims(job), begun)
    stays = asyncio.create_task(sealing.seal(here, job, None, new_traceparent()))
    await asyncio.wait_for(counts.wait(), 10)
    monkeypatch.setattr(sealing, "_PATIENCE_S", 0.0)
    with pytest.raises(Refused, match="still being stored"):
        await sealing.seal(there, job, None, new_traceparent())
    assert not stays.done() and await marks(here, job) == 1
    late = raster(there, job, "b.tif")
    room = await make_room(there, job, [late.name])
    with pytest.raises(Refused, match="was sealed"):
        await intake.claim(there, job, [late], room)
    room.leave()
    recorded = keys.job_input_record(job, image_id(job, waited_for.image))
    await here.store.put(recorded, b"{}")
    assert await asyncio.wait_for(stays, 30) == 1
    assert await marks(here, job) == 0


async def test_a_sealer_that_died_leaves_no_mark_with_a_sealed_job(here: Ingest) -> None:
    """Whoever seals the job after it takes its mark away as well."""
    job = fresh()
    await here.store.put(places.sealing_by(job, "dead"), b"")
    assert await sealing.seal(here, job, None, new_traceparent()) == 0
    assert await marks(here, job) == 0
