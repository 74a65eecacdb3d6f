"""No offset is passed over unnoticed; what comes twice, and true holes, are let through."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from hypothesis import given
from hypothesis import strategies as st

from frond.aggregator.continuity import Continuity
from frond.aggregator.progress import FaustCrashed
from frond.bus.offsets import Offsets
from frond.stack import Endpoints

TP = TopicPartition("t", 0)


def guard(held: Iterable[int], begin: int = 0) -> Continuity:
    """A guard over a partition that holds these offsets."""
    offsets = sorted(held)

    async def first_from(_: TopicPartition, at: int) -> int:
        return next(o for o in offsets if o >= at)

    return Continuity(lambda: {TP: begin}, first_from)


async def test_a_message_passed_over_ends_the_process() -> None:
    """In the middle, and at the beginning of a generation."""
    continuity = guard(range(10), begin=3)
    for offset in (3, 4, 5):
        await continuity.admit(TP, 1, offset)
    with pytest.raises(FaustCrashed, match="6 was passed over, 7 came instead"):
        await continuity.admit(TP, 1, 7)
    with pytest.raises(FaustCrashed, match="3 was passed over"):
        await continuity.admit(TP, 2, 4)


@given(st.sets(st.integers(0, 40), min_size=1), st.data())
async def test_in_order_with_holes_and_again(held: set[int], data: st.DataObject) -> None:
    """All that a partition holds passes in order, whatever holes it has, and wherever reading
    begins again; leaving any one out is noticed at the next one."""
    offsets = sorted(held)
    continuity = guard(offsets)
    for offset in offsets:
        await continuity.admit(TP, 1, offset)
    again = data.draw(st.sampled_from(offsets))
    for offset in offsets[offsets.index(again) :]:
        await continuity.admit(TP, 1, offset)
    if len(offsets) > 1:
        left_out = data.draw(st.sampled_from(offsets[:-1]))
        fresh = guard(offsets)
        with pytest.raises(FaustCrashed, match=rf"\]: {left_out} was passed over"):
            for offset in offsets:
                if offset != left_out:
                    await fresh.admit(TP, 1, offset)


@pytest.mark.stack
async def test_a_transaction_leaves_a_true_hole(stack: Endpoints, topic_prefix: str) -> None:
    """The offset of a transaction's marker has no message: what comes after it is admitted, and a
    message left out is still noticed."""
    name = f"{topic_prefix}transactions"
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.kafka_bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, 1, 1)])
    await admin.close()
    producer = AIOKafkaProducer(
        bootstrap_servers=stack.kafka_bootstrap, transactional_id=uuid.uuid4().hex
    )
    await producer.start()
    told = []
    for _ in range(3):
        async with producer.transaction():
            told.append(await producer.send_and_wait(name, b"x", partition=0))
    await producer.stop()
    offsets = [one.offset for one in told]
    assert offsets == [0, 2, 4]
    tp = TopicPartition(name, 0)
    continuity = Continuity(lambda: {tp: 0}, Offsets(stack.kafka_bootstrap, "").first_from)
    for offset in (0, 2, 4):
        await continuity.admit(tp, 1, offset)
    with pytest.raises(FaustCrashed, match="2 was passed over"):
        for offset in (0, 4):
            await continuity.admit(tp, 2, offset)
