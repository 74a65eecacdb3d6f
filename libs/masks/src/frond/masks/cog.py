"""The class raster on disk: written band by band, then copied into a cloud-optimised GeoTIFF."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.rpc import RPC
from rasterio.windows import Window

from frond.contracts.colours import class_colour
from frond.contracts.plan import Georeference
from frond.masks.blend import NODATA
from frond.masks.codec import Planes

BLOCK: Final = 512
_CACHE_BYTES: Final = 32 << 20


class ClassRaster:
    """A raster of classes that grows from the top, then becomes a COG at ``path``.

    The same values give the same bytes. Whoever is killed leaves ``path`` whole or not there. After an
    error its drafts stay beside it: whether the disk was full shows only while they are there.

    Args:
        classes: their names; value n + 1 is the n-th.
        georeference: of the *raster's* pixels.
        scale: pixels of this raster for one of those.
        about: how it came to be, for its tags.
    """

    def __init__(
        self,
        path: Path,
        width: int,
        height: int,
        classes: tuple[str, ...],
        georeference: Georeference,
        scale: float,
        about: Mapping[str, str],
    ) -> None:
        self._path = path
        self._draft = path.with_name(path.name + ".draft")
        self._partial = path.with_name(path.name + ".partial.tif")
        self._width = width
        self._rows = np.empty((BLOCK, width), np.uint8)
        self._filled = self._written = 0
        self._env = rasterio.Env(
            GDAL_CACHEMAX=_CACHE_BYTES, GDAL_PAM_ENABLED=False, GDAL_NUM_THREADS=1
        )
        # no CRS is fine
        with self._env, warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            self._out = rasterio.open(
                self._draft, "w", driver="GTiff", width=width, height=height, count=1, dtype="uint8",
                nodata=NODATA, tiled=True, blockxsize=BLOCK, blockysize=BLOCK, compress="DEFLATE",
                zlevel=1, photometric="PALETTE", BIGTIFF="IF_SAFER",
                **_place(georeference, scale),
            )  # fmt: skip
            _describe(self._out, classes, georeference, scale)
            self._out.update_tags(**about)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._out.close()
        if kind is None:
            for path in (self._draft, self._partial):
                path.unlink(missing_ok=True)

    def add(self, values: Planes) -> None:
        """The next rows."""
        while len(values):
            # whole rows of blocks, so that none is compressed twice
            part = values[: BLOCK - self._filled]
            self._rows[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            values = values[len(part) :]
            if self._filled == BLOCK:
                self._flush()

    def finish(self) -> None:
        """Every row is there: make the COG."""
        self._flush()
        with self._env:
            self._out.close()
            rasterio.shutil.copy(
                self._draft, self._partial, driver="COG", compress="DEFLATE", level=6,
                blocksize=BLOCK, overview_resampling="nearest", overview_compress="DEFLATE",
                bigtiff="IF_SAFER", num_threads="1",
            )  # fmt: skip
        self._partial.replace(self._path)

    def _flush(self) -> None:
        if self._filled:
            window = Window(0, self._written, self._width, self._filled)
            with self._env:
                self._out.write(self._rows[: self._filled], 1, window=window)
            self._written += self._filled
            self._filled = 0


def _place(geo: Georeference, scale: float) -> dict[str, Any]:
    if geo.kind == "affine" and geo.transform is not None:
        return {
            "crs": _crs(geo),
            "transform": rasterio.Affine(*geo.transform) @ rasterio.Affine.scale(1 / scale),
        }
    return {}


def _crs(geo: Georeference) -> CRS | None:
    return CRS.from_user_input(geo.crs) if geo.crs else None


def _describe(out: Any, classes: tuple[str, ...], geo: Georeference, scale: float) -> None:
    if geo.kind == "gcps":
        points = [
            GroundControlPoint(row=row * scale, col=col * scale, x=x, y=y, z=z, id=str(n))
            for n, (row, col, x, y, z) in enumerate(geo.gcps, 1)
        ]
        out.gcps = (points, _crs(geo) or CRS())
    elif geo.kind == "rpcs" and geo.rpcs is not None:
        out.rpcs = _scaled(RPC(**geo.rpcs), scale)
    out.write_colormap(1, {0: (0, 0, 0, 255), **_colours(len(classes)), NODATA: (0, 0, 0, 0)})
    out.colorinterp = [ColorInterp.palette]
    out.set_band_description(1, "class")
    names = {str(n): name for n, name in enumerate(("unclassified", *classes))}
    out.update_tags(classes=json.dumps(names, ensure_ascii=False))


def _scaled(rpc: RPC, scale: float) -> RPC:
    # RPCs count from the middle of the first pixel
    for axis in ("line", "samp"):
        offset = getattr(rpc, f"{axis}_off")
        setattr(rpc, f"{axis}_off", (offset + 0.5) * scale - 0.5)
        setattr(rpc, f"{axis}_scale", getattr(rpc, f"{axis}_scale") * scale)
    return rpc


def _colours(count: int) -> dict[int, tuple[int, int, int, int]]:
    return {n + 1: (*class_colour(n), 255) for n in range(count)}
