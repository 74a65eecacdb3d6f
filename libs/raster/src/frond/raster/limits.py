"""How large a raster may be, and what of it: one declaration, in a table in docs/limits.md."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Final

from frond.contracts.reasons import Reason

# GDAL takes an answer of the store that broke off for the object's end, and says so to nobody. An
# image that looks like this, read in place, is read once more from a whole copy, which decides
DOUBTFUL: Final = frozenset({Reason.TRUNCATED, Reason.CORRUPT})
# larger ones are not copied to be judged: what was seen in place counts
JUDGED_BYTES: Final = 2 << 30


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what one image may ask for.

    Attributes:
        max_pixels: columns × rows.
        max_bytes: of the file.
        max_bands: bands in the file.
        max_block_bytes: decoded size of one tile or strip: what the smallest read costs.
        bomb_bytes: below this decoded size no file is taken for a decompression bomb.
        bomb_ratio: decoded bytes a stored byte, above which a file of more than ``bomb_bytes`` is
            one. DEFLATE reaches 1032; only files of almost nothing but missing tiles go beyond.
        max_windows: windows of one image.
        max_detections: of one window; a model that finds more finds noise.
        verify_pixels: images of several chunks up to this size are read once in full when they are
            planned, so that damaged ones get one clear answer before any work.
    """

    max_pixels: int = 40_000_000_000
    max_bytes: int = 250 << 30
    max_bands: int = 1024
    max_block_bytes: int = 1 << 30
    bomb_bytes: int = 16 << 30
    bomb_ratio: float = 5000.0
    max_windows: int = 2_000_000
    max_detections: int = 20_000
    verify_pixels: int = 4_000_000


UNBOUNDED: Final = Limits(
    max_pixels=sys.maxsize,
    max_bytes=sys.maxsize,
    max_bands=sys.maxsize,
    max_block_bytes=sys.maxsize,
    bomb_bytes=sys.maxsize,
)
"""For a raster that was held against somebody's limits when it was planned."""
