"""Which boxes overlap: a spatial index that yields pairs in bounded slices of memory.

Boxes fall into levels by their longer side, a factor of four apart. A level's boxes lie in strips
as high as its highest box, sorted by x within a strip, so that everything that can overlap a box
of this level or a lower one is found in two or three contiguous runs of the sorted column. Each
box looks in its own level and in those above; each unordered pair is met once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from frond.merge.table import SUBPIXEL, Detections, FloatArray, IntArray

CANDIDATES_A_SLICE: Final = 200_000
_RATIO = 4.0


@dataclass(frozen=True)
class Pairs:
    """Overlapping pairs: positions of both, their areas and intersection in lattice units²."""

    a: IntArray
    b: IntArray
    area_a: FloatArray
    area_b: FloatArray
    intersection: FloatArray


class Overlaps:
    """The overlaps among n detections of one class in different windows.

    Positions, in and out, are those in the detections given. Memory is O(n) plus one slice.
    """

    def __init__(self, detections: Detections) -> None:
        n = len(detections)
        low = detections.boxes[:, :2].min(axis=0) if n else np.zeros(2)
        q = np.rint((detections.boxes - np.tile(low, 2)) * SUBPIXEL).astype(np.int64)
        # kept in an order in which neighbours in the image are neighbours in memory
        coarse = max(int((q[:, 3] - q[:, 1]).mean()), 1) if n else 1
        self._position = np.argsort((q[:, 1] // coarse << 34) + q[:, 0])
        self._place = np.empty(n, dtype=np.int64)
        self._place[self._position] = np.arange(n)
        q = q[self._position]
        self.x0, self.y0, self.x1, self.y1 = (np.ascontiguousarray(q[:, k]) for k in range(4))
        self.area = (self.x1 - self.x0).astype(np.float64) * (self.y1 - self.y0)
        self.windows = detections.windows[self._position]
        self.classes = _ranks(detections.classes[self._position].astype(np.int64))
        self._set_levels(np.maximum(self.x1 - self.x0, self.y1 - self.y0))

    def _set_levels(self, side: IntArray) -> None:
        # the bulk's largest boxes lie just below a level's upper end, so that boxes of about one
        # size share a level; outliers get levels of their own
        n = len(side)
        at = int(0.98 * (n - 1))
        base = max(float(np.partition(side, at)[at]), 1.0) if n else 1.0
        exact = np.ceil(np.log(np.maximum(side, 1) / base) / np.log(_RATIO) - 1e-9)
        self.level = _ranks(exact.astype(np.int64))
        levels = int(self.level.max()) + 1 if n else 0
        height, width = self.y1 - self.y0, self.x1 - self.x0
        # lower levels look into this one too, and may hold higher boxes than it does
        self._strip = np.ones(levels, dtype=np.int64)
        self._reach = np.ones(levels, dtype=np.int64)
        np.maximum.at(self._strip, self.level, height)
        np.maximum.at(self._reach, self.level, width)
        self._strip = np.maximum.accumulate(self._strip)

    def within(self, which: IntArray) -> Iterator[Pairs]:
        """Every overlapping pair among these positions, once."""
        which = np.sort(self._place[which])
        for level in np.unique(self.level[which]):
            table = _Strips(self, which[self.level[which] == level], int(level))
            yield from map(self._pairs, table.among_themselves())
            yield from map(self._pairs, table.hit_by(which[self.level[which] < level]))

    def between(self, one: IntArray, other: IntArray) -> Iterator[Pairs]:
        """Every overlapping pair of a position of one set and one of the other (disjoint) set."""
        one, other = np.sort(self._place[one]), np.sort(self._place[other])
        for level in np.unique(self.level[other]):
            table = _Strips(self, other[self.level[other] == level], int(level))
            yield from map(self._pairs, table.hit_by(one[self.level[one] <= level]))
        for level in np.unique(self.level[one]):
            table = _Strips(self, one[self.level[one] == level], int(level))
            yield from map(self._pairs, table.hit_by(other[self.level[other] < level]))

    def _pairs(self, found: tuple[IntArray, IntArray, FloatArray]) -> Pairs:
        a, b, intersection = found
        return Pairs(self._position[a], self._position[b], self.area[a], self.area[b], intersection)


_Found = tuple[IntArray, IntArray, FloatArray]
"""Two places and the intersection of what lies there."""


def _ranks(values: IntArray) -> IntArray:
    """Each value's rank among the distinct ones; fast where they span little."""
    if not len(values):
        return values
    low, high = int(values.min()), int(values.max())
    if high - low > 1 << 20:
        return np.unique(values, return_inverse=True)[1].astype(np.int64)
    present = np.bincount(values - low) > 0
    return (np.cumsum(present) - 1)[values - low]


class _Strips:
    """One level's boxes, sorted by class, strip and x0."""

    def __init__(self, of: Overlaps, which: IntArray, level: int) -> None:
        self._of = of
        self._height = int(of._strip[level])
        self._reach = int(of._reach[level])
        self._rows = int(of.y1.max()) // self._height + 3
        self._span = int(of.x1.max()) + 1
        if self._rows * self._span * (int(of.classes.max()) + 1) >= 1 << 62:
            raise ValueError("coordinates span too far to be indexed")
        key = self._key(which, self._row(of.y0[which])) + of.x0[which]
        order = np.argsort(key)
        self._keys = key[order]
        self._ids = which[order]
        self._columns = tuple(c[self._ids] for c in (of.x0, of.y0, of.x1, of.y1, of.windows))

    def _row(self, y: npt.NDArray[Any]) -> IntArray:
        return np.asarray(y // self._height, dtype=np.int64)

    def _key(self, which: IntArray, row: IntArray) -> IntArray:
        # row −1 is asked for, never filled
        return (self._of.classes[which] * self._rows + row + 1) * self._span

    def among_themselves(self) -> Iterator[_Found]:
        ids, of = self._ids, self._of
        n = len(ids)
        row = self._row(of.y0[ids])
        stop = np.searchsorted(self._keys, self._key(ids, row) + of.x1[ids])
        yield from self._expand(ids, np.arange(1, n + 1), stop)
        deep = np.flatnonzero(self._row(of.y1[ids] - 1) > row)
        yield from self._in_row(ids[deep], row[deep] + 1)

    def hit_by(self, others: IntArray) -> Iterator[_Found]:
        if not len(others):
            return
        of = self._of
        # neighbours one after the other keep the searches in the cache
        row = self._row(of.y0[others])
        order = np.argsort(self._key(others, row) + of.x0[others])
        others, row = others[order], row[order]
        yield from self._in_row(others, row - 1)
        yield from self._in_row(others, row)
        deep = np.flatnonzero(self._row(of.y1[others] - 1) > row)
        yield from self._in_row(others[deep], row[deep] + 1)

    def _in_row(self, others: IntArray, row: IntArray) -> Iterator[_Found]:
        base = self._key(others, row)
        first = np.maximum(self._of.x0[others] - self._reach + 1, 0)
        yield from self._expand(
            others,
            np.searchsorted(self._keys, base + first),
            np.searchsorted(self._keys, base + self._of.x1[others]),
        )

    def _expand(self, others: IntArray, start: IntArray, stop: IntArray) -> Iterator[_Found]:
        """Pairs of others[k] with the rows start[k]…stop[k] that truly overlap."""
        some = np.flatnonzero(stop > start)
        others, start = others[some], start[some]
        count = stop[some] - start
        total = np.cumsum(count)
        k = 0
        while k < len(others):
            done = int(total[k - 1]) if k else 0
            end = max(k + 1, int(np.searchsorted(total, done + CANDIDATES_A_SLICE, "right")))
            yield self._overlapping(others[k:end], start[k:end], count[k:end])
            k = end

    def _overlapping(self, others: IntArray, start: IntArray, count: IntArray) -> _Found:
        of = self._of
        run = np.repeat(np.arange(len(others)), count)
        at = np.arange(len(run)) + np.repeat(start - (np.cumsum(count) - count), count)
        x0, y0, x1, y1, windows = self._columns

        def keep(mask: npt.NDArray[np.bool_]) -> tuple[Any, Any]:
            chosen = np.flatnonzero(mask)
            return run[chosen], at[chosen]

        run, at = keep(of.windows[others][run] != windows[at])
        bottom = np.minimum(of.y1[others][run], y1[at])
        high = bottom - np.maximum(of.y0[others][run], y0[at])
        inside = np.flatnonzero(high > 0)
        run, at, high = run[inside], at[inside], high[inside]
        wide = np.minimum(of.x1[others][run], x1[at]) - np.maximum(of.x0[others][run], x0[at])
        inside = np.flatnonzero(wide > 0)
        run, at = run[inside], at[inside]
        return others[run], self._ids[at], wide[inside].astype(np.float64) * high[inside]
