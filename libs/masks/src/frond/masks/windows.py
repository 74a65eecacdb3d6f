"""From what a model makes of windows to what is stored of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from frond.contracts.plan import WindowGrid
from frond.masks.codec import WindowMask


class Found(Protocol):
    """What a model makes of a window: uint8 [C + 1, size, size], as a decoder gives them."""

    @property
    def planes(self) -> npt.NDArray[np.uint8]: ...


class Seen(Protocol):
    """A window that a model saw: which one, and [size, size] where its pixels mean something."""

    @property
    def index(self) -> int: ...
    @property
    def valid(self) -> npt.NDArray[np.bool_] | None: ...


def masks(
    found: Iterable[Found], windows: Sequence[Seen], grid: WindowGrid
) -> Iterator[WindowMask]:
    """Windows' planes, cut to the image; all 0 where a pixel means nothing.

    Args:
        found: one entry a window; taken one by one.
        windows: the windows they were found in, in the same order.
    """
    for one, pixels in zip(found, windows, strict=True):
        place = grid.window(pixels.index)
        inside = (slice(place.height), slice(place.width))
        planes = one.planes[:, *inside]
        yield WindowMask(
            pixels.index, planes if pixels.valid is None else planes * pixels.valid[inside]
        )
