"""Chunks that take turns."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inference_bench import Bench

from frond.inference.turns import Turns
from frond.models.session import ModelSession


@given(
    said=st.lists(st.integers(1, 4), min_size=1, max_size=12),
    ends=st.lists(st.integers(0, 11), max_size=12),
    stopped=st.sets(st.integers(0, 11)),
)
def test_no_more_than_each_says_in_order(
    said: list[int], ends: list[int], stopped: set[int]
) -> None:
    """Each begins as soon as, and no sooner than, fewer than it says go on and all before it have
    begun or were stopped; every one that is not stopped begins in the end."""

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

        async def nobody_waits_in_vain() -> None:
            # as long as anything can still be done of itself
            for _ in range(3 * len(said)):
                await asyncio.sleep(0)
            waiting = [n for n, t in enumerate(tasks) if not t.done() and n not in begun]
            assert not waiting or len(going) >= said[waiting[0]]

        tasks = [asyncio.create_task(one(n, most)) for n, most in enumerate(said)]
        await nobody_waits_in_vain()
        for n in stopped & set(range(len(said))):
            tasks[n].cancel()
        await nobody_waits_in_vain()
        for n in [*(n for n in ends if n < len(said)), *range(len(said))]:
            may_end[n].set()
            await nobody_waits_in_vain()
        told = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(t, asyncio.CancelledError | None) for t in told), told
        assert begun == sorted(begun)
        assert {n for n, t in enumerate(told) if t is None} | stopped >= set(range(len(said)))
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


async def test_lone_windows_of_chunks_run_beside_each_other(
    local: Path, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that is fastest with two runs at once: two chunks of one window each fill them."""
    session = ModelSession(local, threads=2, batch=1)
    session.share(2)
    infer, together = session.infer, threading.Barrier(2, timeout=30)

    def meeting(prepared: np.ndarray, n: int, *, beside: bool) -> dict[str, np.ndarray]:
        together.wait()
        return infer(prepared, n, beside=beside)

    async def this_one(_: object) -> ModelSession:
        return session

    bench = Bench(scene, tmp_path, local)
    monkeypatch.setattr(session, "infer", meeting)
    monkeypatch.setattr(bench.models, "get", this_one)
    plain: Any = bench.chunk(local, session)
    told = await asyncio.gather(
        *(
            bench.worker.handle(
                plain.model_copy(update={"chunk_id": f"{n:032x}", "windows": plain.windows[:1]})
            )
            for n in range(2)
        )
    )
    assert [t.reason for t in told] == [None, None]
    bench.close()
