"""The job stage's decisions: sets of images, and never a job closed with a hole."""

from __future__ import annotations

import os
import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frond.aggregator.ending import MAX_FAILURES, Roster, Sums, completed_event
from frond.aggregator.jobs import (
    MOST_IDS,
    Bucket,
    JobRecord,
    Next,
    Tally,
    bucket_key,
    decide,
    held,
    place,
    record_key,
    running,
)
from frond.contracts.events import ImageFinished
from frond.contracts.ids import image_id
from frond.contracts.jobs import (
    ImageOutcome,
    ImageStatus,
    JobOutcome,
    JobStatus,
    Timings,
    WindowCounts,
)
from frond.contracts.reasons import Reason


def finished(n: int, *, failed: bool = False) -> ImageFinished:
    """Image n: n windows, of which one failed if the image did; n detections if it did not."""
    image = f"s3://bucket/{n:05}.tif"
    w = n + 1
    outcome = ImageOutcome(
        job_id="job", image_id=image_id("job", image), image=image, name=f"{n:05}.tif",
        status=ImageStatus.FAILED if failed else ImageStatus.COMPLETED,
        reason=Reason.TRUNCATED if failed else None, detail="Send it again." if failed else None,
        windows=WindowCounts(total=w, done=w - failed, failed=int(failed)),
        detections={} if failed else {"palm": n + 1},
    )  # fmt: skip
    return ImageFinished(job_id="job", outcome=outcome, timings=Timings(merge=1.0))


class Ledger:
    """The stage's bookkeeping over a plain dict, as the handler does it."""

    def __init__(self) -> None:
        self.table: dict[bytes, bytes] = {}

    def add(self, event: ImageFinished) -> Tally:
        prefix, bucket = place(event.outcome.image_id, self._bucket)
        self.table[bucket_key("job", prefix)] = bucket.add(event).to_bytes()
        return self.tally()

    def _bucket(self, prefix: str) -> Bucket:
        raw = self.table.get(bucket_key("job", prefix))
        return Bucket.from_bytes(raw) if raw else Bucket()

    def tally(self) -> Tally:
        return Tally.over(Bucket.from_bytes(raw) for raw in self.table.values())


@given(
    size=st.integers(1, 25),
    failing=st.sets(st.integers(0, 24)),
    copies=st.lists(st.integers(0, 24), max_size=25),
    sealed_at=st.integers(0, 60),
    seed=st.integers(),
)
def test_a_job_is_closed_exactly_when_it_is_sealed_and_whole(
    size: int, failing: set[int], copies: list[int], sealed_at: int, seed: int
) -> None:
    """In any order, with any copies, wherever the seal comes: no hole, and nothing twice."""
    events = [finished(n, failed=n in failing) for n in range(size)]
    arriving = events + [events[n] for n in copies if n < size]
    random.Random(seed).shuffle(arriving)
    ledger, record, seen = Ledger(), JobRecord(), set[str]()
    for at, event in enumerate(arriving):
        if at == sealed_at:
            record = JobRecord(size=size)
        tally = ledger.add(event)
        seen.add(event.outcome.image_id)
        assert tally.images == len(seen)
        whole = record.size is not None and len(seen) == size
        assert decide(record, tally.images) is (Next.CLOSE if whole else Next.WAIT)
    tally = ledger.tally()
    failed = {n for n in failing if n < size}
    assert (tally.completed, tally.failed) == (size - len(failed), len(failed))
    assert tally.windows.total == sum(range(1, size + 1))
    assert tally.windows.total == tally.windows.done + tally.windows.failed
    assert tally.detections.get("palm", 0) == sum(n + 1 for n in range(size) if n not in failed)
    assert tally.timings == Timings(merge=float(size))


def test_records_and_buckets_survive_the_table() -> None:
    """What is written is what is read; keys of records and buckets never meet."""
    for record in (JobRecord(), JobRecord(size=0), JobRecord(size=7, cancelled=True)):
        assert JobRecord.from_bytes(record.to_bytes()) == record
    bucket = Bucket().add(finished(1)).add(finished(2, failed=True))
    assert Bucket.from_bytes(bucket.to_bytes()) == bucket
    assert bucket.add(finished(2)) is bucket
    keys = {record_key("a"), *(bucket_key("a", f"{n:03x}") for n in range(4096))}
    assert len(keys) == 4097


def test_an_empty_or_cancelled_job_closes_at_once() -> None:
    """A job of no images is whole; a cancelled one ends as it stands."""
    assert decide(JobRecord(size=0), 0) is Next.CLOSE
    assert decide(JobRecord(cancelled=True), 3) is Next.CLOSE
    assert decide(JobRecord(), 3) is Next.WAIT


def test_a_buckets_value_stays_small_in_a_job_of_100_000_images() -> None:
    """An update rewrites one bucket: about 25 ids of a job of 100,000."""
    bucket = Bucket()
    for n in range(25):
        bucket = bucket.add(finished(n))
    assert len(bucket.to_bytes()) < 1024


@pytest.mark.parametrize("there", [MOST_IDS - 1, 10_000])
def test_a_bucket_takes_so_many_ids_and_no_more(there: int) -> None:
    """Whoever grinds names whose ids fall into one bucket makes no value that the changelog does not
    take: the next digits tell where they go. A bucket of an older version is read as it is. Copies
    count once, and everything is found again."""
    ledger = Ledger()
    old = {os.urandom(16) for _ in range(there)}
    ledger.table[bucket_key("job", "000")] = Bucket(completed=frozenset(old)).to_bytes()
    largest = max(len(raw) for raw in ledger.table.values()) + 1000
    ids = [f"000{n % 2:03x}{n:026x}" for n in range(20)]
    for image in 2 * ids:
        outcome = finished(0).outcome.model_copy(update={"image_id": image})
        tally = ledger.add(ImageFinished(job_id="job", outcome=outcome))
    assert tally.images == there + len(ids)
    assert max(len(raw) for raw in ledger.table.values()) < min(largest, 1_000_000)
    assert set(held("job", ledger.table.get)) == {"000", "000000", "000001"}
    assert all(bytes.fromhex(i) in place(i, ledger._bucket)[1] for i in ids)


def test_the_way_of_an_id_ends() -> None:
    """With all of its digits; nothing else begins so."""
    full = Bucket(failed=frozenset(n.to_bytes(16, "big") for n in range(MOST_IDS)))
    image = "f" * 32
    seen: list[str] = []

    def bucket(prefix: str) -> Bucket:
        seen.append(prefix)
        return full if len(prefix) < 32 else Bucket()

    assert place(image, bucket) == (image, Bucket())
    assert seen == [image[:n] for n in (*range(3, 33, 3), 32)]


@given(ids=st.lists(st.binary(min_size=16, max_size=16)), size=st.none() | st.integers(0, 20))
def test_a_roster_is_a_function_of_the_set_of_images(ids: list[bytes], size: int | None) -> None:
    """Copies and order change nothing, and what is beyond the size is left out."""
    one = Roster.of(ids, size, False)
    assert one == Roster.of([*reversed(ids), *ids], size, False)
    assert list(one.ids()) == sorted({i.hex() for i in ids})[:size]


@given(size=st.integers(0, 12), failing=st.sets(st.integers(0, 11)), cancelled=st.booleans())
def test_the_completed_events_numbers_close(size: int, failing: set[int], cancelled: bool) -> None:
    """expected = completed + failed, and status and outcome say how it went."""
    outcomes = [finished(n, failed=n in failing).outcome for n in range(size)]
    failed = sum(n in failing for n in range(size))
    roster = Roster.of((bytes.fromhex(o.image_id) for o in outcomes), size, cancelled)
    event = completed_event(
        "job", roster, Sums.over(outcomes), (), None, Timings(), datetime.now(UTC)
    )
    assert event.images.expected == event.images.completed + event.images.failed == size
    assert event.images.failed == failed == len(event.failures)
    if cancelled:
        assert event.status is JobStatus.DISMISSED
    elif size and failed == size:
        assert event.status is JobStatus.FAILED
    else:
        assert event.status is JobStatus.SUCCESSFUL
        assert (event.outcome is JobOutcome.COMPLETED) == (failed == 0)


def test_at_most_a_hundred_failures_are_listed_and_all_are_counted() -> None:
    """The event stays small whatever goes wrong."""
    sums = Sums.over(finished(n, failed=True).outcome for n in range(250))
    assert (sums.failed, len(sums.failures)) == (250, MAX_FAILURES)
    assert sums.failures[0].name == "00000.tif"


def test_a_running_jobs_snapshot_tells_what_is_done() -> None:
    """Counts come from the sets; the expected number is None until the job is sealed."""
    ledger = Ledger()
    ledger.add(finished(1))
    tally = ledger.add(finished(2, failed=True))
    told = running("job", JobRecord(), tally, datetime.now(UTC))
    assert (told.status, told.images.expected) == (JobStatus.RUNNING, None)
    assert (told.images.completed, told.images.failed) == (1, 1)
    assert told.windows.total == 5
