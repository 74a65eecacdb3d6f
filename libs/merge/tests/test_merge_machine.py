"""Chunks on their way to the merge: any order, any copies, any cutting up gives the same bytes."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from frond.contracts.plan import WindowGrid
from frond.merge import CUT, TOUCHES_BAND, Detections, from_ipc, merge, to_ipc

GRID = WindowGrid(width=4000, height=4000, size=640, margin=64)
nth = st.integers(0, 10**6)


def scene(seed: int, n: int, extent: float) -> Detections:
    """Crowded boxes, many of equal score and place, in different windows."""
    rng = np.random.default_rng(seed)
    corner = np.round(rng.uniform(0, extent, (n, 2)) * 4) / 4
    boxes = np.c_[corner, corner + rng.choice([4.0, 6.25, 30.0], (n, 2))]
    flags = rng.choice([0, TOUCHES_BAND, TOUCHES_BAND | CUT], n)
    return Detections.of(
        boxes, rng.integers(0, 4, n) / 4, rng.integers(0, 2, n), rng.integers(0, 9, n), flags
    )


class Arrivals(RuleBasedStateMachine):
    """The store holds chunks as bytes; whoever merges reads all of them, in the store's order."""

    @initialize(
        seed=st.integers(0, 10**9), n=st.integers(0, 60), extent=st.sampled_from([8.0, 60.0, 400.0]),
        chunks=st.integers(1, 6), iou=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    )  # fmt: skip
    def plan(self, seed: int, n: int, extent: float, chunks: int, iou: float) -> None:
        found = scene(seed, n, extent)
        self.iou = iou
        self.chunks = [found.take(i) for i in np.array_split(np.arange(n), chunks)]
        self.stored: list[bytes] = []
        self.arrived: set[int] = set()

    @rule(which=nth)
    def arrive(self, which: int) -> None:
        """A chunk's result is stored; perhaps not for the first time."""
        which %= len(self.chunks)
        self.stored.append(to_ipc(self.chunks[which], {"ordinal": str(which)}))
        self.arrived.add(which)

    @precondition(lambda self: self.stored)
    @rule(which=nth, at=nth)
    def cut_up(self, which: int, at: int) -> None:
        """A stored result is stored again as two."""
        rows = from_ipc(self.stored.pop(which % len(self.stored)))[0]
        cut = at % (len(rows) + 1)
        self.stored += [to_ipc(rows.take(slice(cut, None))), to_ipc(rows.take(slice(cut)))]

    @precondition(lambda self: len(self.stored) > 1)
    @rule(one=nth, other=nth)
    def join(self, one: int, other: int) -> None:
        """Two of them become one."""
        a = from_ipc(self.stored.pop(one % len(self.stored)))[0]
        b = from_ipc(self.stored.pop(other % len(self.stored)))[0]
        self.stored.append(to_ipc(Detections.concat([a, b])))

    @precondition(lambda self: self.stored)
    @rule(which=nth, seed=nth)
    def shuffle(self, which: int, seed: int) -> None:
        """The rows of one, and all of them among each other, change places."""
        rng = np.random.default_rng(seed)
        at = which % len(self.stored)
        rows = from_ipc(self.stored[at])[0]
        self.stored[at] = to_ipc(rows.take(rng.permutation(len(rows))))
        self.stored = [self.stored[i] for i in rng.permutation(len(self.stored))]

    @precondition(lambda self: self.stored)
    @rule()
    def merge_early(self) -> None:
        """A merge of what is there is stored beside it: merging it again changes nothing."""
        once = merge(self._read(), GRID, self.iou)
        again = merge(once, GRID, self.iou)
        assert to_ipc(again) == to_ipc(once)

    @invariant()
    def the_same_bytes(self) -> None:
        there = Detections.concat([self.chunks[i] for i in sorted(self.arrived)])
        assert to_ipc(merge(self._read(), GRID, self.iou)) == to_ipc(merge(there, GRID, self.iou))

    def _read(self) -> Detections:
        return Detections.concat([from_ipc(raw)[0] for raw in self.stored])


Arrivals.TestCase.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
TestArrivals = Arrivals.TestCase
