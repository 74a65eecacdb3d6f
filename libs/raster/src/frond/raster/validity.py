"""Which pixels mean something: nodata value, alpha, mask band and NaN are four different things."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.windows import Window

from frond.raster.inspect import RasterInfo
from frond.raster.open import Dataset

Bools = NDArray[np.bool_]
Palette = NDArray[np.uint8]


def both(a: Bools | None, b: Bools | None) -> Bools | None:
    """Valid by the one and by the other; None is all valid."""
    if a is None:
        return b
    return a if b is None else a & b


@dataclass(frozen=True, slots=True)
class Validity:
    """How a raster says that a pixel means nothing.

    Attributes:
        alpha: 1-based alpha band: 0 means nothing there.
        mask: whether the file stores a mask band: 0 means nothing there.
        nodata: by band that is read; a pixel means nothing where every band has its value.
        floating: a pixel means nothing where any band is NaN or infinite.
        transparent: palette indices of which the colour is fully transparent.
    """

    alpha: int | None = None
    mask: bool = False
    nodata: tuple[float | None, ...] = ()
    floating: bool = False
    transparent: tuple[int, ...] = ()

    @property
    def by_nodata(self) -> bool:
        return bool(self.nodata) and all(v is not None for v in self.nodata)

    @property
    def always(self) -> bool:
        """Every pixel is valid, whatever its samples."""
        return not (self.alpha or self.mask or self.by_samples)

    @property
    def by_samples(self) -> bool:
        """Samples have to be read to know."""
        return self.by_nodata or self.floating or bool(self.transparent)

    def of_samples(self, data: NDArray[Any]) -> Bools | None:
        """Validity by the samples alone: ``data`` is [bands, rows, cols]; None: all valid."""
        valid: Bools | None = None
        if self.by_nodata:
            valid = np.zeros(data.shape[1:], np.bool_)
            for band, value in zip(data, self.nodata, strict=True):
                # NaN as nodata value is caught by `floating`, which needs one band only
                if value == value:
                    valid |= band != data.dtype.type(value)
                else:
                    valid |= True
        if self.floating:
            finite = np.isfinite(data).all(axis=0)
            valid = both(valid, finite)
        if self.transparent:
            opaque = np.ones(256, np.bool_)
            opaque[list(self.transparent)] = False
            valid = both(valid, opaque[data[0]])
        return valid

    def of_bands(
        self,
        dataset: Dataset,
        window: Window,
        shape: tuple[int, int],
        resampling: Resampling = Resampling.nearest,
    ) -> Bools | None:
        """Validity by alpha and mask band, read at ``shape``; None: neither is there."""
        valid: Bools | None = None
        kwargs: dict[str, Any] = {
            "window": window,
            "out_shape": shape,
            "resampling": resampling,
        }
        if self.alpha is not None:
            alpha = dataset.read(self.alpha, **kwargs)
            valid = alpha > 0
        if self.mask:
            mask = dataset.read_masks(1, **kwargs) > 127
            valid = both(valid, mask)
        return valid


def validity_of(info: RasterInfo, bands: tuple[int, ...], palette: Palette | None) -> Validity:
    """The validity of a raster of which these 1-based bands are read.

    Args:
        palette: the colour table [256, 4] RGBA, when band 1 is expanded by it.
    """
    return Validity(
        alpha=info.alpha,
        mask=info.mask,
        nodata=tuple(info.nodata[b - 1] for b in bands),
        floating=np.dtype(info.dtype).kind == "f",
        transparent=()
        if palette is None
        else tuple(int(i) for i in np.flatnonzero(palette[:, 3] == 0)),
    )


def palette_of(dataset: Dataset) -> Palette:
    """The colour table of band 1: uint8 [256, 4] RGBA; indices beyond it are opaque black."""
    table = np.zeros((256, 4), np.uint8)
    table[:, 3] = 255
    for index, rgba in dataset.colormap(1).items():
        if 0 <= index < 256:
            table[index] = np.clip(rgba, 0, 255)
    return table
