"""Which boxes overlap: a spatial index that yields pairs in bounded slices of memory.

Boxes fall into levels by their longer side, a factor of four apart. A level's boxes lie in strips
as high as its highest box, sorted by x within a strip, so that everything that can overlap a box
of this level or a lower one is found in two or three contiguous runs of the sorted column. Each
box looks in its own level and in those above; each unordered pair is met once.

All is sorted once, by level, class, strip and x, and worked through in that order: neighbours in
the image are neighbours in memory, so that a step costs the same however many boxes there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from frond.merge.table import SUBPIXEL, Detections, FloatArray, IntArray

CANDIDATES_A_SLICE: Final = 16_384
"""Rows, and pairs of rows, looked at together at most: what a core's cache holds."""
# of few rows a share is looked at together, so that a slice is no more than they are themselves
_SLICES: Final = 8
_LEAST_A_SLICE: Final = 2_048
_RATIO = 4.0
# outliers this much larger than the bulk get levels of their own
_OUTLIER = 1.25
# a bit is left for the sign, and one to add without care
_KEY_LIMIT: Final = 1 << 62


@dataclass(frozen=True)
class Pairs:
    """Overlapping pairs: ranks of both, their areas and intersection in lattice units²."""

    a: IntArray
    b: IntArray
    area_a: FloatArray
    area_b: FloatArray
    intersection: FloatArray


Index = npt.NDArray[Any]
"""Integers, in as few bytes as they need."""


class Overlaps:
    """The overlaps among detections of one class in different windows.

    Args:
        detections: any rows.
        rank: each row's, 0…n-1 for the n rows that count, and negative for those that do not.
            Ranks are what goes in and comes out.

    Memory is about 50 bytes a row that counts, plus one slice.
    """

    def __init__(self, detections: Detections, rank: Index) -> None:
        rows = np.flatnonzero(rank >= 0)
        low = detections.boxes[rows, :2].min(axis=0) if len(rows) else np.zeros(2)
        columns = [_lattice(detections.boxes[rows, k], low[k % 2]) for k in range(4)]
        wide = np.result_type(*columns)
        x0, y0, x1, y1 = columns = [c.astype(wide, copy=False) for c in columns]
        level = self._set_levels(x1 - x0, y1 - y0)
        classes = _ranks(detections.classes[rows])
        order = self._order(level, classes, x0, y0)
        # first in the order of the rows, then shuffled: small values stay in the cache
        self.rank = rank[rows][order]
        self.windows = _narrow(detections.windows[rows])[order]
        self.classes = classes[order]
        for k in range(4):
            # one at a time, so that only one is held twice
            columns[k] = columns[k][order]
        self.x0, self.y0, self.x1, self.y1 = columns
        # a box may lie the wrong way round; it overlaps nothing, and must not put others in disorder
        self.right = int(max(x0.max(), x1.max())) if len(rows) else 0
        self.bottom = int(max(y0.max(), y1.max())) if len(rows) else 0
        # where each level begins, and the end
        self._starts = np.searchsorted(level[order], np.arange(len(self._strip) + 1))
        self._place: IntArray | None = None
        self.slice = min(CANDIDATES_A_SLICE, max(len(rows) // _SLICES, _LEAST_A_SLICE))
        """Rows, and pairs of rows, looked at together."""

    def __len__(self) -> int:
        return len(self.rank)

    def _set_levels(self, width: IntArray, height: IntArray) -> npt.NDArray[np.uint8]:
        """Each box's level; and each level's strip height and reach."""
        n = len(width)
        side = np.maximum(width, height)
        # the bulk's largest boxes lie just below a level's upper end, so that boxes of about one
        # size share a level
        at = int(0.98 * (n - 1))
        base = max(float(np.partition(side, at)[at]), 1.0) if n else 1.0
        if n and side.max() <= _OUTLIER * base:
            base = max(float(side.max()), 1.0)
        ends = base * _RATIO ** np.arange(-32, 33)
        level = _ranks(np.searchsorted(ends * (1 + 1e-9), side).astype(np.uint8)).astype(np.uint8)
        levels = int(level.max()) + 1 if n else 0
        # lower levels look into this one too, and may hold higher boxes than it does
        self._strip = np.ones(levels, dtype=np.int64)
        self._reach = np.ones(levels, dtype=np.int64)
        for k in range(levels):
            which = level == k if levels > 1 else slice(None)
            self._strip[k] = max(1, int(height[which].max()))
            self._reach[k] = max(1, int(width[which].max()))
        self._strip = np.maximum.accumulate(self._strip)
        return level

    def _order(
        self, level: npt.NDArray[np.uint8], classes: IntArray, x0: IntArray, y0: IntArray
    ) -> IntArray:
        """By level, class, strip and x0."""
        n = len(x0)
        if not n:
            return np.empty(0, dtype=np.int64)
        row = y0 // self._strip[level]
        span, rows = int(x0.max()) + 1, int(row.max()) + 1
        groups, index_bits = len(self._strip) * (int(classes.max()) + 1), (n - 1).bit_length()
        if groups * rows * span << index_bits >= _KEY_LIMIT:
            return np.lexsort((x0, row, classes, level)).astype(np.int64)
        key = level.astype(np.int64)
        for digit, radix in ((classes, int(classes.max()) + 1), (row, rows), (x0, span)):
            key *= radix
            key += digit
        key <<= index_bits
        key |= np.arange(n)
        key.sort()
        key &= (1 << index_bits) - 1
        return key

    def within(self, which: IntArray) -> Iterator[Pairs]:
        """Every overlapping pair among these ranks, once."""
        places = self._places(which)
        for level, (start, stop) in enumerate(self._bounds(places)):
            if start < stop:
                table = _Strips(self, places[start:stop], level)
                yield from map(self._pairs, table.among_themselves())
                yield from map(self._pairs, table.hit_by(places[:start]))

    def between(self, one: IntArray, other: IntArray) -> Iterator[Pairs]:
        """Every overlapping pair of a rank of one set and one of the other (disjoint) set."""
        ones, others = self._places(one), self._places(other)
        both = zip(self._bounds(ones), self._bounds(others), strict=True)
        for level, ((a, b), (c, d)) in enumerate(both):
            if c < d:
                table = _Strips(self, others[c:d], level)
                yield from map(self._pairs, table.hit_by(ones[:b]))
            if a < b:
                table = _Strips(self, ones[a:b], level)
                yield from map(self._pairs, table.hit_by(others[:c]))

    def _places(self, which: IntArray) -> IntArray:
        if len(which) == len(self):
            return np.arange(len(self), dtype=np.int32)
        if self._place is None:
            self._place = np.empty(len(self), dtype=np.int32)
            self._place[self.rank] = np.arange(len(self), dtype=np.int32)
        return np.sort(self._place[which])

    def _bounds(self, places: IntArray) -> list[tuple[int, int]]:
        at = np.searchsorted(places, self._starts).tolist()
        return list(pairwise(at))

    def _pairs(self, found: _Found) -> Pairs:
        a, b, intersection = found
        return Pairs(self.rank[a], self.rank[b], self._area(a), self._area(b), intersection)

    def _area(self, at: IntArray) -> FloatArray:
        width, height = self.x1[at] - self.x0[at], self.y1[at] - self.y0[at]
        area: FloatArray = width.astype(np.float64) * height
        return area


_Found = tuple[IntArray, IntArray, FloatArray]
"""Two places and the intersection of what lies there."""


def _lattice(values: FloatArray, low: float) -> npt.NDArray[Any]:
    """Steps of the lattice from ``low``, in as few bytes as they need."""
    values = values - low
    values *= SUBPIXEL
    np.rint(values, out=values)
    if len(values) and max(abs(float(values.min())), abs(float(values.max()))) >= _KEY_LIMIT:
        raise ValueError("coordinates span too far to be indexed")
    # half of what 32 bits hold: differences must fit as well
    wide = len(values) and max(-float(values.min()), float(values.max())) >= 1 << 30
    return values.astype(np.int64 if wide else np.int32)


def _narrow(values: IntArray) -> IntArray:
    small = not len(values) or (values.min() >= 0 and values.max() < 1 << 31)
    return values.astype(np.int32) if small else values


def _ranks(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Each value's rank among the distinct ones; fast where they span little."""
    if not len(values):
        return values.astype(np.int32)
    low, high = int(values.min()), int(values.max())
    if high - low > 1 << 20:
        return np.unique(values, return_inverse=True)[1].astype(np.int32)
    present = np.zeros(high - low + 1, dtype=bool)
    present[values - low] = True
    rank: Index = (np.cumsum(present, dtype=np.int32) - 1)[values - low]
    return rank


class _Strips:
    """One level's boxes, in the order of class, strip and x0 that their places have."""

    def __init__(self, of: Overlaps, ids: IntArray, level: int) -> None:
        self._of = of
        self._height = int(of._strip[level])
        self._reach = int(of._reach[level])
        self._rows = of.bottom // self._height + 3
        self._span = of.right + 1
        if self._rows * self._span * (int(of.classes.max()) + 1) >= _KEY_LIMIT:
            raise ValueError("coordinates span too far to be indexed")
        self._ids = ids
        self._keys = np.empty(len(ids), dtype=np.int64)
        for block in self._blocks(len(ids)):
            some = ids[block]
            self._keys[block] = self._key(some, self._row(of.y0[some])) + of.x0[some]

    def _blocks(self, n: int) -> Iterator[slice]:
        for start in range(0, n, self._of.slice):
            yield slice(start, min(start + self._of.slice, n))

    def _row(self, y: npt.NDArray[Any]) -> IntArray:
        return np.asarray(y // self._height, dtype=np.int64)

    def _key(self, which: IntArray, row: IntArray) -> IntArray:
        # row −1 is asked for, never filled
        return (self._of.classes[which].astype(np.int64) * self._rows + row + 1) * self._span

    def among_themselves(self) -> Iterator[_Found]:
        of = self._of
        for block in self._blocks(len(self._ids)):
            ids = self._ids[block]
            row = self._row(of.y0[ids])
            stop = self._find(self._key(ids, row) + of.x1[ids])
            yield from self._expand(ids, np.arange(block.start + 1, block.stop + 1), stop)
            deep = np.flatnonzero(self._row(of.y1[ids] - 1) > row)
            yield from self._in_row(ids[deep], row[deep] + 1)

    def hit_by(self, others: IntArray) -> Iterator[_Found]:
        of = self._of
        for block in self._blocks(len(others)):
            some = others[block]
            row = self._row(of.y0[some])
            yield from self._in_row(some, row - 1)
            yield from self._in_row(some, row)
            deep = np.flatnonzero(self._row(of.y1[some] - 1) > row)
            yield from self._in_row(some[deep], row[deep] + 1)

    def _in_row(self, others: IntArray, row: IntArray) -> Iterator[_Found]:
        base = self._key(others, row)
        first = np.maximum(self._of.x0[others] - self._reach + 1, 0)
        yield from self._expand(
            others,
            self._find(base + first),
            self._find(base + self._of.x1[others]),
        )

    def _find(self, keys: IntArray) -> IntArray:
        """Where these keys, a block's, would stand among all."""
        if not len(keys):
            return keys
        # neighbours are sought among neighbours: a search through all would miss the cache
        low, high = np.searchsorted(self._keys, (keys.min(), keys.max()))
        found: IntArray = np.searchsorted(self._keys[low:high], keys)
        found += low
        return found

    def _expand(self, others: IntArray, start: IntArray, stop: IntArray) -> Iterator[_Found]:
        """Pairs of others[k] with the rows start[k]…stop[k] that truly overlap."""
        some = np.flatnonzero(stop > start)
        others, start = others[some], start[some]
        count = stop[some] - start
        total = np.cumsum(count)
        k = 0
        while k < len(others):
            done = int(total[k - 1]) if k else 0
            end = max(k + 1, int(np.searchsorted(total, done + self._of.slice, "right")))
            yield self._overlapping(others[k:end], start[k:end], count[k:end])
            k = end

    def _overlapping(self, others: IntArray, start: IntArray, count: IntArray) -> _Found:
        of = self._of
        one = np.repeat(others, count)
        at = np.arange(len(one)) + np.repeat(start - (np.cumsum(count) - count), count)
        two = self._ids[at]
        apart = np.flatnonzero(of.windows[one] != of.windows[two])
        one, two = one[apart], two[apart]
        high = np.minimum(of.y1[one], of.y1[two]) - np.maximum(of.y0[one], of.y0[two])
        inside = np.flatnonzero(high > 0)
        one, two, high = one[inside], two[inside], high[inside]
        wide = np.minimum(of.x1[one], of.x1[two]) - np.maximum(of.x0[one], of.x0[two])
        inside = np.flatnonzero(wide > 0)
        return one[inside], two[inside], wide[inside].astype(np.float64) * high[inside]
