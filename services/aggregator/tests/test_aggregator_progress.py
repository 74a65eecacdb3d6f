"""What the aggregator shows of how far behind it is."""

from __future__ import annotations

from aiokafka import TopicPartition
from prometheus_client import REGISTRY

from frond.aggregator.progress import Progress
from frond.contracts import topics

NAME = topics.DETECTED.named("lag-test-")
FIRST, SECOND = (TopicPartition(NAME, n) for n in (0, 1))


class _Offsets:
    """Ends that were asked for before the commits, as the broker is asked."""

    async def ends(self, _: object) -> dict[TopicPartition, int]:
        return {FIRST: 10, SECOND: 10}

    async def committed(self, _: str) -> dict[TopicPartition, int]:
        return {FIRST: 4, SECOND: 12}


def _lag(partition: TopicPartition) -> float | None:
    return REGISTRY.get_sample_value(
        "frond_consumer_lag",
        {"topic": topics.DETECTED.name, "partition": str(partition.partition)},
    )


async def test_the_lag_is_that_of_its_own_partitions_and_never_less_than_nothing() -> None:
    """A partition that went to another worker is shown no more, and what was committed after the
    ends were asked for is no lag below zero, which would hide another partition's in a sum."""
    assigned = [FIRST, SECOND]
    progress = Progress(
        _Offsets(), "frond.aggregator", "lag-test-",  # type: ignore[arg-type]
        stuck_s=60, assigned=lambda: assigned, busy=lambda: False,
    )  # fmt: skip
    await progress.probe()
    assert (_lag(FIRST), _lag(SECOND)) == (6, 0)
    assigned.remove(FIRST)
    await progress.probe()
    assert (_lag(FIRST), _lag(SECOND)) == (None, 0)
