"""Which jobs wait while inference is behind."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from frond.tiler import metrics
from frond.tiler.backpressure import Backlog


def test_nobody_waits_below_the_bound() -> None:
    """A job may fill the backlog up to its bound."""
    backlog = Backlog(100)
    for offset in range(99):
        assert not backlog.held("big")
        backlog.sent("big", 0, offset)
    assert not backlog.held("big")
    backlog.sent("big", 0, 99)
    assert backlog.held("big")


def test_a_small_job_is_planned_through_a_full_backlog() -> None:
    """With a big job's chunks over the bound, another job has a tenth of it for itself."""
    backlog = Backlog(100)
    for offset in range(150):
        backlog.sent("big", 0, offset)
    backlog.looked(150, {0: 0})
    assert backlog.held("big")
    for offset in range(150, 160):
        assert not backlog.held("small")
        backlog.sent("small", 0, offset)
    assert backlog.held("small")


def test_what_inference_has_done_frees_its_job() -> None:
    """Commits are told to the jobs whose chunks they pass."""
    backlog = Backlog(10)
    for offset in range(6):
        backlog.sent("a", 0, offset)
        backlog.sent("b", 1, offset)
    backlog.looked(20, {0: 6, 1: 5})
    assert (backlog.waiting("a"), backlog.waiting("b")) == (0, 1)
    assert backlog.held("b")
    assert not backlog.held("a")
    backlog.looked(3, {0: 6, 1: 6})
    assert not backlog.held("b")


def test_a_backlog_of_others_holds_nobody_who_has_none_in_it() -> None:
    """After a restart the tiler knows nobody's share: each job may send a tenth again."""
    backlog = Backlog(50)
    backlog.looked(5000, {})
    assert not backlog.held("any")


async def test_what_is_sent_while_the_broker_answers_counts() -> None:
    """A look that began before chunks were sent does not make them forgotten."""
    backlog = Backlog(10)
    looked = asyncio.Event()

    async def look() -> tuple[int, Mapping[int, int]]:
        for offset in range(10):
            backlog.sent("big", 0, offset)
        return 0, {0: 0}

    keeping = asyncio.create_task(backlog.keep(look, lambda *_: looked.set()))
    await looked.wait()
    keeping.cancel()
    assert backlog.held("big")


async def test_a_scrape_tells_whether_planning_waits() -> None:
    """What was uploaded waits then although nothing is wrong: the alert on its lag asks for it."""
    for lag, waits in ((9, 0), (10, 1), (0, 0)):
        backlog = Backlog(10)
        shown = asyncio.Event()

        async def look(lag: int = lag) -> tuple[int, Mapping[int, int]]:
            return lag, {}

        def show(lag: int, holding: bool, shown: asyncio.Event = shown) -> None:
            metrics.show_backlog(lag, holding)
            shown.set()

        keeping = asyncio.create_task(backlog.keep(look, show))
        await shown.wait()
        keeping.cancel()
        assert REGISTRY.get_sample_value("frond_tiled_backlog") == lag
        assert REGISTRY.get_sample_value("frond_tiler_holding") == waits


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=200), st.data())
def test_counts_are_those_of_the_offsets(sent: list[tuple[str, int]], data: st.DataObject) -> None:
    """Whatever was sent where, and wherever inference is, each job's count is what lies beyond."""
    backlog = Backlog(10)
    ends: Counter[int] = Counter()
    truth: list[tuple[str, int, int]] = []
    for job, partition in sent:
        truth.append((job, partition, ends[partition]))
        backlog.sent(job, partition, ends[partition])
        ends[partition] += 1
    committed = {p: data.draw(st.integers(0, end)) for p, end in ends.items()}
    backlog.looked(0, committed)
    for job in "abc":
        assert backlog.waiting(job) == sum(
            1 for j, p, offset in truth if j == job and offset >= committed[p]
        )
