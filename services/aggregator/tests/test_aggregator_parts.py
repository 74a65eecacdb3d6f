"""Lanes, spilled outcomes, surveys of listings, the status board, what is behind."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from frond.aggregator import room
from frond.aggregator.chunks import failure_key
from frond.aggregator.lanes import Lanes
from frond.aggregator.pulse import Pulse
from frond.aggregator.spill import Outcomes
from frond.aggregator.status import StatusBoard
from frond.aggregator.survey import survey
from frond.bus import Outgoing
from frond.bus.offsets import behind
from frond.contracts import keys
from frond.contracts.errors import StoreUnavailable
from frond.contracts.events import JobStatusChanged
from frond.contracts.jobs import ImageOutcome, ImageStatus, JobStatus
from frond.store import Listed


async def test_a_lane_keeps_its_order_while_others_go_on() -> None:
    """A slow piece of work holds up its own lane and no other; nothing overtakes in a lane."""
    lanes, done, gate = Lanes(100), list[tuple[str, int]](), asyncio.Event()

    async def work(lane: str, n: int) -> None:
        if (lane, n) == ("a", 0):
            await gate.wait()
        done.append((lane, n))
        if (lane, n) == ("b", 4):
            gate.set()

    for n in range(5):
        for lane in ("a", "b"):
            lanes.put(lane, lambda lane=lane, n=n: work(lane, n))
    await lanes.idle()
    assert [x for x in done if x[0] == "a"] == [("a", n) for n in range(5)]
    assert done[:5] == [("b", n) for n in range(5)]


async def test_whoever_puts_never_waits_and_is_told_which_lanes_are_full() -> None:
    """A full lane takes more still, for who has read it must leave it somewhere; it is full until
    some of it is done. Large work counts as much as it is said to."""
    lanes, gate = Lanes(3), asyncio.Event()

    async def work() -> None:
        await gate.wait()

    for _ in range(5):
        lanes.put("a", work)
    lanes.put("b", work)
    lanes.put("c", work, 3)
    assert lanes.full == {"a", "c"}
    gate.set()
    await lanes.idle()
    assert lanes.full == set()


async def test_draining_finishes_what_runs_and_starts_nothing_more() -> None:
    """The running piece ends; what queues behind it is never begun."""
    lanes, began = Lanes(10), list[int]()
    running = asyncio.Event()

    async def work(n: int) -> None:
        began.append(n)
        running.set()
        await asyncio.sleep(0.01)

    for n in range(3):
        lanes.put("a", lambda n=n: work(n))
    await running.wait()
    await lanes.drain(5)
    assert began == [0]
    await lanes.idle()


async def test_a_bug_in_work_closes_the_lanes() -> None:
    """What would be acknowledged after it must not be."""
    lanes, began = Lanes(10), list[int]()

    async def bug() -> None:
        raise ZeroDivisionError

    async def next_one() -> None:
        began.append(1)

    lanes.put("a", bug)
    lanes.put("a", next_one)
    await lanes.idle()
    assert isinstance(lanes.broken, ZeroDivisionError)
    assert began == []


async def test_work_that_nobody_cancelled_breaks_its_lanes() -> None:
    """A library's own CancelledError counts as an error: what comes after it is not begun."""
    lanes, began = Lanes(10), list[int]()

    async def betrayed() -> None:
        raise asyncio.CancelledError

    async def after() -> None:
        began.append(1)

    lanes.put("a", betrayed)
    lanes.put("a", after)
    await lanes.idle()
    assert (began, type(lanes.broken)) == ([], RuntimeError)


@given(st.lists(st.tuples(st.text(max_size=5), st.integers(0, 50)), max_size=40))
def test_outcomes_come_back_in_the_order_of_name_and_id(rows: list[tuple[str, int]]) -> None:
    """Sorted by code point of the name, then by id, each once, as often as asked."""
    wanted = {
        (name.encode(), f"{n:032x}"): ImageOutcome(
            job_id="job", image_id=f"{n:032x}", image="s3://b/k", name=name,
            status=ImageStatus.COMPLETED,
        )
        for name, n in rows
    }  # fmt: skip
    with Outcomes() as outcomes:
        outcomes.add(wanted.values())
        outcomes.add(wanted.values())
        assert len(outcomes) == len(wanted)
        expected = [wanted[k] for k in sorted(wanted)]
        assert list(outcomes) == expected == list(outcomes)


def test_outcomes_are_paged_without_loss() -> None:
    """More than a page, many of one name."""
    every = [
        ImageOutcome(
            job_id="job", image_id=f"{n:032x}", image="s3://b/k", name=f"{n % 3}",
            status=ImageStatus.COMPLETED,
        )
        for n in range(1700)
    ]  # fmt: skip
    with Outcomes() as outcomes:
        outcomes.add(every)
        got = [(o.name, o.image_id) for o in outcomes]
    assert got == sorted((o.name, o.image_id) for o in every)


_FILLING = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
from frond.aggregator import room
from frond.aggregator.spill import Outcomes
from frond.contracts.errors import StoreUnavailable
from frond.contracts.jobs import ImageOutcome
with Outcomes() as outcomes:
    try:
        with room.needed_for("a job's outcomes"):
            for page in range(200):
                outcomes.add(
                    ImageOutcome(
                        job_id="j", image_id=f"{page * 500 + n:032x}", image="s3://b/" + "x" * 200,
                        name=f"{page * 500 + n}", status="completed",
                    )
                    for n in range(500)
                )
    except StoreUnavailable as e:
        print(e)
"""


def test_outcomes_that_the_disk_does_not_take_wait_for_room() -> None:
    """They are no error of the job's: that would be a dead letter for what ends it."""
    said = subprocess.run(
        [sys.executable, "-c", _FILLING], capture_output=True, text=True, timeout=120, check=True
    ).stdout
    assert said.startswith("no room for a job's outcomes: ")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_an_outage(code: int) -> None:
    """Files' and their folders'; no other error of a disk is."""
    with pytest.raises(StoreUnavailable, match="no room for masks"), room.needed_for("masks"):
        raise OSError(code, os.strerror(code))
    with pytest.raises(PermissionError), room.needed_for("masks"):
        raise PermissionError(errno.EACCES, "no")
    with pytest.raises(sqlite3.OperationalError), room.needed_for("masks"):
        sqlite3.connect(":memory:").execute("SELECT nothing")


async def test_a_survey_tells_where_each_image_stands() -> None:
    """Finished, planned with its chunks, sent and never planned, or refused and never counted; from
    names alone."""
    done, half, sent, broken = "0a" * 16, "0b" * 16, "0c" * 16, "0d" * 16
    refused, told = "0e" * 16, "0f" * 16
    names = [
        keys.job_spec("j"),
        keys.image_outcome("j", done),
        keys.image_plan("j", done),
        keys.chunk_result("j", done, "c0"),
        keys.image_plan("j", half),
        keys.chunk_result("j", half, "c1"),
        failure_key("j", half, "c2"),
        keys.image_outcome("j", broken),
        *(keys.job_input_record("j", i) for i in (done, half, sent, broken)),
        keys.image_outcome("j", told),
        *(keys.job_refused_record("j", i) for i in (refused, told)),
    ]
    at = datetime.now(UTC)

    async def listing() -> AsyncIterator[Listed]:
        for name in sorted(names):
            yield Listed(name, 1, "", at)

    found = await survey("j", listing())
    assert found.finished == {bytes.fromhex(i) for i in (done, broken, told)}
    assert found.planned == {half: {"c1", "c2"}}
    assert (found.inputs, found.refused) == ([sent], [refused])
    assert (found.completed, found.cancelled) == (False, False)
    assert found.fingerprint == (len(names), at)

    names += [keys.job_completed("j"), keys.job_cancelled("j")]
    found = await survey("j", listing())
    assert (found.completed, found.cancelled) == (True, True)


async def test_only_a_jobs_newest_snapshot_is_published_and_none_after_its_end() -> None:
    """However often a job changes between two rounds, one snapshot is sent."""
    sent: list[Outgoing] = []
    ended: set[str] = set()

    def snapshot(job_id: str) -> JobStatusChanged | None:
        if job_id in ended:
            return None
        return JobStatusChanged(job_id=job_id, status=JobStatus.RUNNING, updated=datetime.now(UTC))

    async def send(out: list[Outgoing]) -> None:
        sent.extend(out)

    asleep = False
    board = StatusBoard(snapshot, send, asleep=lambda: asleep)
    for _ in range(100):
        board.changed("a")
    board.changed("b")
    await board.publish()
    assert [o.event.job_id for o in sent] == ["a", "b"]
    board.changed("a")
    board.changed("b")
    ended.add("a")
    await board.quiet("b")
    await board.publish()
    assert len(sent) == 2
    # nor may a zombie say that a job runs which another worker has ended meanwhile
    asleep = True
    board.changed("b")
    await board.publish()
    asleep = False
    await board.publish()
    board.changed("b")
    board.forget()
    await board.publish()
    assert len(sent) == 2


def test_whoever_slept_doubts_for_two_heartbeats() -> None:
    """A gap longer than a session is sleep, wherever it is noticed; shorter ones are not."""
    now = 100.0
    pulse = Pulse(10, clock=lambda: now)
    for now in (109.0, 118.5):  # noqa: B007 # read by the clock
        assert pulse.doubt_s() == 0
    now = 130.0
    assert pulse.doubt_s() == 5
    now = 132.0
    pulse.beat()
    assert pulse.doubt_s() == 3
    now = 135.0
    assert pulse.doubt_s() == 0


async def test_work_begins_once_doubt_is_over() -> None:
    """What waited in the queue of a zombie waits until it knows what it owns."""
    late = 0.0
    loop = asyncio.get_running_loop()
    pulse = Pulse(0.2, clock=lambda: loop.time() + late)
    await pulse.sure()
    late = 60.0
    began = loop.time()
    await pulse.sure()
    assert 0.09 < loop.time() - began < 5


def test_what_was_never_committed_is_behind() -> None:
    """An empty partition is not; one that holds messages nobody committed is."""
    a, b, c = (TopicPartition("t", n) for n in range(3))
    assert behind({a: 5, b: 0, c: 3}, {a: 5}) == [c]
    assert behind({a: 5}, {a: 4}) == [a]
