"""Regions of a class raster and their outlines, row by row from the top.

GDAL's polygoniser holds every region of the image until the end, the smallest speck too. Here rows
go by in strips: a region is dropped or kept as soon as it is over, so that what is held grows with
the outlines that are kept, up to a limit, and with nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from frond.contracts.errors import RasterRejected
from frond.contracts.reasons import Reason
from frond.masks.blend import NODATA, Band
from frond.masks.codec import Planes
from frond.masks.outlines import corners

MOST_CORNERS: Final = 20_000_000
"""Of all kept regions' outlines together: what an image may ask for in memory (8 bytes each while
it is traced)."""

MOST_CORNERS_A_REGION: Final = 4_000_000
"""Of one region's outline: its text in a file is held whole, some 30 bytes a corner."""

_STRIP_PIXELS: Final = 1 << 20
_KIND_BITS: Final = 3
_NONE: Final = np.iinfo(np.int64).max

Ints = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Regions:
    """What was kept, by class, then by the first pixel, row by row.

    Attributes:
        classes: int64 [n], value in the raster less 1.
        pixels: int64 [n], how many.
        confidence: int64 [n], the sum over the region's pixels.
        keys: uint64, one a corner, sorted: region, y, x, kind (see :func:`corners`).
        bits: how many of a key's bits are its region's, y and x.
    """

    classes: Ints
    pixels: Ints
    confidence: Ints
    keys: Keys
    bits: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.classes)


class Tracer:
    """Takes an image's bands in order, then tells its regions: 4-connected pixels of one class.

    Args:
        min_area: pixels; smaller regions are dropped.
        most_corners: of what is kept.
        most_corners_a_region: of any one region.

    Raises:
        RasterRejected: TOO_MANY, from any method.
    """

    def __init__(
        self,
        width: int,
        height: int,
        min_area: int,
        *,
        most_corners: int = MOST_CORNERS,
        most_corners_a_region: int = MOST_CORNERS_A_REGION,
    ) -> None:
        self._width, self._min_area, self._most = width, min_area, most_corners
        self._most_a_region = most_corners_a_region
        y_bits, x_bits = height.bit_length(), width.bit_length()
        self._bits = 64 - _KIND_BITS - y_bits - x_bits, y_bits, x_bits
        # memory that is not written to is not there yet
        self._keys: Keys = np.empty(most_corners, np.uint64)
        self._kept = 0
        self._ids = 0
        self._same: list[tuple[Ints, Ints]] = []
        self._closed: list[tuple[Ints, ...]] = []
        self._y = 0
        self._last = np.zeros(width, np.uint8)
        self._open = _Open.none()

    def add(self, band: Band) -> None:
        """The next rows."""
        step = max(1, _STRIP_PIXELS // self._width)
        for start in range(0, len(band.values), step):
            self._strip(band.values[start : start + step], band.confidence[start : start + step])

    def finish(self) -> Regions:
        """The regions; nothing can be added any more."""
        self._strip(np.zeros((1, self._width), np.uint8), np.zeros((1, self._width), np.uint8))
        ids, classes, pixels, confidence, first = (
            np.concatenate([c[k] for c in self._closed]) if self._closed else np.empty(0, np.int64)
            for k in range(5)
        )
        order = np.lexsort((first, classes))
        rank = self._roots()
        place = np.empty(max(self._ids, 1), np.int64)
        place[ids[order]] = np.arange(len(order))
        rank = place[rank]
        keys = self._keys[: self._kept]
        below = np.uint64(64 - self._bits[0])
        mask = np.uint64((1 << int(below)) - 1)
        for start in range(0, len(keys), _STRIP_PIXELS):
            part = keys[start : start + _STRIP_PIXELS]
            region = rank[(part >> below).astype(np.int64)].astype(np.uint64)
            part &= mask
            part |= region << below
        keys.sort()
        begins = np.arange(len(order), dtype=np.uint64) << below
        corners_of = np.diff(np.searchsorted(keys, begins), append=len(keys))
        if corners_of.max(initial=0) > self._most_a_region:
            raise _too_many("The outline of one region of this image has", self._most_a_region)
        return Regions(classes[order], pixels[order], confidence[order], keys, self._bits)

    def _roots(self) -> Ints:
        """For each id, the lowest id of the same region."""
        root = np.arange(max(self._ids, 1))
        for one, lower in self._same:
            root[one] = lower
        while True:
            again = root[root]
            if (again == root).all():
                return root
            root = again

    def _strip(self, values: Planes, confidence: Planes) -> None:
        # the row above is there once more: it holds the regions that go on, and half of each corner
        rows = np.zeros((len(values) + 1, self._width + 2), np.uint8)
        rows[0, 1:-1] = self._last
        rows[1:, 1:-1] = values
        rows[rows == NODATA] = 0
        sure = np.zeros(rows.shape, np.uint8)
        sure[1:, 1:-1] = confidence
        runs = _Runs.of(rows, sure)
        component, roots, target = self._components(runs, rows)
        new = self._sum(runs, component, roots, target)
        self._sort_out(runs, component, new, rows)
        self._last = rows[-1, 1:-1].copy()
        self._y += len(values)

    def _components(self, runs: _Runs, rows: Planes) -> tuple[Ints, Ints, Ints]:
        """Each run's component in this strip; each component's first run; where each component
        that was open has gone."""
        one, other = runs.neighbours(rows)
        carried = self._open.runs
        first = np.full(len(self._open), _NONE)
        np.minimum.at(first, carried, np.arange(len(carried)))
        one = np.concatenate([one, np.arange(len(carried))])
        other = np.concatenate([other, first[carried]])
        label = _connected(len(runs), one, other)
        roots = np.flatnonzero(label == np.arange(len(runs)))
        number = np.zeros(len(runs), np.int64)
        number[roots] = np.arange(len(roots))
        component = number[label]
        return component, roots, component[first]

    def _sum(self, runs: _Runs, component: Ints, roots: Ints, target: Ints) -> _Open:
        """The components with all that is known of them."""
        count, old = len(roots), self._open
        # the row above was counted in its own strip
        fresh = (runs.stop - runs.start) * (runs.row > 0)
        pixels = np.bincount(component, fresh, count).astype(np.int64)
        confidence = np.bincount(component, runs.confidence, count).astype(np.int64)
        row = runs.row[roots]
        first = (self._y + row - 1) * self._width + runs.start[roots] - row * runs.stride - 1
        ids = np.full(count, _NONE)
        np.add.at(pixels, target, old.pixels)
        np.add.at(confidence, target, old.confidence)
        np.minimum.at(first, target, old.first)
        np.minimum.at(ids, target, old.ids)
        has = (old.ids != _NONE) & (old.ids != ids[target])
        if has.any():
            self._same.append((old.ids[has], ids[target][has]))
        # numbered here, once it is sure to be kept
        due = (ids == _NONE) & (pixels >= self._min_area)
        born = int(due.sum())
        ids[due] = self._ids + np.arange(born)
        self._ids += born
        if self._ids >= 1 << self._bits[0]:
            raise _too_many("The outlines of this image's regions have", self._most)
        return _Open(
            runs.value[roots].astype(np.int64), pixels, confidence, first, ids,
            np.empty(0, np.int64), old.keys, target[old.owner],
        )  # fmt: skip

    def _sort_out(self, runs: _Runs, component: Ints, new: _Open, rows: Planes) -> None:
        """Keep, hold or drop each component and its corners."""
        at, kind, owner = corners(rows)
        y, x = np.divmod(at, runs.stride)
        _, y_bits, x_bits = self._bits
        key = (self._y + y).astype(np.uint64) << np.uint64(x_bits + _KIND_BITS)
        key |= x.astype(np.uint64) << np.uint64(_KIND_BITS)
        key |= kind
        whose = component[runs.at(owner)]
        keys = np.concatenate([new.keys, key])
        whose = np.concatenate([new.owner, whose])

        kept = new.ids != _NONE
        here = kept[whose]
        region = new.ids[whose[here]].astype(np.uint64)
        self._keep(keys[here] | region << np.uint64(_KIND_BITS + y_bits + x_bits))

        below = component[runs.row == len(rows) - 1]
        going = np.zeros(len(new), np.bool_)
        going[below] = True
        over = kept & ~going
        self._closed.append(
            (new.ids[over], new.classes[over] - 1, new.pixels[over], new.confidence[over], new.first[over])
        )  # fmt: skip
        number = np.cumsum(going) - 1
        wait = going[whose] & ~here
        self._open = _Open(
            new.classes[going], new.pixels[going], new.confidence[going], new.first[going],
            new.ids[going], number[below], keys[wait], number[whose[wait]],
        )  # fmt: skip

    def _keep(self, keys: Keys) -> None:
        end = self._kept + len(keys)
        if end > self._most:
            raise _too_many("The outlines of this image's regions have", self._most)
        self._keys[self._kept : end] = keys
        self._kept = end


def _too_many(what: str, most: int) -> RasterRejected:
    return RasterRejected(
        Reason.TOO_MANY,
        f"{what} more than {most} corners. Ask for a higher score, give the model a larger "
        "min_area, or cut the image into parts.",
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Open:
    """Components; ``runs`` are those of the last row, ``keys`` and ``owner`` the corners of those
    that are not sure to be kept. An id of ``_NONE``: too small so far."""

    classes: Ints
    pixels: Ints
    confidence: Ints
    first: Ints
    ids: Ints
    runs: Ints
    keys: Keys
    owner: Ints

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def none(cls) -> _Open:
        nothing = np.empty(0, np.int64)
        keys = np.empty(0, np.uint64)
        return cls(nothing, nothing, nothing, nothing, nothing, nothing, keys, nothing)


@dataclass(frozen=True, slots=True, eq=False)
class _Runs:
    """A strip's runs of one class, as places in the flattened strip."""

    start: Ints
    stop: Ints
    value: Planes
    row: Ints
    confidence: Ints
    stride: int

    @classmethod
    def of(cls, rows: Planes, sure: Planes) -> _Runs:
        flat = rows.reshape(-1)
        edge = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        if not len(edge):
            edge = np.ones(1, np.int64)
        value = flat[edge]
        # many times faster than a sum for each run
        until = np.cumsum(sure.reshape(-1), dtype=np.int64)
        stop = np.append(edge[1:], flat.size)
        total = until[stop - 1] - until[edge - 1]
        mine = value != 0
        start = edge[mine]
        return cls(
            start, stop[mine], value[mine], start // rows.shape[1],
            total[mine], rows.shape[1],
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.start)

    def at(self, places: Ints) -> Ints:
        """The run that each place lies in."""
        return np.searchsorted(self.start, places, side="right") - 1

    def neighbours(self, rows: Planes) -> tuple[Ints, Ints]:
        """Pairs of runs of one class, one below the other: all of them."""
        flat = rows.reshape(-1)
        # two runs that touch do so where the later of them starts
        above = np.flatnonzero(self.row < len(rows) - 1)
        above = above[flat[self.start[above] + self.stride] == self.value[above]]
        below = np.flatnonzero(self.row > 0)
        below = below[flat[self.start[below] - self.stride] == self.value[below]]
        return (
            np.concatenate([above, self.at(self.start[below] - self.stride)]),
            np.concatenate([self.at(self.start[above] + self.stride), below]),
        )


def _connected(n: int, one: Ints, other: Ints) -> Ints:
    """For each of n nodes, the lowest node of its component."""
    label = np.arange(n)
    while True:
        a, b = label[one], label[other]
        differ = a != b
        if not differ.any():
            return label
        one, other, a, b = one[differ], other[differ], a[differ], b[differ]
        # at least half of the roots that have an edge left hang below another afterwards
        np.minimum.at(label, np.maximum(a, b), np.minimum(a, b))
        while True:
            again = label[label]
            if (again == label).all():
                break
            label = again
