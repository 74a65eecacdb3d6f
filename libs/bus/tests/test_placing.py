"""Keys lie where every other Kafka client puts them."""

from __future__ import annotations

from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from frond.bus.placing import place


@given(st.binary(max_size=300), st.integers(1, 64))
def test_a_key_lies_where_aiokafka_puts_it(key: bytes, partitions: int) -> None:
    """Whatever its length: a table's changelog and its source agree only because of that."""
    every = list(range(partitions))
    assert place(key, every, every) == DefaultPartitioner()(key, every, every)


def test_no_key_lies_anywhere_that_can_be_reached() -> None:
    """A partition without a leader would keep it waiting."""
    assert {place(None, range(4), [2]) for _ in range(20)} == {2}
    assert {place(None, range(4), []) for _ in range(200)} == {0, 1, 2, 3}
