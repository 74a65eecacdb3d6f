"""What is told of how far behind the aggregator is, and when that counts as standing still."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import pytest
from aiokafka import TopicPartition
from prometheus_client import REGISTRY

from frond.aggregator.progress import FaustCrashed, Progress, Still
from frond.aggregator.reconcile import Reconciler
from frond.bus.offsets import Offsets
from frond.contracts import topics
from frond.contracts.topics import Topic
from frond.runtime import ServiceSettings

PREFIX = "lag-test-"
FIRST, SECOND = (TopicPartition(topics.DETECTED.named(PREFIX), n) for n in (0, 1))


def _declared(topics: Iterable[Topic]) -> list[TopicPartition]:
    return [TopicPartition(t.named(PREFIX), n) for t in topics for n in range(t.partitions)]


class _Offsets(Offsets):
    """What a broker would say; of partitions that are not named, that they are empty."""

    def __init__(
        self,
        ends: Mapping[TopicPartition, int],
        begins: Mapping[TopicPartition, int],
        committed: Mapping[TopicPartition, int],
    ) -> None:
        super().__init__("", PREFIX)
        self.said = ends, begins, committed

    async def ends(self, topics: Iterable[Topic]) -> dict[TopicPartition, int]:
        return {p: self.said[0].get(p, 0) for p in _declared(topics)}

    async def begins(self, topics: Iterable[Topic]) -> dict[TopicPartition, int]:
        return {p: self.said[1].get(p, 0) for p in _declared(topics)}

    async def committed(self, group: str) -> dict[TopicPartition, int]:
        return dict(self.said[2])


def _progress(
    offsets: Offsets,
    assigned: list[TopicPartition],
    stuck_s: float,
    recovered: Callable[[], Mapping[TopicPartition, int]] = dict,
) -> Progress:
    return Progress(
        offsets, "frond.aggregator", PREFIX, stuck_s=stuck_s, assigned=lambda: assigned,
        busy=lambda: False, recovered=recovered,
    )  # fmt: skip


def _lag(partition: TopicPartition) -> float | None:
    return REGISTRY.get_sample_value(
        "frond_consumer_lag",
        {"topic": topics.DETECTED.name, "partition": str(partition.partition)},
    )


async def test_the_lag_is_that_of_its_own_partitions_and_never_less_than_nothing() -> None:
    """A partition that went to another worker is shown no more, and what was committed after the
    ends were asked for is no lag below zero, which would hide another partition's in a sum."""
    assigned = [FIRST, SECOND]
    offsets = _Offsets({FIRST: 10, SECOND: 10}, {}, {FIRST: 4, SECOND: 12})
    progress = _progress(offsets, assigned, 60)
    await progress.probe()
    assert (_lag(FIRST), _lag(SECOND)) == (6, 0)
    assigned.remove(FIRST)
    await progress.probe()
    assert (_lag(FIRST), _lag(SECOND)) == (None, 0)


@pytest.mark.parametrize("committed", [{}, {FIRST: 4}])
async def test_nobody_is_behind_what_retention_has_removed(
    committed: dict[TopicPartition, int],
) -> None:
    """After longer than a topic's retention without an aggregator nothing is left to commit: there is
    no lag, nothing to start afresh for, and no job that the reconciler would hold still for."""
    offsets = _Offsets({FIRST: 10}, {FIRST: 10}, committed)
    progress = _progress(offsets, [FIRST], 0)
    for _ in range(3):
        await progress.probe()
    assert _lag(FIRST) == 0
    reconciler = Reconciler(
        ServiceSettings(topic_prefix=PREFIX), None, None, None, None, offsets,  # type: ignore[arg-type]
        stall_s=0, owns=lambda _: True, idle_s=lambda _: 0.0,
    )  # fmt: skip
    assert not await reconciler._waiting({FIRST: 10})
    assert await reconciler._waiting({FIRST: 11})


async def test_a_message_that_is_there_and_that_nobody_commits_is_a_standstill() -> None:
    """Also where what came before it was removed."""
    progress = _progress(_Offsets({FIRST: 10}, {FIRST: 9}, {}), [FIRST], 0)
    await progress.probe()
    assert _lag(FIRST) == 1
    with pytest.raises(FaustCrashed, match="offsets have not moved"):
        await progress.probe()


async def test_who_recovers_tables_gets_on() -> None:
    """However long it takes, and nothing is committed meanwhile; unless recovery stands still, too."""
    changelog = {TopicPartition("changelog", 0): 0}
    progress = _progress(_Offsets({FIRST: 10}, {}, {}), [FIRST], 0, lambda: changelog)
    for offset in range(5):
        changelog[TopicPartition("changelog", 0)] = offset
        await progress.probe()
    with pytest.raises(FaustCrashed, match="offsets have not moved"):
        await progress.probe()


def test_what_moves_or_need_not_is_not_still() -> None:
    """Seconds count from the last move."""
    now = 100.0
    still = Still(lambda: now)
    assert still.seconds("a") == 0
    now = 110.0
    assert still.seconds("a") == 10
    assert still.seconds("b") == 0
    now = 115.0
    assert still.seconds("b", need_not=True) == 0
    now = 116.0
    assert still.seconds("b") == 1
