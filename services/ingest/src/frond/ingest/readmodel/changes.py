"""Reading the rows a batch of events touches, and writing them back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, TypeVar

from sqlalchemy import and_, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from frond.contracts.events import JobEvent
from frond.ingest.readmodel import tables
from frond.ingest.readmodel.apply import apply, close, image_key
from frond.ingest.readmodel.database import Database
from frond.ingest.readmodel.rows import Batch, ImageKey, ImageRow, JobRow

T = TypeVar("T")
Dated = tuple[JobEvent, int]

_IN: Final = 400


async def apply_all(db: Database, connection: AsyncConnection, dated: Sequence[Dated]) -> set[str]:
    """Apply events, each with its time in ms, inside the caller's transaction.

    Returns the ids of the jobs that changed.
    """
    keys = {k for event, _ in dated if (k := image_key(event)) is not None}
    began: dict[str, int] = {}
    for event, at in dated:
        began[event.job_id] = min(at, began.get(event.job_id, at))
    batch = await load(db, connection, began, keys)
    for event, at in dated:
        apply(batch, event, at)
    close(batch)
    await save(db, connection, batch)
    return set(batch.changed_jobs)


async def load(
    db: Database,
    connection: AsyncConnection,
    began: Mapping[str, int],
    image_keys: set[ImageKey],
) -> Batch:
    """The rows of these jobs and images. Jobs' rows are made where they are missing, and locked.

    ``began``: each job's earliest time in ms, for a row that is made.
    """
    job_ids = sorted(began)
    batch = Batch()
    insert = db.insert(tables.jobs).on_conflict_do_nothing()
    await connection.execute(insert, [asdict(JobRow(j, began[j], began[j])) for j in job_ids])
    for some in _pieces(job_ids):
        query = select(tables.jobs).where(tables.jobs.c.job_id.in_(some))
        query = query.order_by(tables.jobs.c.job_id).with_for_update()
        for found in await connection.execute(query):
            batch.jobs[found.job_id] = JobRow(**found._mapping)
    by_job: dict[str, list[str]] = {}
    for job_id, image_id in sorted(image_keys):
        by_job.setdefault(job_id, []).append(image_id)
    for job_id, ids in by_job.items():
        for some in _pieces(ids):
            where = and_(tables.images.c.job_id == job_id, tables.images.c.image_id.in_(some))
            for found in await connection.execute(select(tables.images).where(where)):
                batch.images[(job_id, found.image_id)] = ImageRow(**found._mapping)
    return batch


async def save(db: Database, connection: AsyncConnection, batch: Batch) -> None:
    """Write back what was changed."""
    if batch.changed_images:
        rows: list[dict[str, Any]] = [asdict(batch.images[k]) for k in sorted(batch.changed_images)]
        await connection.execute(db.upsert(tables.images), rows)
    if batch.changed_jobs:
        rows = [asdict(batch.jobs[j]) for j in batch.touched()]
        await connection.execute(db.upsert(tables.jobs), rows)
    if batch.notes:
        await connection.execute(tables.events.insert(), [n._asdict() for n in batch.notes])
        newest = {n.job_id: n.seq for n in batch.notes if n.type != "image"}
        for job_id, seq in sorted(newest.items()):
            # only the newest progress is worth keeping; images' events are kept for late readers
            table = tables.events.c
            await connection.execute(
                delete(tables.events).where(
                    table.job_id == job_id, table.type == "progress", table.seq < seq
                )
            )


def _pieces(items: Sequence[T]) -> Iterable[Sequence[T]]:
    return (items[i : i + _IN] for i in range(0, len(items), _IN))
