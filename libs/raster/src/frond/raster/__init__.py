"""GeoTIFF in: validation, georeference, windows with cores and margins, range reads."""

from __future__ import annotations

from frond.raster.blocks import Block, read_block
from frond.raster.gdal import configure_formats, configure_gdal
from frond.raster.georef import gsd_m, has_lonlat, pixel_to_lonlat, pixel_to_map
from frond.raster.inspect import BandChoice, RasterInfo, choose_bands, inspect
from frond.raster.limits import DOUBTFUL, JUDGED_BYTES, Limits
from frond.raster.looks import Detector
from frond.raster.open import HEAD_BYTES, open_bytes, open_dataset, open_raster, sniff
from frond.raster.planning import (
    CHUNK_MB,
    WINDOWS_PER_CHUNK,
    PlanRequest,
    chunks_of,
    lacks_scale,
    plan_image,
)
from frond.raster.reader import Layout, RasterReader, WindowPixels, framed
from frond.raster.skip import pack_bitmap, unpack_bitmap
from frond.raster.slow import is_slow, make_tiled

__all__ = [
    "CHUNK_MB",
    "DOUBTFUL",
    "HEAD_BYTES",
    "JUDGED_BYTES",
    "WINDOWS_PER_CHUNK",
    "BandChoice",
    "Block",
    "Detector",
    "Layout",
    "Limits",
    "PlanRequest",
    "RasterInfo",
    "RasterReader",
    "WindowPixels",
    "choose_bands",
    "chunks_of",
    "configure_formats",
    "configure_gdal",
    "framed",
    "gsd_m",
    "has_lonlat",
    "inspect",
    "is_slow",
    "lacks_scale",
    "make_tiled",
    "open_bytes",
    "open_dataset",
    "open_raster",
    "pack_bitmap",
    "pixel_to_lonlat",
    "pixel_to_map",
    "plan_image",
    "read_block",
    "sniff",
    "unpack_bitmap",
]
