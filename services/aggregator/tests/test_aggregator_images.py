"""The image stage's decisions: a function of the set of events, never of their order."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from frond.aggregator.images import (
    NOTHING,
    ChunkFailure,
    Decision,
    ImageState,
    Next,
    Stored,
    apply,
    completed_outcome,
    failed_outcome,
    rejected_outcome,
)
from frond.contracts.events import ChunkDetected
from frond.contracts.ids import chunk_id
from frond.contracts.jobs import ImageStatus, ModelRef, Timings, WindowCounts
from frond.contracts.plan import ImagePlan, RasterSource, WindowGrid
from frond.contracts.reasons import Reason

IMAGE = "ab" * 16
P1, P2 = "1" * 32, "2" * 32
MODEL = ModelRef(name="palms", digest="0" * 64)


def detected(ordinal: int, chunks: int, *, plan: str = P1, failed: int = 0) -> ChunkDetected:
    """A chunk of four windows."""
    return ChunkDetected(
        job_id="job", image_id=IMAGE, image="s3://bucket/a.tif", name="a.tif", plan_digest=plan,
        chunk_id=chunk_id(IMAGE, plan, ordinal), ordinal=ordinal, chunks=chunks,
        windows=WindowCounts(total=4, done=4 - failed, failed=failed), windows_total=4 * chunks,
        windows_skipped=0, result=None if failed == 4 else "key", model=MODEL,
        reason=Reason.READ_TIMEOUT if failed else None, timings=Timings(run=1.0),
    )  # fmt: skip


def plan_of(cols: int, skipped: int) -> ImagePlan:
    """A plan of cols × 1 windows of 64 pixels without a margin."""
    return ImagePlan(
        job_id="job", image_id=IMAGE, image="s3://bucket/a.tif", name="a.tif", checksum="etag",
        source=RasterSource(
            uri="s3://bucket/a.tif", etag="e", size=1, bands=(1,), dtype="uint8",
            width=64 * cols, height=64,
        ),
        grid=WindowGrid(width=64 * cols, height=64, size=64, margin=0), model=MODEL,
        windows_skipped=skipped, chunks=1,
    )  # fmt: skip


@given(
    chunks=st.integers(1, 40),
    copies=st.lists(st.integers(0, 39), max_size=30),
    failing=st.sets(st.integers(0, 39)),
    seed=st.integers(),
)
def test_any_order_and_any_copies_lead_to_the_same_state(
    chunks: int, copies: list[int], failing: set[int], seed: int
) -> None:
    """FINISH is said when, and only when, every chunk has been seen, and for each copy after."""
    events = [detected(n, chunks, failed=2 if n in failing else 0) for n in range(chunks)]
    arriving = events + [events[n] for n in copies if n < chunks]
    random.Random(seed).shuffle(arriving)
    state: ImageState | None = None
    seen: set[int] = set()
    for event in arriving:
        decision = apply(state, event)
        seen.add(event.ordinal)
        assert decision.next is (Next.FINISH if len(seen) == chunks else Next.WAIT)
        assert decision.state is not None
        state = ImageState.from_bytes(decision.state.to_bytes())
        assert state == decision.state
    assert state is not None
    assert state.seen == (1 << chunks) - 1
    assert state.failed == sum(1 << n for n in failing if n < chunks)
    assert state.timings == Timings(run=float(chunks))


def test_a_zombies_plan_is_ignored_unless_it_is_the_stored_one() -> None:
    """Which of two plans counts is asked of the store, and the state begins anew with that."""
    mine = apply(None, detected(0, 3)).state
    stranger = detected(1, 2, plan=P2)
    assert apply(mine, stranger).next is Next.ASK
    assert apply(mine, stranger, Stored(P1, 3)) == apply(mine, stranger, NOTHING)
    assert apply(mine, stranger, NOTHING).next is Next.IGNORE
    assert apply(mine, stranger, NOTHING).state == mine
    anew = apply(mine, stranger, Stored(P2, 2))
    assert anew.next is Next.WAIT
    assert anew.state is not None
    assert (anew.state.plan, anew.state.chunks, anew.state.seen) == (P2, 2, 0b10)


def test_numbers_that_contradict_the_plan_change_nothing() -> None:
    """An ordinal beyond the chunks is ignored, and so is a number of chunks that is not the
    stored plan's, whichever of two came first."""
    state = apply(None, detected(0, 3)).state
    assert apply(state, detected(3, 3)).next is Next.IGNORE
    assert apply(state, detected(1, 4)).next is Next.ASK
    assert apply(state, detected(1, 4), Stored(P1, 3)) == Decision(state, Next.IGNORE)
    right = apply(state, detected(1, 4), Stored(P1, 4)).state
    assert right is not None
    assert (right.chunks, right.seen) == (4, 0b10)
    assert apply(None, detected(5, 5)).state is None


def test_no_bitmap_is_made_for_a_number_that_nobody_stored() -> None:
    """A bitmap as long as an event says would be gigabytes; one as long as the plan's is made."""
    most = 2_000_000
    huge = detected(0, 1).model_copy(update={"chunks": 10**11, "ordinal": 10**11 - 1})
    assert apply(None, huge) == Decision(None, Next.ASK)
    for stored in (NOTHING, Stored(P1, 3), Stored(P2, 10**11)):
        assert apply(None, huge, stored) == Decision(None, Next.IGNORE)
    large = detected(0, 1).model_copy(update={"chunks": most, "ordinal": most - 1})
    believed = apply(None, large, Stored(P1, most))
    assert believed.next is Next.WAIT
    assert believed.state is not None
    assert believed.state.seen == 1 << (most - 1)


@given(cols=st.integers(1, 50), data=st.data())
def test_an_images_windows_always_add_up(cols: int, data: st.DataObject) -> None:
    """total = done + skipped + failed, however the image ends."""
    plan = plan_of(cols, data.draw(st.integers(0, cols - 1)))
    failures = data.draw(
        st.lists(
            st.builds(
                ChunkFailure, ordinal=st.integers(0, 9), failed=st.integers(1, 60),
                whole=st.booleans(), reason=st.sampled_from(Reason), detail=st.text(),
            ),
            min_size=1,
        )
    )  # fmt: skip
    rejected = rejected_outcome(
        "job", IMAGE, "s3://bucket/a.tif", "a.tif", Reason.OBJECT_CHANGED, "…", plan
    )
    failed = failed_outcome(plan, failures)
    done = completed_outcome(plan, {"palm": 2, "none": 0})
    for outcome in (rejected, failed, done):
        w = outcome.windows
        assert w.total == plan.grid.count == w.done + w.skipped + w.failed
        assert min(w.done, w.skipped, w.failed) >= 0
    assert failed.reason == min(failures, key=lambda f: f.ordinal).reason
    assert (failed.status, done.status) == (ImageStatus.FAILED, ImageStatus.COMPLETED)
    assert done.detections == {"palm": 2}
    assert failed.windows.failed > 0


def test_a_failed_chunks_record_says_what_failed() -> None:
    """A chunk without a result has failed whole; one with a result in part."""
    assert ChunkFailure.of(detected(2, 3, failed=4)).whole
    part = ChunkFailure.of(detected(2, 3, failed=1))
    assert (part.whole, part.failed, part.ordinal) == (False, 1, 2)
    assert part.reason is Reason.READ_TIMEOUT
