"""What a raster is, and whether it can be processed at all."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from frond.contracts.errors import RasterRejected
from frond.contracts.plan import Georeference
from frond.contracts.reasons import Reason
from frond.raster.gdal import gdal_errors
from frond.raster.georef import gsd_m, read_georeference
from frond.raster.limits import Limits
from frond.raster.open import Dataset

DTYPES: Final = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
ORIENTATION: Final = "EXIF_Orientation"
"""GDAL's name of it. It tells of a JPEG's; of a TIFF's own tag it does not."""
IMAGES: Final = "FROND_IMAGES"
"""What a tiled copy says of the file that it was made of: how many images that has."""
_TURNED: Final = frozenset("2345678")
_OTHER_IMAGES: Final = "gdal_translate GTIFF_DIR:2:in.tif out.tif writes out the second"
_RGB: Final = ("red", "green", "blue")


@dataclass(frozen=True, slots=True)
class RasterInfo:
    """A raster's facts, read from its header alone.

    Attributes:
        bits: of a sample; fewer than 8 where the file packs several into a byte.
        negative: whether 0 is white.
        block: rows and columns of a tile or strip.
        alpha: 1-based index of the alpha band; None if there is none.
        mask: whether a mask band is stored in the file (an alpha band is none).
        nodata: the nodata value of each band, None where it has none.
        palette: whether band 1 indexes a colour table of at most 256 colours.
        wide_palette: whether it indexes one of more than 256 colours, which is not expanded.
        grey: whether all colours of that table are shades of grey.
        colours: GDAL's colour interpretation of each band.
        overviews: decimation factors, ascending.
        images: how many the file has; it is the first that is read.
        gsd: ground metres a pixel; None if not known.
        notes: what a user should know.
    """

    driver: str
    width: int
    height: int
    count: int
    dtype: str
    bits: int
    negative: bool
    block: tuple[int, int]
    tiled: bool
    compression: str | None
    interleave: str
    alpha: int | None
    mask: bool
    nodata: tuple[float | None, ...]
    palette: bool
    wide_palette: bool
    grey: bool
    colours: tuple[str, ...]
    overviews: tuple[int, ...]
    images: int
    georeference: Georeference
    gsd: float | None
    notes: tuple[str, ...]

    @property
    def pixels(self) -> int:
        return self.width * self.height

    @property
    def itemsize(self) -> int:
        return np.dtype(self.dtype).itemsize

    @property
    def block_bytes(self) -> int:
        """Bytes that decoding one tile or strip takes."""
        bands = self.count if self.interleave == "pixel" else 1
        return self.block[0] * self.block[1] * bands * self.itemsize


def inspect(dataset: Dataset, size: int | None = None, limits: Limits = Limits()) -> RasterInfo:
    """Read a raster's facts and hold them against the limits. Reads no pixels.

    Args:
        size: the file's size in bytes; None switches the decompression bomb rule off.

    Raises:
        RasterRejected: TOO_LARGE, UNSUPPORTED_DTYPE, CORRUPT or BAD_GEOREFERENCE.
        StoreUnavailable: the store could not be asked.
    """
    with gdal_errors(reading=False):
        return _inspect(dataset, size, limits)


def _inspect(ds: Dataset, size: int | None, limits: Limits) -> RasterInfo:
    dtype = _dtype(ds)
    _check_size(ds, dtype, size, limits)
    colours = tuple(c.name for c in ds.colorinterp)
    alphas = [i for i, c in enumerate(colours, 1) if c == "alpha"]
    flags = [{f.name for f in band} for band in ds.mask_flag_enums]
    georeference, notes = read_georeference(ds)
    table = _table(ds) if colours[0] == "palette" else {}
    palette, wide = bool(table) and dtype == "uint8", bool(table) and dtype == "uint16"
    images = _images(ds)
    if images > 1:
        notes = (
            *notes,
            f"the file has {images} images, of which the first is read: {_OTHER_IMAGES}",
        )
    negative = not palette and ds.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES"
    if negative:
        notes = (*notes, "0 is white in this file (MINISWHITE): it is seen as a negative")
    bits = _bits(ds, dtype)
    if bits < 8 and not palette:
        notes = (*notes, f"samples of {bits} bit{'s'[: bits - 1]} seen as 0 to 255")
    turned = ds.tags().get(ORIENTATION)
    if turned in _TURNED:
        notes = (
            *notes,
            f"the file asks viewers to turn it (EXIF orientation {turned}): results are in its pixels "
            "as they are stored",
        )
    info = RasterInfo(
        driver=ds.driver,
        width=ds.width,
        height=ds.height,
        count=ds.count,
        dtype=dtype,
        bits=bits,
        negative=negative,
        block=tuple(ds.block_shapes[0]),
        tiled=ds.driver == "GTiff" and ds.block_shapes[0][1] < ds.width,
        compression=_name(ds.compression),
        interleave=_name(ds.interleaving) or "band",
        alpha=alphas[0] if alphas else None,
        mask="per_dataset" in flags[0] and "alpha" not in flags[0],
        nodata=tuple(_nodata(v, dtype) for v in ds.nodatavals),
        palette=palette,
        wide_palette=wide,
        grey=palette and all(r == g == b for r, g, b, _ in table.values()),
        colours=colours,
        overviews=tuple(sorted(ds.overviews(1))),
        images=images,
        georeference=georeference,
        gsd=gsd_m(georeference, ds.width, ds.height),
        notes=notes,
    )
    if info.block_bytes > limits.max_block_bytes:
        raise RasterRejected(
            Reason.TOO_LARGE,
            f"The image is stored in pieces of {info.block[1]}×{info.block[0]} pixels "
            f"({_bytes(info.block_bytes)} each), so no part of it can be read by itself. "
            "Re-tile it, for example with gdal_translate -of COG.",
        )
    return info


def _table(ds: Dataset) -> dict[int, tuple[int, int, int, int]]:
    try:
        return dict(ds.colormap(1))
    except ValueError:
        # it is said to have one, and has none
        return {}


def _images(ds: Dataset) -> int:
    # GDAL finds overviews and them at once, so that neither is a request more
    said = ds.tags().get(IMAGES, "")
    return max(1, len(ds.subdatasets), int(said) if re.fullmatch("[0-9]{1,6}", said) else 0)


def _bits(ds: Dataset, dtype: str) -> int:
    said = ds.tags(1, ns="IMAGE_STRUCTURE").get("NBITS")
    if dtype == "uint8" and said in set("1234567"):
        return int(said)
    return 8 * np.dtype(dtype).itemsize


def _name(value: Any) -> str | None:
    # rasterio gives an enum member where it knows one, else GDAL's own text
    return str(getattr(value, "name", value)).lower() if value else None


def _dtype(ds: Dataset) -> str:
    if ds.count < 1 or ds.width < 1 or ds.height < 1:
        raise RasterRejected(Reason.CORRUPT, "The image has no pixels or no bands.")
    kinds = sorted(set(ds.dtypes))
    dtype = str(kinds[0])
    if len(kinds) > 1 or dtype not in DTYPES:
        named = ", ".join(str(k) for k in kinds)
        # a conversion of complex samples by itself takes their real part
        hint = (
            "Write its amplitude out, for example with gdal_translate -ot Float32 "
            "DERIVED_SUBDATASET:AMPLITUDE:in.tif out.tif."
            if "complex" in named
            else "Convert it to 8-bit, 16-bit or 32-bit float samples, for example with "
            "gdal_translate -ot Float32."
        )
        raise RasterRejected(
            Reason.UNSUPPORTED_DTYPE,
            f"The image has samples of type {named}, which no model here takes. {hint}",
        )
    return dtype


def _check_size(ds: Dataset, dtype: str, size: int | None, limits: Limits) -> None:
    pixels = ds.width * ds.height
    decoded = pixels * ds.count * np.dtype(dtype).itemsize
    if size is not None and size > limits.max_bytes:
        raise RasterRejected(
            Reason.TOO_LARGE,
            f"The file has {_bytes(size)}; at most {_bytes(limits.max_bytes)} are taken. "
            "Cut the image into parts, or compress it.",
        )
    if pixels > limits.max_pixels:
        raise RasterRejected(
            Reason.TOO_LARGE,
            f"The image claims {ds.width}×{ds.height} pixels; at most "
            f"{limits.max_pixels / 1e9:g} gigapixels are taken. Cut it into parts.",
        )
    if ds.count > limits.max_bands:
        raise RasterRejected(
            Reason.TOO_LARGE,
            f"The image has {ds.count} bands; at most {limits.max_bands} are taken. "
            "Write out the ones that the model uses.",
        )
    if size is not None and decoded > limits.bomb_bytes and decoded > size * limits.bomb_ratio:
        raise RasterRejected(
            Reason.TOO_LARGE,
            f"The file of {_bytes(size)} would unpack to {_bytes(decoded)}, more than any real "
            "image does. If it is one, cut off its empty parts.",
        )


def _nodata(value: float | None, dtype: str) -> float | None:
    # a value that the samples cannot have marks nothing
    if value is None:
        return None
    kind = np.dtype(dtype)
    if kind.kind == "f":
        with np.errstate(over="ignore"):
            return float(np.array(value).astype(kind))
    limits = np.iinfo(kind)
    if value != value or value != int(value) or not limits.min <= value <= limits.max:
        return None
    return float(value)


def _bytes(n: int) -> str:
    size = float(n)
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"


@dataclass(frozen=True, slots=True)
class BandChoice:
    """Which bands feed the model.

    Attributes:
        bands: 1-based, in the model's order; with ``palette`` those of the expanded colours.
        palette: whether band 1 is to be expanded to red, green and blue.
    """

    bands: tuple[int, ...]
    palette: bool
    notes: tuple[str, ...] = ()


def choose_bands(info: RasterInfo, wanted: tuple[int, ...]) -> BandChoice:
    """Map the model's band list onto the raster. Grey is not silently tripled.

    Args:
        wanted: the model's bands, 1-based, counted without the alpha band.

    Raises:
        RasterRejected: MISSING_BANDS.
    """
    usable = [i for i in range(1, info.count + 1) if i != info.alpha]
    if info.palette and len(usable) == 1 and max(wanted) > 1:
        if max(wanted) <= 3:
            return BandChoice(wanted, palette=True, notes=("colour table expanded to RGB",))
        usable = [1, 2, 3]
    elif info.palette and len(usable) == 1 and info.grey:
        return BandChoice(wanted, palette=True, notes=("colour table expanded to grey",))
    if max(wanted) > len(usable):
        has = f"{len(usable)} band{'s' if len(usable) != 1 else ''}"
        hint = ""
        if info.alpha is not None:
            has += " besides its alpha channel"
            hint = (
                f" If band {info.alpha} is near infrared and no alpha channel, say so in the file: "
                f"gdal_edit.py -colorinterp_{info.alpha} undefined."
            )
        if info.wide_palette:
            hint += (
                " Band 1 numbers the colours of a table: gdal_translate -expand rgb -ot Byte makes "
                "bands of them."
            )
        if info.images > 1:
            hint += (
                f" The file has {info.images} images, of which the first is read: {_OTHER_IMAGES}."
            )
        raise RasterRejected(
            Reason.MISSING_BANDS,
            f"The model reads bands {', '.join(map(str, wanted))}; the image has {has}. "
            "Send an image with these bands, or choose a model that fits it." + hint,
        )
    bands = tuple(usable[i - 1] for i in wanted)
    notes: tuple[str, ...] = ()
    if (info.palette or info.wide_palette) and 1 in bands:
        notes = ("band 1 numbers the colours of a table: the model sees the numbers",)
    said = tuple(info.colours[b - 1] for b in bands)
    if len(said) == 3 and set(said) == set(_RGB) and said != _RGB:
        notes = (f"the file calls the bands that the model reads {', '.join(said)}",)
    return BandChoice(bands, palette=False, notes=notes)
