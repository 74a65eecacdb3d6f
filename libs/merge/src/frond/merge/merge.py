"""Merging across window borders: a function of the *set* of detections.

What was found inside one window's own ground is final. What reaches into a neighbour's is matched
with what the neighbour found there, class by class: greedily, in an order that is total (uncut
before cut, then as :meth:`Detections.order`), so that no order of arrival can show in the result.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from frond.contracts.plan import WindowGrid
from frond.merge.pairs import Overlaps, Pairs
from frond.merge.table import CUT, TOUCHES_BAND, Detections, IntArray

MAX_PAIRS: Final = 8_000_000
"""Matching pairs held at a time; a denser pile is merged by halves of its rank."""
# a round that settles less than this share of the pairs is the sign of a long chain
_WORTHWHILE = 0.25

Match = Literal["iou", "ios"]
Mask = npt.NDArray[np.bool_]


def merge(
    detections: Detections,
    grid: WindowGrid,
    iou_threshold: float,
    *,
    match: Match = "iou",
    max_pairs: int = MAX_PAIRS,
) -> Detections:
    """One image's detections, each object once, in the total order.

    Args:
        detections: what :func:`frond.merge.own` gave for each window, in any order and any
            number of copies.
        grid: the image's windows.
        iou_threshold: 0…1: two boxes of one class from different windows are one object when
            their measure reaches it.
        match: the measure between two whole boxes. ``iou``: intersection ÷ union; ``ios``:
            intersection ÷ the smaller one. A cut box is never measured by its union: against a
            whole one it counts which share of the cut box is covered, and between two cut ones
            it is ``ios``.
        max_pairs: bound on memory, never on the result: matching pairs held at a time.

    Returns:
        The rows that no better row matches. A row is better when it is not cut and the other is,
        else when it comes first in the total order.

    Time is O(n log n) plus the number of overlapping pairs; memory is O(n), about 100 bytes a row
    with the result's own 50, plus a bounded slice.
    Raises ValueError when a window index is not in the grid or the threshold not in 0…1.
    """
    if not 0.0 <= iou_threshold <= 1.0:
        raise ValueError(f"a threshold of {iou_threshold} is not in 0…1")
    if len(detections) and not (
        detections.windows.min() >= 0 and detections.windows.max() < grid.count
    ):
        raise ValueError(f"a window index is outside the grid of {grid.count}")
    order = detections.order(once=True)
    flags = detections.flags[order]
    band, cut = (flags & TOUCHES_BAND) > 0, (flags & CUT) > 0
    whole, cut = band & ~cut, band & cut
    rank = np.full(len(detections), -1, dtype=np.int32)
    ranked = np.concatenate([order[whole], order[cut]])
    rank[ranked] = np.arange(len(ranked), dtype=np.int32)
    del ranked, flags, band
    uncut = int(whole.sum())
    kept = _Greedy(Overlaps(detections, rank), uncut, iou_threshold, match, max_pairs).run()
    del rank
    keep = np.ones(len(order), dtype=bool)
    keep[whole], keep[cut] = kept[:uncut], kept[uncut:]
    return detections.take(order[keep])


class _Greedy:
    """Greedy suppression over rows in rank order: the best first, uncut before cut."""

    def __init__(
        self, overlaps: Overlaps, uncut: int, threshold: float, match: Match, max_pairs: int
    ) -> None:
        self._n = len(overlaps)
        self._uncut = uncut
        self._threshold = threshold
        self._match = match
        self._max_pairs = max_pairs
        self._overlaps = overlaps
        self._alive = np.ones(self._n, dtype=bool)

    def run(self) -> Mask:
        self._settle(np.arange(self._n, dtype=np.int32))
        return self._alive

    def _settle(self, which: IntArray) -> None:
        """Decide these ranks, ascending; nothing better than them is undecided."""
        if len(which) < 2:
            return
        pairs = self._matching_pairs(which)
        if pairs is not None:
            _suppress(self._alive, *pairs)
            return
        half = len(which) // 2
        better, worse = which[:half], which[half:]
        self._settle(better)
        better = better[self._alive[better]]
        for winner, loser in map(self._matches, self._overlaps.between(better, worse)):
            # ranks of the two sets do not interleave, so a's are the winners
            assert winner.size == 0 or winner.max() < loser.min()
            self._alive[loser] = False
        self._settle(worse[self._alive[worse]])

    def _matching_pairs(self, which: IntArray) -> tuple[IntArray, IntArray] | None:
        """All (winner, loser) pairs, or None when they are too many to hold."""
        found: list[tuple[IntArray, IntArray]] = []
        total = 0
        for pairs in self._overlaps.within(which):
            found.append(self._matches(pairs))
            total += len(found[-1][0])
            if total > self._max_pairs and len(which) > 2:
                return None
        if not found:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        return _joined(w for w, _ in found), _joined(x for _, x in found)

    def _matches(self, pairs: Pairs) -> tuple[IntArray, IntArray]:
        """The pairs that are one object, as (winner, loser)."""
        winner, loser = np.minimum(pairs.a, pairs.b), np.maximum(pairs.a, pairs.b)
        of_loser = np.where(pairs.a == loser, pairs.area_a, pairs.area_b)
        smaller = np.minimum(pairs.area_a, pairs.area_b)
        union = pairs.area_a + pairs.area_b - pairs.intersection
        whole = smaller if self._match == "ios" else union
        # in rank order the cut ones come last: a cut winner's loser is cut as well
        measured_by = np.where(
            loser < self._uncut, whole, np.where(winner < self._uncut, of_loser, smaller)
        )
        same = np.flatnonzero(pairs.intersection >= self._threshold * measured_by)
        return winner[same], loser[same]


def _joined(parts: Iterable[IntArray]) -> IntArray:
    return np.concatenate(list(parts))


def _suppress(alive: Mask, winner: IntArray, loser: IntArray) -> None:
    """Clear ``alive`` of each row that a living better row matches: exactly the greedy result."""
    beaten = np.zeros(len(alive), dtype=bool)
    while len(winner):
        beaten[loser] = True
        # nobody better is left to beat these: they stay, and take what they match with them
        final = ~beaten[winner]
        beaten[loser] = False
        alive[loser[final]] = False
        left = np.flatnonzero(alive[winner] & alive[loser])
        settled = len(winner) - len(left)
        winner, loser = winner[left], loser[left]
        if settled < _WORTHWHILE * (settled + len(left)):
            break
    # a chain in which each beats the next would take a round a link: one pass in rank order
    # settles what is left, in time linear in the pairs
    order = np.argsort(winner, kind="stable")
    living = bytearray(alive.tobytes())
    for w, x in zip(winner[order].tolist(), loser[order].tolist(), strict=True):
        if living[w]:
            living[x] = 0
    alive[:] = np.frombuffer(living, dtype=bool)
