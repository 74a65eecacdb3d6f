"""Who meets on a job's last place, or on one name, in one process or in several: one has it."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from ingest_inside import raster, takes, watched
from ingest_world import fresh, new_job

from frond.contracts import keys
from frond.contracts.reasons import Reason
from frond.ingest import intake, places
from frond.ingest.context import Ingest
from frond.ingest.intake import File
from frond.ingest.manifests import RETRY, Manifest
from frond.ingest.problems import Refused
from frond.ingest.rooms import Room, make_room
from frond.store import ObjectStore

pytestmark = pytest.mark.stack


@pytest.mark.parametrize("sharers", [1, 2])
async def test_of_two_that_meet_the_size_of_one_one_stays(here: Ingest, sharers: int) -> None:
    """A job is given its size while two images are on their way, which were let in before: one of
    them is refused, and the other has the place, whoever tries again meanwhile."""
    job = fresh()
    rooms = [
        (name, await make_room(here, job, [name])) for name in ("a", "b") for _ in range(sharers)
    ]
    await here.store.put(keys.job_sealed(job), b'{"job_size": 1, "declared": true}')

    async def attempt(name: str, room: Room) -> str:
        try:
            await intake.claim(here, job, [raster(here, job, name)], room)
        except Refused as e:
            assert e.reason is Reason.JOB_CLOSED
            return ""
        finally:
            room.leave()
        return name

    won = {name for name in await asyncio.gather(*(attempt(n, r) for n, r in rooms)) if name}
    assert len(won) == 1
    for name in ("a", "b"):
        assert (await intake.claimed(here, job, name) is not None) == (name in won)
    assert here.counts[job] == 1 and not here.coming
    with pytest.raises(Refused):
        # let in while it is not known yet that the job has its size: then when the name is claimed
        late = await make_room(here, job, ["c"])
        assert not await attempt("c", late)
        raise Refused(Reason.JOB_CLOSED, "when it was claimed")
    assert here.counts[job] == 1


@pytest.mark.parametrize("mine", [True, False])
async def test_a_form_that_is_not_recorded_yet_takes_no_other_images(
    here: Ingest, api: httpx.Client, store: ObjectStore, mine: bool
) -> None:
    """What a form brought is the whole job, also before the job has its size. A manifest that is not
    its job's says nothing of it."""
    job = new_job(api)
    upload = "u-3" if mine else f"{RETRY}another"
    manifest = Manifest(content="c", upload_id=upload, files=[raster(here, job, "a.tif")])
    await store.put(places.manifest(job), manifest.model_dump_json().encode())
    if not mine:
        (await make_room(here, job, ["b.tif"])).leave()
        return
    with pytest.raises(Refused, match="still being read in"):
        await make_room(here, job, ["b.tif"])
    await store.put_if_absent(keys.job_sealed(job), b'{"job_size": 1}')
    with pytest.raises(Refused, match="sealed with 1 images"):
        await make_room(here, job, ["b.tif"])


async def test_a_name_is_given_back_here_and_joined_there(here: Ingest, there: Ingest) -> None:
    """Between reading a claim and giving it back another process joins it: it is that one's then."""
    job = fresh()
    file = raster(here, job, "a.tif")
    await here.store.put(keys.job_upload(job, file.name), b"")
    await here.store.put(places.sealing(job), b"")
    rooms = [await make_room(at, job, [file.name]) for at in (here, there)]
    won: list[File] = []

    async def join() -> None:
        await there.store.delete(places.sealing(job))
        won.extend(await intake.claim(there, job, [file], rooms[1]))

    watched(here).once(places.claim(job, file.name), join)
    with pytest.raises(Refused, match="was sealed"):
        await intake.claim(here, job, [file], rooms[0])
    for room in rooms:
        room.leave()
    claim = await intake.claimed(here, job, file.name)
    assert claim is not None and claim.by and won[0].by.endswith(f" {claim.by}")


async def test_a_name_that_was_given_back_is_nobodys(here: Ingest, there: Ingest) -> None:
    """It takes no place, wherever it is counted, and of two that claim it at once one has it."""
    job = fresh()
    file = raster(here, job, "a.tif")
    room = await make_room(here, job, [file.name])
    await intake.claim(here, job, [file], room)
    await intake.release(here, job, file, room)
    room.leave()
    assert await intake.claimed(here, job, file.name) is None
    assert await takes(here, job, 2) and await takes(there, job, 2)
    others = [raster(here, job, file.name, f"upload:{n}") for n in "23"]
    rooms = [await make_room(at, job, [file.name]) for at in (here, there)]
    told = await asyncio.gather(
        *(
            intake.claim(i, job, [f], r)
            for i, f, r in zip((here, there), others, rooms, strict=True)
        ),
        return_exceptions=True,
    )
    for room in rooms:
        room.leave()
    assert sum(isinstance(t, Refused) for t in told) == 1, told
    for ingest in (here, there):
        # as for a process that begins now: what others claim since one has counted, it does not see
        ingest.counts.clear()
        assert await takes(ingest, job, 1)
