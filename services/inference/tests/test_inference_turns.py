"""Chunks that take turns."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frond.inference.turns import Turns


@given(
    said=st.lists(st.integers(1, 4), min_size=1, max_size=12),
    ends=st.lists(st.integers(0, 11), max_size=12),
    stopped=st.sets(st.integers(0, 11)),
)
def test_no_more_than_each_says_in_order(
    said: list[int], ends: list[int], stopped: set[int]
) -> None:
    """Each begins when fewer than it says go on and all before it have begun or were stopped;
    every one that is not stopped begins in the end."""

    async def all_of_them() -> None:
        turns, begun, going = Turns(), list[int](), set[int]()
        may_end = [asyncio.Event() for _ in said]

        async def one(n: int, most: int) -> None:
            async with turns.of(most):
                assert len(going) < most
                begun.append(n)
                going.add(n)
                try:
                    await may_end[n].wait()
                finally:
                    going.discard(n)

        tasks = [asyncio.create_task(one(n, most)) for n, most in enumerate(said)]
        await asyncio.sleep(0)
        for n in stopped & set(range(len(said))):
            tasks[n].cancel()
        for n in [*(n for n in ends if n < len(said)), *range(len(said))]:
            may_end[n].set()
            await asyncio.sleep(0)
        told = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(t, asyncio.CancelledError | None) for t in told), told
        assert begun == sorted(begun)
        assert {n for n, t in enumerate(told) if t is None} <= set(begun)
        async with turns.of(1):
            pass

    asyncio.run(all_of_them())


async def test_one_that_is_stopped_as_it_is_called_gives_its_turn_on() -> None:
    """Called and cancelled in the same step: the next one has the turn."""
    turns = Turns()
    async with asyncio.timeout(10):
        async with turns.of(1):
            called = asyncio.create_task(_enter(turns))
            await asyncio.sleep(0)
        called.cancel()
        with pytest.raises(asyncio.CancelledError):
            await called
        await _enter(turns)


async def _enter(turns: Turns) -> None:
    async with turns.of(1):
        pass
