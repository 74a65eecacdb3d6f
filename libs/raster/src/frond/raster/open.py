"""Opening a raster: formats by allow-list, and precise words for what is none."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

from frond.contracts.errors import RasterRejected
from frond.contracts.reasons import Reason
from frond.raster import child, overheard
from frond.raster.gdal import gdal_errors, gdal_path

DRIVERS: Final = ("GTiff", "PNG", "JPEG")
HEAD_BYTES: Final = 512

# rasterio has no stubs; this names the type where it is meant
Dataset = Any

_FORMATS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"II*\x00", "GTiff"),
    (b"MM\x00*", "GTiff"),
    (b"II+\x00", "GTiff"),
    (b"MM\x00+", "GTiff"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
)
_OTHERS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"%PDF", "a PDF document"),
    (b"GIF8", "a GIF image"),
    (b"BM", "a BMP image"),
    (b"RIFF", "a RIFF file (WebP, WAV or AVI)"),
    (b"\x89HDF", "an HDF5 or netCDF-4 file"),
    (b"CDF\x01", "a netCDF file"),
    (b"CDF\x02", "a netCDF file"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"NITF", "a NITF file"),
    (b"SQLite format 3", "an SQLite or GeoPackage file"),
    (b"PAR1", "a Parquet file"),
    (b"\x7fELF", "a program"),
)
_TO_TIFF: Final = "Convert it to GeoTIFF, for example with gdal_translate -of COG."


def sniff(head: bytes, size: int | None = None) -> str:
    """The driver for a file that begins with these bytes.

    Args:
        head: the first bytes of the file, ``HEAD_BYTES`` or all of it.
        size: the file's size in bytes, if known.

    Raises:
        RasterRejected: EMPTY_FILE, DRIVER_NOT_ALLOWED, NOT_A_RASTER, or TRUNCATED when the header
            lies beyond the file's end.
    """
    if size == 0 or not head:
        raise RasterRejected(Reason.EMPTY_FILE, "The file has no bytes at all. Upload it again.")
    for magic, driver in _FORMATS:
        if head.startswith(magic):
            if driver == "GTiff":
                _first_directory(head, size)
            return driver
    raise _none_of_ours(head)


def _first_directory(head: bytes, size: int | None) -> None:
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in (b"+\x00", b"\x00+")
    if len(head) < (16 if big else 8):
        raise RasterRejected(
            Reason.TRUNCATED,
            f"The file begins like a TIFF and ends after {len(head)} bytes. Upload it again, whole.",
        )
    (offset,) = struct.unpack_from(order + ("Q" if big else "I"), head, 8 if big else 4)
    if size is not None and offset >= size:
        raise RasterRejected(
            Reason.TRUNCATED,
            f"The TIFF header should be at byte {offset}, but the file has only {size} bytes. "
            "Upload it again, whole.",
        )


def _none_of_ours(head: bytes) -> RasterRejected:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    lower = text[:300].lower()
    if lower.startswith(b"<vrtdataset") or b"<vrtdataset" in lower:
        return RasterRejected(
            Reason.DRIVER_NOT_ALLOWED,
            "This is a VRT: a list of other files, which Frond does not follow. "
            "Write the pixels out with gdal_translate -of COG in.vrt out.tif.",
        )
    if lower.startswith((b"<gdal_wms", b"<wms", b"<wcs_gdal", b"<wmts", b"<gdalwm")):
        return RasterRejected(
            Reason.DRIVER_NOT_ALLOWED,
            "This names a web service, which Frond does not follow. "
            "Write the pixels out with gdal_translate -of COG.",
        )
    if lower.startswith((b"<!doctype html", b"<html", b"<head")):
        return RasterRejected(
            Reason.NOT_A_RASTER,
            "This is a web page, perhaps an error or login page saved instead of the image. "
            "Download the image again.",
        )
    if lower.startswith(b"<"):
        return RasterRejected(Reason.NOT_A_RASTER, f"This is an XML document, no image. {_TO_TIFF}")
    for magic, what in _OTHERS:
        if head.startswith(magic):
            return RasterRejected(
                Reason.DRIVER_NOT_ALLOWED,
                f"This is {what}; Frond reads TIFF, PNG and JPEG. {_TO_TIFF}",
            )
    if all(32 <= b < 127 or b in b"\t\r\n" for b in head):
        return RasterRejected(Reason.NOT_A_RASTER, f"This is a text file, no image. {_TO_TIFF}")
    if not any(head):
        return RasterRejected(
            Reason.NOT_A_RASTER,
            "The file begins with nothing but zero bytes, like a download that was never finished. "
            "Upload it again.",
        )
    return RasterRejected(
        Reason.NOT_A_RASTER,
        f"The file is no TIFF, PNG or JPEG; Frond reads no other format. {_TO_TIFF}",
    )


@contextmanager
def open_raster(
    uri: str, *, head: bytes | None = None, size: int | None = None
) -> Iterator[Dataset]:
    """Open a raster by an allowed driver, as a rasterio dataset; closed on leaving.

    Args:
        uri: ``s3://bucket/key`` (range reads; see ``configure_gdal``) or a local path.
        head: the object's first bytes, for precise words about what is no raster. A local file's
            are read here; without them an object of another format is called NOT_A_RASTER.
        size: the object's size.

    Raises:
        RasterRejected: it is no raster that Frond reads.
        StoreUnavailable: the store could not be asked.
    """
    dataset = open_dataset(uri, head=head, size=size)
    try:
        yield dataset
    finally:
        dataset.close()


def open_dataset(uri: str, *, head: bytes | None = None, size: int | None = None) -> Dataset:
    """As :func:`open_raster`; the caller closes the dataset."""
    if head is None and not uri.startswith("s3://"):
        head, size = _local_head(uri)
    overheard.opened(size)
    drivers = DRIVERS if head is None else (sniff(head, size),)
    for driver in drivers:
        try:
            return _open(gdal_path(uri), driver)
        except RasterRejected as e:
            # "not recognized" of an unsniffed object: the next format may be the right one
            if len(drivers) == 1 or "not recognized as being" not in str(e.__cause__):
                raise
    raise RasterRejected(
        Reason.NOT_A_RASTER,
        f"The file is no TIFF, PNG or JPEG; Frond reads no other format. {_TO_TIFF}",
    )


@contextmanager
def open_bytes(data: bytes) -> Iterator[Dataset]:
    """Open a raster that is in memory. Raises as :func:`open_raster`."""
    driver = sniff(data[:HEAD_BYTES], len(data))
    with MemoryFile(io.BytesIO(data)) as memory:
        dataset = _open(memory.name, driver)
        try:
            yield dataset
        finally:
            dataset.close()


def _local_head(path: str) -> tuple[bytes, int]:
    try:
        with Path(path).open("rb") as f:
            return f.read(HEAD_BYTES), Path(path).stat().st_size
    except OSError as e:
        raise RasterRejected(
            Reason.OBJECT_MISSING, f"The file cannot be read: {e.strerror}."
        ) from e


def _open(path: str, driver: str) -> Dataset:
    child.reach_only(path)
    with warnings.catch_warnings(), gdal_errors(reading=False):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        dataset = rasterio.open(path, driver=driver, sharing=False)
        try:
            _require_own_pixels(dataset)
        except RasterRejected:
            dataset.close()
            raise
        return dataset


def _require_own_pixels(dataset: Dataset) -> None:
    """Refuse a TIFF whose metadata names another file for its overviews.

    GDAL opens that file by any driver, with our keys, when overviews are asked for
    (``GDALDefaultOverviews::OverviewScan``).
    """
    if any(key.upper() == "OVERVIEW_FILE" for key in dataset.tags(ns="OVERVIEWS")):
        raise RasterRejected(
            Reason.DRIVER_NOT_ALLOWED,
            "The file's metadata names another file for its overviews (OVERVIEW_FILE), which Frond "
            f"does not follow. {_TO_TIFF}",
        )
