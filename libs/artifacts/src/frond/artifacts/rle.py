"""Regions as COCO's compressed run lengths, as pycocotools writes them.

A pixel belongs to a region when its centre does. No bitmap is ever made: each edge tells in which
row it crosses each column's centres, and between the crossings of a column, taken in order, lie its
runs. Many small regions are done at once, a large one strip by strip of columns: of the strips that are
done nothing is kept but the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from frond.masks.table import Polygons

CROSSINGS: Final = 1 << 20
"""Crossings of edges and columns that are worked out at a time."""

Ints = npt.NDArray[np.int64]


def run_lengths(regions: Polygons, width: int, height: int) -> list[str]:
    """The ``counts`` of each region in an image of these many raster pixels.

    They hold backslashes: they are to be escaped in JSON.
    """
    edges = _Edges(regions, width, height)
    found: list[str] = []
    for first, stop in edges.batches():
        if edges.crossings(first, stop) > CROSSINGS:
            found.append(_long_text(edges.strips(first), width * height))
        else:
            row, at = edges.toggles(first, stop)
            found += _texts(row - first, at, stop - first, width * height)
    return found


class _Edges:
    """The edges that cross a column's centres, in the order of their regions."""

    def __init__(self, regions: Polygons, width: int, height: int) -> None:
        self.width, self.height = width, height
        rings = np.asarray(regions.rings)
        ends = np.zeros(len(regions.points), dtype=bool)
        # rings are closed: from the last point of one no edge leads on
        ends[rings[1:] - 1] = True
        begins = np.flatnonzero(~ends)
        a, b = regions.points[begins], regions.points[begins + 1]
        left = np.ceil(np.minimum(a[:, 0], b[:, 0]) - 0.5)
        right = np.ceil(np.maximum(a[:, 0], b[:, 0]) - 0.5)
        self.left = np.clip(left, 0, width).astype(np.int64)
        self.right = np.clip(right, 0, width).astype(np.int64)
        self.a, self.b = a, b
        # where each region's edges begin
        points = rings[np.asarray(regions.polygons)]
        self.of = np.searchsorted(begins, points)
        # how many crossings there are before each region's
        self.before = np.concatenate([[0], np.cumsum(self.right - self.left)])[self.of]

    def crossings(self, first: int, stop: int) -> int:
        """How many these regions have."""
        return int(self.before[stop] - self.before[first])

    def batches(self) -> Iterator[tuple[int, int]]:
        """Regions [first, stop) that are done at once: as many as have ``CROSSINGS``, or one."""
        first, count = 0, len(self.of) - 1
        while first < count:
            most = self.before[first] + CROSSINGS
            reach = int(np.searchsorted(self.before, most, side="right")) - 1
            stop = min(count, max(first + 1, reach))
            yield first, stop
            first = stop

    def toggles(self, first: int, stop: int) -> tuple[Ints, Ints]:
        """Region and place (down the columns) of each change from outside to inside and back."""
        chosen = slice(self.of[first], self.of[stop])
        left, right = self.left[chosen], self.right[chosen]
        region = np.repeat(np.arange(first, stop), np.diff(self.of[first : stop + 1]))
        return _uneven(*self._crossings(chosen, left, right, region))

    def strips(self, one: int) -> Iterator[Ints]:
        """The places of one region's changes in their order, those of some columns at a time: as many
        as have ``CROSSINGS``, or one column."""
        chosen = slice(self.of[one], self.of[one + 1])
        left, right = self.left[chosen], self.right[chosen]
        region = np.zeros(len(left), dtype=np.int64)
        shared = np.empty(0, dtype=np.int64)
        for west, east in _columns(left, right):
            row, at = self._crossings(chosen, left.clip(west, east), right.clip(west, east), region)
            row = np.append(row, np.zeros(len(shared), dtype=np.int64))
            _, at = _uneven(row, np.append(at, shared))
            # below a strip's last column is where the next one begins
            inside = int(np.searchsorted(at, east * self.height))
            shared = at[inside:]
            yield at[:inside]
        yield shared

    def _crossings(self, chosen: slice, left: Ints, right: Ints, region: Ints) -> tuple[Ints, Ints]:
        many = right - left
        edge = np.repeat(np.arange(len(many)), many)
        column = np.arange(len(edge)) - np.repeat(np.cumsum(many) - many, many) + left[edge]
        a, b = self.a[chosen][edge], self.b[chosen][edge]
        share = (column + 0.5 - a[:, 0]) / (b[:, 0] - a[:, 0])
        y = a[:, 1] + (b[:, 1] - a[:, 1]) * share
        row = np.clip(np.ceil(y - 0.5), 0, self.height).astype(np.int64)
        return region[edge], column * self.height + row


def _columns(left: Ints, right: Ints) -> Iterator[tuple[int, int]]:
    """Strips [west, east) of the columns that edges cross: of ``CROSSINGS`` each, or one column."""
    first, last = int(left.min()), int(right.max())
    count = last - first + 1
    begun = np.bincount(left - first, minlength=count) - np.bincount(right - first, minlength=count)
    # how many crossings there are before each column
    before = np.concatenate([[0], np.cumsum(np.cumsum(begun)[:-1])])
    west = 0
    while west < count - 1:
        reach = int(np.searchsorted(before, before[west] + CROSSINGS, side="right")) - 1
        east = max(west + 1, reach)
        yield first + west, first + east
        west = east


def _uneven(region: Ints, at: Ints) -> tuple[Ints, Ints]:
    """In order, without those that cancel each other out."""
    order = np.lexsort((at, region))
    region, at = region[order], at[order]
    new = np.ones(len(at), dtype=bool)
    new[1:] = (region[1:] != region[:-1]) | (at[1:] != at[:-1])
    begins = np.flatnonzero(new)
    odd = begins[np.diff(np.append(begins, len(at))) % 2 == 1]
    return region[odd], at[odd]


def _texts(region: Ints, at: Ints, regions: int, pixels: int) -> list[str]:
    """The run lengths between toggles, each region's as one text."""
    stops = np.searchsorted(region, np.arange(regions), side="right")
    # each region ends with what is left of the image
    ends = np.insert(at, stops, pixels)
    last = stops + np.arange(regions)
    begins = np.concatenate([[0], last[:-1] + 1])
    before = np.roll(ends, 1)
    before[begins] = 0
    runs = ends - before
    kept = np.ones(len(runs), dtype=bool)
    kept[last[runs[last] == 0]] = False
    number = np.cumsum(kept)
    lengths = np.diff(np.concatenate([[0], number[last]]))
    return _compressed(runs[kept], lengths)


def _long_text(strips: Iterable[Ints], pixels: int) -> str:
    """The same of one region, whose toggles come strip by strip."""
    texts: list[str] = []
    done, end, last_two = 0, 0, np.zeros(2, dtype=np.int64)
    for at in strips:
        runs = np.diff(at, prepend=end)
        texts += _packed(_against(runs, last_two, done), np.array([len(runs)]))
        done, last_two = done + len(runs), np.append(last_two, runs)[-2:]
        end = int(at[-1]) if len(at) else end
    if end < pixels:
        rest = np.array([pixels - end], dtype=np.int64)
        texts += _packed(_against(rest, last_two, done), np.array([1]))
    return "".join(texts)


def _against(runs: Ints, last_two: Ints, done: int) -> Ints:
    """Each run as its difference from the one before the last, where ``done`` went before."""
    rest = runs.copy()
    # the third is written as it is
    plain = max(0, 3 - done)
    rest[plain:] -= np.append(last_two, runs)[:-2][plain:]
    return rest


def _compressed(runs: Ints, lengths: Ints) -> list[str]:
    """Each run as its difference from the one before the last of its region."""
    begins = np.cumsum(lengths) - lengths
    place = np.arange(len(runs)) - np.repeat(begins, lengths)
    rest = runs.copy()
    later = np.flatnonzero(place > 2)
    rest[later] -= runs[later - 2]
    return _packed(rest, lengths)


def _packed(rest: Ints, lengths: Ints) -> list[str]:
    """Numbers as texts of so many each, six bits a character. They are used up."""
    columns: list[npt.NDArray[np.uint8]] = []
    used: list[npt.NDArray[Any]] = []
    more = np.ones(len(rest), dtype=bool)
    while more.any():
        used.append(more)
        five = rest & 31
        rest >>= 5
        more = used[-1] & np.where(five & 16, rest != -1, rest != 0)
        columns.append((five + 32 * more + 48).astype(np.uint8))
    if not columns:
        return [""] * len(lengths)
    characters, there = np.stack(columns, axis=1), np.stack(used, axis=1)
    every = characters[there].tobytes().decode("ascii")
    bytes_each = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
    cuts = bytes_each[np.append(0, np.cumsum(lengths))].tolist()
    return [every[a:b] for a, b in pairwise(cuts)]
