"""What REST asks of the read model. Each query reads a bounded number of rows by an index."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, func, or_, select, tuple_, update

from frond.contracts.jobs import ImageStatus, JobStatus
from frond.ingest.readmodel import tables
from frond.ingest.readmodel.apply import CONTESTED
from frond.ingest.readmodel.database import Database
from frond.ingest.readmodel.rows import JobRow

_OPEN = (JobStatus.ACCEPTED.value, JobStatus.RUNNING.value)


async def job(db: Database, job_id: str) -> JobRow | None:
    """One job; None if it is unknown or deleted."""
    query = select(tables.jobs).where(tables.jobs.c.job_id == job_id)
    found = await db.ask(lambda c: c.execute(query).one_or_none())
    return JobRow(**found._mapping) if found is not None and not found.deleted else None


async def is_deleted(db: Database, job_id: str) -> bool:
    """Whether a job of this id was deleted."""
    j = tables.jobs.c
    query = select(j.deleted).where(j.job_id == job_id)
    return await db.ask(lambda c: bool(c.execute(query).scalar()))


async def is_known(db: Database, job_id: str) -> bool:
    """Whether there is, or was, a job of this id."""
    j = tables.jobs.c
    query = select(j.job_id).where(j.job_id == job_id)
    return await db.ask(lambda c: c.execute(query).first() is not None)


async def count_open(db: Database, tenant: str | None) -> int:
    """How many jobs of a tenant have not ended; None: jobs of no tenant."""
    j = tables.jobs.c
    theirs = j.tenant.is_(None) if tenant is None else j.tenant == tenant
    query = select(func.count()).where(theirs, j.status.in_(_OPEN), j.deleted.is_(False))
    return await db.ask(lambda c: c.execute(query).scalar() or 0)


async def jobs(
    db: Database,
    *,
    status: Sequence[str] = (),
    since: int | None = None,
    until: int | None = None,
    after: tuple[int, str] | None = None,
    limit: int = 100,
    tenant: str | None = None,
) -> list[JobRow]:
    """Jobs, the newest first. ``since`` ≤ created < ``until``, in ms; ``after``: a row's key.

    ``tenant``: only this tenant's; None: everybody's. A row's ``completion`` is what the job's stream
    told of it, with the figures of the completed event, and without its failures and artifacts: those
    of one job may be hundreds of kB.
    """
    j, e = tables.jobs.c, tables.events.c
    where: list[ColumnElement[bool]] = [j.deleted.is_(False)]
    if tenant is not None:
        where.append(j.tenant == tenant)
    if status:
        where.append(j.status.in_(status))
    if since is not None:
        where.append(j.created >= since)
    if until is not None:
        where.append(j.created < until)
    if after is not None:
        # row values: an index is entered at them, and not at what or_ makes of the same
        where.append(tuple_(j.created, j.job_id) < after)
    told = (
        select(e.data)
        .where(e.job_id == j.job_id, e.type == "completed")
        .order_by(e.seq)
        .limit(1)
        .scalar_subquery()
    )
    columns = [c for c in j if c.name != "completion"]
    query = select(*columns, told.label("completion")).where(*where)
    query = query.order_by(j.created.desc(), j.job_id.desc())
    return await db.ask(lambda c: [JobRow(**r._mapping) for r in c.execute(query.limit(limit))])


async def unsettled_jobs(db: Database) -> list[JobRow]:
    """Jobs that have not ended, and those that two tenants were named for."""
    j = tables.jobs.c
    unsettled = or_(j.status.in_(_OPEN), j.tenant == CONTESTED)
    query = select(tables.jobs).where(unsettled, j.deleted.is_(False))
    return await db.ask(lambda c: [JobRow(**row._mapping) for row in c.execute(query)])


async def images(
    db: Database,
    job_id: str,
    *,
    status: str | None = None,
    after: tuple[str, str] | None = None,
    limit: int = 100,
) -> Sequence[Any]:
    """A job's images by name, then id."""
    i = tables.images.c
    where: list[ColumnElement[bool]] = [i.job_id == job_id]
    if status is not None:
        where.append(i.status == status)
    if after is not None:
        where.append(tuple_(i.name, i.image_id) > after)
    columns = [c for c in i if c.name != "chunks_done"]
    query = select(*columns).where(*where).order_by(i.name, i.image_id).limit(limit)
    return await db.ask(lambda c: c.execute(query).all())


async def failures(db: Database, job_id: str, limit: int = 100) -> Sequence[Any]:
    """Failed images by name."""
    return await images(db, job_id, status=ImageStatus.FAILED.value, limit=limit)


async def images_called(db: Database, job_id: str, name: str, limit: int = 100) -> Sequence[Any]:
    """Id and address of the image of this id; else of those of this name, by id: names may repeat."""
    i = tables.images.c
    query = select(i.image_id, i.image).where(i.job_id == job_id)

    def look(c: Connection) -> Sequence[Any]:
        by_id = c.execute(query.where(i.image_id == name)).all()
        by_name = query.where(i.name == name).order_by(i.image_id).limit(limit)
        return by_id or c.execute(by_name).all()

    return await db.ask(look)


async def uploaded_ids(db: Database, job_id: str, image_ids: Sequence[str]) -> set[str]:
    """Those of these images whose uploaded event was seen on the topic, or came to something."""
    i = tables.images.c
    query = select(i.image_id).where(
        i.job_id == job_id,
        or_(i.uploaded.is_(True), i.status != ImageStatus.UPLOADED.value),
        i.image_id.in_(image_ids),
    )
    return await db.ask(lambda c: set(c.execute(query).scalars()))


async def any_unsent(db: Database, job_id: str) -> bool:
    """Whether an image is known by its record alone: nothing tells that its event was sent."""
    i = tables.images.c
    query = select(i.image_id).where(
        i.job_id == job_id, i.status == ImageStatus.UPLOADED.value, i.uploaded.is_(False)
    )
    return await db.ask(lambda c: c.execute(query.limit(1)).first() is not None)


async def known_ids(db: Database, job_id: str, image_ids: Sequence[str]) -> set[str]:
    """Those of these images that the read model has."""
    i = tables.images.c
    query = select(i.image_id).where(i.job_id == job_id, i.image_id.in_(image_ids))
    return await db.ask(lambda c: set(c.execute(query).scalars()))


async def events(db: Database, job_id: str, after: int, limit: int = 500) -> Sequence[Any]:
    """A job's stored events with ``seq`` above ``after``, in order."""
    e = tables.events.c
    query = select(e.seq, e.type, e.data).where(e.job_id == job_id, e.seq > after)
    return await db.ask(lambda c: c.execute(query.order_by(e.seq).limit(limit)).all())


async def tombstone(db: Database, job_id: str, at: int) -> None:
    """Forget a job; what Kafka still tells of it will change nothing."""
    row = asdict(JobRow(job_id, at, at, status=JobStatus.DISMISSED.value, deleted=True))
    async with db.write() as c:
        await c.execute(delete(tables.images).where(tables.images.c.job_id == job_id))
        await c.execute(delete(tables.events).where(tables.events.c.job_id == job_id))
        await c.execute(db.upsert(tables.jobs), [row])


async def accept(db: Database, row: JobRow) -> None:
    """Show a job before any of its events was seen; what is known already stays, but for a tenant
    that events alone have named."""
    j = tables.jobs.c
    async with db.write() as c:
        await c.execute(db.insert(tables.jobs).on_conflict_do_nothing(), [asdict(row)])
        values: dict[str, Any] = {
            "expected": func.coalesce(j.expected, row.expected),
            "model_name": func.coalesce(j.model_name, row.model_name),
            "model_digest": func.coalesce(j.model_digest, row.model_digest),
            "model_version": func.coalesce(j.model_version, row.model_version),
        }
        if row.pinned:
            values |= {"tenant": row.tenant, "pinned": True}
        await c.execute(update(tables.jobs).where(j.job_id == row.job_id).values(**values))


async def count_offsets(db: Database) -> int:
    """How many partitions have been read from: none in a fresh database."""
    query = select(func.count()).select_from(tables.offsets)
    return await db.ask(lambda c: c.execute(query).scalar() or 0)


def snapshot_status(row: JobRow) -> str:
    """The status that the aggregator told last; ``accepted`` if it told none."""
    return str(json.loads(row.snapshot)["status"]) if row.snapshot else JobStatus.ACCEPTED.value
