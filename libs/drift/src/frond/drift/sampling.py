"""Which windows and pixels count: by hash, so that whoever runs a window sees the same of it.

Of the windows chosen, a lattice of about 64 × 64 pixels, shifted by the hash too, so that rows of
trees or roofs do not fall in with it. A whole histogram would cost thirty times as much and
tell little more: neighbouring pixels are alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from frond.contracts.drift import LEVELS, MOST_BANDS
from frond.contracts.modelspec import ModelManifest
from frond.drift.tally import Tally, byte_score_counts, score_counts
from frond.models import WindowPlanes, WindowResult

Layout = Literal["CHW", "HWC"]

_A_SIDE: Final = 64
_BITS: Final = 48


class Window(Protocol):
    """A window as it was read: see ``frond.raster.WindowPixels``."""

    @property
    def data(self) -> NDArray[np.uint8]: ...
    @property
    def valid(self) -> NDArray[np.bool_] | None: ...


class Place(NamedTuple):
    """What the hash says of a window: its rank among all, 0…1, and where its lattice begins."""

    rank: float
    y: int
    x: int

    def lattice(self, side: int) -> tuple[slice, slice]:
        """The pixels that count in a window of this side: rows and columns."""
        step = max(1, side // _A_SIDE)
        return slice(self.y % step, None, step), slice(self.x % step, None, step)


def place(image_id: str, index: int) -> Place:
    """The place of a window of an image."""
    raw = hashlib.blake2b(f"{image_id} {index}".encode(), digest_size=8, person=b"drift").digest()
    value = int.from_bytes(raw, "big")
    return Place((value >> 16) / (1 << _BITS), value >> 8 & 0xFF, value & 0xFF)


def floor_of(manifest: ModelManifest) -> float:
    """From where on a model's scores are counted: a segmentation has one in every pixel."""
    return 0.0 if manifest.task == "segmentation" else manifest.thresholds.score


class Look:
    """What is kept of a chunk's windows while it runs: little, and only of those chosen.

    Args:
        image_id, indices: which windows, in the order in which they are run.
        share: of all windows, how many are looked at: 0…1.
        floor: scores from here on are counted; None: none are.
    """

    def __init__(
        self, image_id: str, indices: Sequence[int], share: float, floor: float | None
    ) -> None:
        self._places = {
            n: p for n, i in enumerate(indices) if (p := place(image_id, i)).rank < share
        }
        self._run = len(indices)
        self._floor = floor
        self._scores: dict[int, NDArray[np.float32]] = {}
        self._planes: dict[int, NDArray[np.uint8]] = {}

    def saw(self, number: int, result: WindowResult) -> None:
        """What the model made of the window that was run as ``number``, from 0."""
        at = self._places.get(number)
        if at is None or self._floor is None:
            return
        if isinstance(result, WindowPlanes):
            rows, columns = at.lattice(result.planes.shape[-1])
            # a copy: planes are many times what is kept
            self._planes[number] = result.planes[:-1, rows, columns].max(axis=0)
        else:
            self._scores[number] = result.scores

    def tally(self, windows: Sequence[Window], layout: Layout, bands: int) -> Tally:
        """The counts, once all were run; pixels that mean nothing are left out."""
        total = Tally.empty(bands)
        counts, scores, scored, with_finds = total.bands, total.scores, 0, 0
        for number, at in self._places.items():
            window = windows[number]
            data = window.data if layout == "CHW" else np.moveaxis(window.data, -1, 0)
            rows, columns = at.lattice(data.shape[-1])
            valid = None if window.valid is None else window.valid[rows, columns]
            for band in range(min(bands, MOST_BANDS)):
                values = data[band, rows, columns]
                seen = values.ravel() if valid is None else values[valid]
                counts[band] += np.bincount(seen, minlength=LEVELS)
            if (best := self._planes.get(number)) is not None:
                scores += byte_score_counts(best.ravel() if valid is None else best[valid])
                scored += 1
            elif (found := self._scores.get(number)) is not None and self._floor is not None:
                counted = score_counts(found, self._floor)
                scores += counted
                scored += 1
                with_finds += bool(counted.any())
        return Tally(counts, scores, len(self._places), self._run, scored, with_finds)
