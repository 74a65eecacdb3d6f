"""Labelled images as they are stored, and at another scale."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning

from frond.training.config import bad

Boxes = NDArray[np.float32]
"""[n, 4] x0 y0 x1 y1, in pixels."""

# of a tile at the model's scale: three bytes each are in memory at once, and more while it is made
_MOST_PIXELS: Final = 256_000_000
_ORIENTATION: Final = 0x0112
# 1: as it is stored; what is none of the eight is shown as it is stored, too
_TURNED: Final = range(2, 9)


def rgb(path: Path) -> Image.Image:
    """The image's first three bands (RGB + NIR files read as RGBA), or its one band thrice.

    Raises:
        UserError: it cannot be learnt from as it is stored.
    """
    try:
        with Image.open(path) as image:
            # Pillow would cut them off at 255, or keep their upper bytes alone, and say nothing
            if set(_dtypes(path)) != {"uint8"}:
                raise bad(
                    f"{path} has more than 8 bits a band. Stretch it to 8 bits, as the rasters "
                    "will be that the model is to read."
                )
            if image.getexif().get(_ORIENTATION, 1) in _TURNED:
                raise bad(
                    f"{path} says that it is to be turned before it is shown (EXIF orientation): labels "
                    "are of what is shown, and jobs read it as it is stored. Turn it for good, and "
                    "export its labels again."
                )
            return image.convert("RGB")
    except Image.DecompressionBombError:
        raise bad(f"{path} is too large to train on in one piece. Cut it into tiles.") from None


def _dtypes(path: Path) -> tuple[str, ...]:
    """Of each band as it is stored: Pillow calls three bands of 16 bits RGB too."""
    with opened(path) as raster:
        return tuple(raster.dtypes)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """As rasterio reads it."""
    with warnings.catch_warnings():
        # what is learnt from need not lie anywhere
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as raster:
            yield raster


def rescaled(
    image: Image.Image, boxes: Boxes, sx: float, sy: float, path: Path
) -> tuple[NDArray[np.uint8], Boxes]:
    """An image ``sx`` times as wide and ``sy`` times as high, and its boxes with it.

    Raises:
        UserError: it would be too large.
    """
    size = (max(1, round(image.width * sx)), max(1, round(image.height * sy)))
    if size[0] * size[1] > _MOST_PIXELS:
        raise bad(
            f"{path}: at the model's scale it would have {size[0]} × {size[1]} pixels. Its "
            "boxes are far too small, or it is to be cut into tiles."
        )
    kx, ky = size[0] / image.width, size[1] / image.height
    how = Image.Resampling.LANCZOS if min(sx, sy) < 1 else Image.Resampling.BICUBIC
    out = image if size == image.size else image.resize(size, how)
    return np.asarray(out), boxes * np.array([kx, ky, kx, ky], np.float32)
