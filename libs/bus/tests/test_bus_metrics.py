"""What a consumer shows of itself."""

from __future__ import annotations

from typing import Any

from aiokafka import TopicPartition
from prometheus_client import REGISTRY

from frond.bus import Handling
from frond.bus.progress import Progress
from frond.contracts import topics

TOPIC = "frond.lag.v1"


class _Consumer:
    """As much of AIOKafkaConsumer as Progress asks."""

    def __init__(self) -> None:
        self.assigned: set[TopicPartition] = set()

    def assignment(self) -> set[TopicPartition]:
        return self.assigned

    async def topics(self) -> set[str]:
        return {TOPIC}

    async def end_offsets(self, partitions: Any) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 7)

    async def position(self, _: TopicPartition) -> int:
        return 2


def _lag(partition: int) -> float | None:
    return REGISTRY.get_sample_value(
        "frond_consumer_lag", {"topic": TOPIC, "partition": str(partition)}
    )


async def test_the_lag_of_partitions_that_went_to_another_worker_is_shown_no_more() -> None:
    """What was behind when another worker took a partition would else stand there for ever, and a
    sum over workers would count it twice."""
    consumer = _Consumer()
    progress = Progress(consumer, TOPIC)
    consumer.assigned = {TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)}
    await progress.probe(busy=False)
    assert (_lag(0), _lag(1)) == (5, 5)
    consumer.assigned = {TopicPartition(TOPIC, 1)}
    await progress.probe(busy=False)
    assert (_lag(0), _lag(1)) == (None, 5)
    consumer.assigned = set()
    await progress.probe(busy=False)
    assert (_lag(0), _lag(1)) == (None, None)


def test_dead_letters_are_counted_from_nought() -> None:
    """A counter that begins at its first letter shows no increase when that comes."""

    async def handler(_: Any) -> tuple[()]:
        return ()

    Handling(topics.COMPLETED, "frond.test", handler, producer=None)  # type: ignore[arg-type]
    found = REGISTRY.get_sample_value("frond_dead_letters_total", {"topic": topics.COMPLETED.name})
    assert found is not None
