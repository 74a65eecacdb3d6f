"""Pages of lists: whole, in order, and entered by an index however far into the list they are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from frond.contracts.events import ImageUploaded, JobCompleted
from frond.contracts.jobs import (
    ImageCounts,
    ImageFailure,
    ImageStatus,
    JobOutcome,
    JobStatus,
    WindowCounts,
)
from frond.contracts.reasons import Reason
from frond.ingest.readmodel import queries, tables
from frond.ingest.readmodel.changes import apply_all
from frond.ingest.readmodel.database import Database
from frond.ingest.readmodel.rows import ImageRow, JobRow
from frond.ingest.readmodel.summary import summary

NAMES = [f"{n // 3}.tif" for n in range(9)]


@pytest.fixture
async def db(database: str, tmp_path: Path) -> AsyncIterator[Database]:
    """A job of nine images, three of each name, and nine jobs, three of each moment."""
    made = Database(database or f"sqlite+aiosqlite:///{tmp_path / 'a.db'}")
    await made.migrate()
    jobs = [JobRow(f"page-{n}", n // 3, 1, tenant="pages") for n in range(9)]
    images = [ImageRow("page-0", f"{n:02d}", name, "s3://b/k", 1) for n, name in enumerate(NAMES)]
    async with made.write() as c:
        await c.execute(made.upsert(tables.jobs), [asdict(j) for j in jobs])
        await c.execute(made.upsert(tables.images), [asdict(i) for i in images])
    yield made
    await made.close()


async def test_pages_leave_nothing_out(db: Database) -> None:
    """Images that share a name, jobs that share a moment: each is on one page, in the list's order."""
    seen: list[str] = []
    at: tuple[str, str] | None = None
    while found := await queries.images(db, "page-0", after=at, limit=2):
        seen += [i.image_id for i in found]
        at = (found[-1].name, found[-1].image_id)
    assert seen == [f"{n:02d}" for n in range(9)]
    jobs: list[str] = []
    when: tuple[int, str] | None = None
    while page := await queries.jobs(db, after=when, limit=2, tenant="pages"):
        jobs += [j.job_id for j in page]
        when = (page[-1].created, page[-1].job_id)
    assert jobs == [f"page-{n}" for n in reversed(range(9))]


async def test_a_list_has_the_figures_of_jobs_that_ended_and_not_their_failures(
    db: Database,
) -> None:
    """The same as of the job alone, also once more images have come; all failures' details are not
    read for it."""
    done = JobCompleted(
        job_id="page-4", status=JobStatus.SUCCESSFUL, outcome=JobOutcome.COMPLETED_WITH_ERRORS,
        images=ImageCounts(expected=3, completed=2, failed=1),
        windows=WindowCounts(total=9, done=7, skipped=2), detections={"palm": 6},
        failures=(
            ImageFailure(name="a.tif", image="s3://bkt/a.tif", reason=Reason.TRUNCATED, detail="x" * 999),
        ),
    )  # fmt: skip
    late = [
        ImageUploaded(job_id="page-4", image=f"s3://bkt/{n}.tif", name=f"{n}.tif") for n in range(5)
    ]
    async with db.write() as c:
        for events in ([done], late):
            await apply_all(db, c, [(e, 5) for e in events])
    alone = await queries.job(db, "page-4")
    (listed,) = [j for j in await queries.jobs(db) if j.job_id == "page-4"]
    assert alone is not None and summary(listed) == summary(alone)
    assert summary(listed)["images"] == {
        "expected": 3, "received": 5, "running": 0, "completed": 2, "failed": 1,
    }  # fmt: skip
    assert listed.completion is not None and "xxx" not in listed.completion


async def test_a_page_is_entered_by_an_index(db: Database) -> None:
    """What SQLite plans for a page far into a list: a search from its place on, and no sorting."""
    if not db.sqlite:
        pytest.skip("EXPLAIN QUERY PLAN is SQLite's")
    asked: list[tuple[str, Any]] = []

    def hear(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    event.listen(db._reading, "before_cursor_execute", hear)
    running, failed = JobStatus.RUNNING.value, ImageStatus.FAILED.value
    plans = []
    for page in (
        queries.images(db, "page-0", after=("1.tif", "04")),
        queries.images(db, "page-0", status=failed, after=("1.tif", "04")),
        queries.jobs(db, after=(1, "page-4")),
        queries.jobs(db, after=(1, "page-4"), tenant="pages"),
        queries.jobs(db, after=(1, "page-4"), status=[running]),
    ):
        asked.clear()
        await page
        (query,) = asked
        plans.append(await plan_of(db, *query))
    told = "CORRELATED SCALAR SUBQUERY 1; SEARCH events USING INDEX events_by_type (job_id=? AND type=?)"
    assert plans == [
        "SEARCH images USING INDEX images_by_name (job_id=? AND (name,image_id)>(?,?))",
        "SEARCH images USING INDEX images_by_status (job_id=? AND status=? AND (name,image_id)>(?,?))",
        f"SEARCH jobs USING INDEX jobs_by_time ((created,job_id)<(?,?)); {told}",
        f"SEARCH jobs USING INDEX jobs_by_tenant (tenant=? AND (created,job_id)<(?,?)); {told}",
        f"SEARCH jobs USING INDEX jobs_by_status (status=? AND (created,job_id)<(?,?)); {told}",
    ]


async def plan_of(db: Database, statement: str, parameters: Any) -> str:
    def explain(c: Any) -> str:
        found = c.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        return "; ".join(row.detail for row in found)

    return await db.ask(explain)
