"""The read model out of objects: for what the topics no longer tell.

Due once for each Kafka cluster that the database meets, and whenever its topics were made anew: in
an empty database, and beside a broker that has lost what was never read. What the objects say is
applied by the rules of events (:mod:`frond.ingest.readmodel.apply`), beside the consumer and in
any order with it: whichever of the two tells a thing second changes nothing. Killed, it begins
again.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Final, TypeVar

from sqlalchemy import select, update
from sqlalchemy.exc import InterfaceError, OperationalError

from frond.contracts import keys
from frond.contracts.errors import DatabaseUnavailable
from frond.ingest import intake
from frond.ingest.context import Ingest
from frond.ingest.readmodel import objects, queries, tables
from frond.ingest.readmodel.apply import apply, close, pin
from frond.ingest.readmodel.changes import Dated, apply_all, load, save
from frond.runtime import crash_point, get_logger, wait_out

T = TypeVar("T")
_Names = Callable[[Ingest, str], AsyncIterator[str]]

_OBJECTS: Final = "objects"
"""Stands among the topics in ``offsets``: 1 once the objects were read for a cluster."""
_PAGE: Final = 500
_AT_ONCE: Final = 4
_log = get_logger(__name__)


async def is_due(ingest: Ingest, cluster: str) -> bool:
    """Whether the objects have not been read since this cluster's topics are what they are."""
    o = tables.offsets.c
    row = {"cluster": cluster, "topic": _OBJECTS, "partition": 0, "offset": 0}
    async with ingest.db.write() as c:
        await c.execute(ingest.db.insert(tables.offsets).on_conflict_do_nothing(), [row])
        query = select(o.offset).where(o.cluster == cluster, o.topic == _OBJECTS)
        return bool((await c.execute(query)).scalar() != 1)


async def mark(ingest: Ingest, cluster: str, *, done: bool) -> None:
    """Remember that the objects were read for this cluster, or that they have to be again."""
    o = tables.offsets.c
    where = (o.cluster == cluster, o.topic == _OBJECTS)
    async with ingest.db.write() as c:
        await c.execute(update(tables.offsets).where(*where).values(offset=int(done)))


async def rebuild(ingest: Ingest, cluster: str) -> None:
    """Read the objects of all jobs, of open ones first. Outages are waited out."""
    began = time.monotonic()
    jobs = 0

    async def one(job_id: str) -> None:
        try:
            await _wait_out(lambda: rebuild_job(ingest, job_id), "reading a job's objects")
        except Exception as e:
            # one job that cannot be read must not keep the others from being shown
            _log.error("a job cannot be read from its objects", job_id=job_id, exc_info=e)

    for names in (_open, _all):
        page: list[str] = []
        while page := await _wait_out(partial(_page, ingest, names, page), "listing jobs"):
            await intake.in_parallel(page, one, _AT_ONCE)
            jobs += len(page)
    crash_point("ingest.rebuilt")
    await _wait_out(lambda: mark(ingest, cluster, done=True), "noting the rebuild")
    _log.info("jobs were read from their objects", jobs=jobs, took_s=time.monotonic() - began)


async def rebuild_job(ingest: Ingest, job_id: str) -> None:
    """Apply what the objects of one job say."""
    if not await show(ingest, job_id):
        return
    async for dated in objects.images(ingest.store, job_id):
        await _apply(ingest, dated)
    async for some in objects.records(ingest.store, keys.job_inputs(job_id)):
        ids = {i.key.rsplit("/", 1)[-1].removesuffix(".json"): i for i in some}
        known = await queries.known_ids(ingest.db, job_id, list(ids))
        rest = [i for image_id, i in ids.items() if image_id not in known]
        await _apply(ingest, await objects.recorded(ingest.store, rest))
    ingest.hub.applied([job_id], 0)


async def show(ingest: Ingest, job_id: str) -> bool:
    """Put a job into the read model as its objects have it, but for its images.

    Returns:
        Whether there is such a job: it runs, or has ended, and was not deleted.
    """
    head = await objects.head(ingest.store, job_id)
    if head is None:
        return False
    async with ingest.db.write() as c:
        batch = await load(ingest.db, c, {job_id: head.created}, set())
        # a deletion may have come between
        if batch.jobs[job_id].deleted:
            return False
        pin(batch, job_id, head.spec, head.created)
        for event, at in head.events:
            apply(batch, event, at)
        close(batch)
        await save(ingest.db, c, batch)
    return True


async def _apply(ingest: Ingest, dated: Sequence[Dated]) -> None:
    if dated:
        async with ingest.db.write() as c:
            await apply_all(ingest.db, c, dated)


async def _page(ingest: Ingest, names: _Names, before: Sequence[str]) -> list[str]:
    found: list[str] = []
    async for job_id in names(ingest, before[-1] if before else ""):
        found.append(job_id)
        if len(found) == _PAGE:
            break
    return found


async def _open(ingest: Ingest, after: str) -> AsyncIterator[str]:
    async for found in ingest.store.list(keys.OPEN, start_after=f"{keys.OPEN}{after}"):
        yield found.key.removeprefix(keys.OPEN)


async def _all(ingest: Ingest, after: str) -> AsyncIterator[str]:
    async for job_id in ingest.store.folders(keys.JOBS, after=after):
        yield job_id


async def _wait_out(call: Callable[[], Awaitable[T]], what: str) -> T:
    async def once() -> T:
        try:
            return await call()
        except (OperationalError, InterfaceError) as e:
            raise DatabaseUnavailable(str(e)) from e

    return await wait_out(once, what=what)
