"""The read model's rules: the same rows in any order, and however often an event comes."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from frond.contracts.events import (
    ChunkDetected,
    Event,
    ImageEmpty,
    ImageFinished,
    ImageRejected,
    ImageUploaded,
    JobCompleted,
    JobSealed,
    JobStatusChanged,
)
from frond.contracts.ids import digest, image_id
from frond.contracts.jobs import (
    ImageCounts,
    ImageFailure,
    ImageOutcome,
    ImageStatus,
    JobOutcome,
    JobStatus,
    ModelRef,
    WindowCounts,
)
from frond.contracts.reasons import Reason
from frond.ingest.readmodel.apply import apply, close
from frond.ingest.readmodel.rows import Batch
from frond.ingest.readmodel.summary import summary

MODEL = ModelRef(name="palm", digest="d" * 64, version="1")
PLAN = digest("plan")
T0 = datetime(2026, 1, 1, tzinfo=UTC)


def uri(n: int) -> str:
    return f"s3://bucket/scene-{n}.tif"


def about(n: int) -> dict[str, Any]:
    return {
        "job_id": "j", "image_id": image_id("j", uri(n)), "image": uri(n), "name": f"scene-{n}.tif",
    }  # fmt: skip


def chunk(n: int, ordinal: int, chunks: int = 3) -> ChunkDetected:
    return ChunkDetected(
        **about(n), plan_digest=PLAN, chunk_id=digest(str(n), str(ordinal)), ordinal=ordinal, chunks=chunks,
        windows=WindowCounts(total=4, done=4), windows_total=14, windows_skipped=2, model=MODEL,
    )  # fmt: skip


def finished(n: int, status: ImageStatus = ImageStatus.COMPLETED) -> ImageFinished:
    failed = status is ImageStatus.FAILED
    return ImageFinished(
        job_id="j", model=MODEL,
        outcome=ImageOutcome(
            **about(n), status=status, reason=Reason.TRUNCATED if failed else None,
            detail="cut off" if failed else None,
            windows=WindowCounts() if failed else WindowCounts(total=14, done=12, skipped=2),
            detections={} if failed else {"palm": n + 1},
        ),
    )  # fmt: skip


HISTORY: list[Event] = [
    *(ImageUploaded(job_id="j", image=uri(n), name=f"scene-{n}.tif", job_size=4) for n in range(4)),
    *(chunk(n, o) for n in range(2) for o in range(3)),
    ImageEmpty(**about(2), plan_digest=PLAN, windows_total=14, windows_skipped=14),
    ImageRejected(**about(3), reason=Reason.TRUNCATED, detail="cut off"),
    finished(0), finished(1), finished(2), finished(3, ImageStatus.FAILED),
    JobSealed(job_id="j", job_size=4),
    JobStatusChanged(job_id="j", status=JobStatus.RUNNING, updated=T0,
                     images=ImageCounts(expected=4, completed=1)),
]  # fmt: skip

DONE = JobCompleted(
    job_id="j", status=JobStatus.SUCCESSFUL, outcome=JobOutcome.COMPLETED_WITH_ERRORS,
    images=ImageCounts(expected=4, completed=3, failed=1), windows=WindowCounts(total=42, done=42),
    detections={"palm": 6}, model=MODEL, finished=T0,
    failures=(ImageFailure(name="scene-3.tif", image=uri(3), reason=Reason.TRUNCATED, detail=""),),
)  # fmt: skip


def play(events: list[Event], batches: int = 1) -> Batch:
    batch = Batch()
    size = max(1, len(events) // batches)
    for i in range(0, len(events), size):
        for event in events[i : i + size]:
            apply(batch, event, 1000)
        close(batch)
    return batch


def rows(batch: Batch) -> Any:
    jobs = [asdict(j) | {"last_seq": 0} for _, j in sorted(batch.jobs.items())]
    images = [asdict(i) for _, i in sorted(batch.images.items())]
    return jobs, images


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_order_any_repetition_the_same_rows(data: st.DataObject) -> None:
    """Topics are read side by side and events come twice: rows depend on the set alone."""
    again = data.draw(st.lists(st.sampled_from(HISTORY), max_size=10))
    events = data.draw(st.permutations([*HISTORY, *again]))
    batch = play(list(events), data.draw(st.integers(1, 6)))
    assert rows(batch) == rows(play(HISTORY))


@settings(max_examples=100, deadline=None)
@given(st.permutations([*HISTORY, DONE]))
def test_the_completed_event_outranks_the_rest(events: list[Event]) -> None:
    """Whenever it comes, what it says is what people see."""
    shown = summary(play(list(events), 5).jobs["j"])
    assert shown["status"] == "successful" and shown["progress"] == 100.0
    assert shown["images"] == {
        "expected": 4, "received": 4, "running": 0, "completed": 3, "failed": 1,
    }  # fmt: skip
    assert shown["detections"] == {"palm": 6}


def test_figures_on_the_way() -> None:
    """Sums over images are right while the job runs, and progress never says 100 too early."""
    shown = summary(play(HISTORY[:7]).jobs["j"])
    assert shown["status"] == "running"
    assert shown["images"]["running"] == 1 and shown["images"]["expected"] == 4
    assert shown["windows"] == {"total": 14, "done": 12, "skipped": 2, "failed": 0}
    assert shown["progress"] == 25.0
    everything = summary(play(HISTORY).jobs["j"])
    assert everything["progress"] == 99.0 and everything["detections"] == {"palm": 6}


def test_notes_for_live_readers() -> None:
    """One event an image's end, progress once a batch, completed last; sequence without gaps."""
    notes = play([*HISTORY, DONE], 1).notes
    kinds = [n.type for n in notes]
    assert kinds.count("image") == 4 and kinds[-1] == "completed"
    assert [n.seq for n in notes] == list(range(1, len(notes) + 1))
    assert all("\n" not in n.data and json.loads(n.data) for n in notes)


def test_a_new_plan_counts_anew() -> None:
    """An image that was planned again does not count the old plan's chunks."""
    other = chunk(0, 1).model_copy(update={"plan_digest": digest("another plan")})
    batch = play([chunk(0, 0), chunk(0, 1), other])
    assert batch.jobs["j"].w_done == 4


def test_text_that_no_database_takes() -> None:
    """NUL and half surrogates in a foreign event's name do not stop the read model."""
    event = ImageUploaded(job_id="j", image=uri(0), name="a\x00b" + "x" * 900)
    (row,) = play([event]).images.values()
    assert "\x00" not in row.name and len(row.name) == 500
