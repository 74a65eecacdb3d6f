"""GDAL in this process: settings made once, addresses, and what its errors mean to a user."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from frond.contracts.errors import FrondError, RasterRejected, StoreUnavailable
from frond.contracts.reasons import Reason
from frond.raster import overheard

# what GDAL says when it could not talk to the store, as opposed to not liking the bytes
_AWAY = re.compile(
    r"CURL error|Could(n't| not) (connect|resolve)|Connection (refused|reset|timed)|timed out"
    r"|Timeout was reached|HTTP (response|error) code\s*(on .*)?:?\s*(0|429|5\d\d)\b"
    r"|SlowDown|ServiceUnavailable|InternalError|XMinioServerNotInitialized",
    re.IGNORECASE,
)
# only copies are written: a disk that is full is no fault of the raster's
_FULL = re.compile(r"No space left|Disk quota|Write error|Write failed", re.IGNORECASE)
_MISSING = re.compile(
    r"NoSuchKey|NoSuchBucket|(response|error) code\s*(on .*)?:?\s*404|does not exist"
    r"|No such file|The specified key|not exist in the file system",
    re.IGNORECASE,
)
_FORBIDDEN = re.compile(r"AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|code.*403", re.I)
_CUT = re.compile(
    r"Can ?not read TIFF directory|Read error|got \d+ bytes, expected|Not enough data"
    r"|end of file|premature|truncat|file size",
    re.IGNORECASE,
)
# paths are no business of the user's, and a file's name must not decide what an error means
_NAME = re.compile(r"'?(/vsi\w+)?/?\S*(/|\.tiff?|\.png|\.jpe?g)\S*?'?[,:]\s?", re.IGNORECASE)
_QUOTED = re.compile(r"'/.*?'(?=[\s.,:;)]|$)([,:]\s?)?")
_BIG = re.compile(
    r"too (large|big|many)|Cannot allocate|integer overflow|Unable to allocate|Out of memory$"
    r"|larger than|LIBJPEG_MEM",
)


# nothing opens a raster by them (see open.py); gone, so that nothing inside of a raster can either
_FOLLOW_ADDRESSES = (
    "VRT", "DERIVED", "GTI", "HTTP", "WMS", "WMTS", "WCS", "PLMOSAIC", "EEDA", "EEDAI", "DAAS",
    "STACIT", "STACTA", "MRF", "TIL", "ECRGTOC", "RPFTOC", "SAFE", "SENTINEL2", "Zarr", "ESRIC",
    "KMLSUPEROVERLAY",
)  # fmt: skip
# a chunk of windows by the tiler's default (frond.raster.CHUNK_MB), were it not compressed at all
_TILES_AT_ONCE = 24 << 20


def configure_gdal(
    endpoint: str,
    access_key: str,
    secret_key: str,
    *,
    region: str = "us-east-1",
    cache_mb: int = 128,
) -> None:
    """Point GDAL of this process at an S3-compatible store. Call once, before any raster is opened.

    It goes by the process environment because ``rasterio.Env`` refuses raw AWS credentials.

    Args:
        endpoint: ``http://host:port``, ``https://host`` or ``host:port`` (taken as http).
        cache_mb: GDAL's block cache of decoded pixels, for the whole process.
    """
    parts = urlsplit(endpoint if "://" in endpoint else f"http://{endpoint}")
    os.environ.update(
        {
            "AWS_S3_ENDPOINT": parts.netloc,
            "AWS_HTTPS": "YES" if parts.scheme == "https" else "NO",
            "AWS_VIRTUAL_HOSTING": "FALSE",
            "AWS_ACCESS_KEY_ID": access_key,
            "AWS_SECRET_ACCESS_KEY": secret_key,
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "AWS_EC2_METADATA_DISABLED": "true",
            # a line that is silent is given up by its speed; one that is only slow gets through
            "GDAL_HTTP_TIMEOUT": "600",
            "GDAL_HTTP_CONNECTTIMEOUT": "5",
            "GDAL_HTTP_LOW_SPEED_TIME": "20",
            "GDAL_HTTP_LOW_SPEED_LIMIT": "1000",
            "GDAL_HTTP_MAX_RETRY": "4",
            "GDAL_HTTP_RETRY_DELAY": "0.5",
            "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
            "GDAL_HTTP_MULTIPLEX": "YES",
            "GDAL_INGESTED_BYTES_AT_OPEN": "262144",
            # of a read's compressed tiles, which are asked for together; by default 10 MB: beyond that GDAL
            # goes tile by tile, in requests that grow and overlap
            "GDAL_MAX_RAW_BLOCK_CACHE_SIZE": str(_TILES_AT_ONCE),
            "CPL_VSIL_CURL_CACHE_SIZE": str(32 << 20),
            # an object may be replaced, or appear after it was looked for: nothing that was
            # learned about it outlives its handle
            "CPL_VSIL_CURL_NON_CACHED": "/vsis3/",
            "VSI_CACHE": "FALSE",
            "GDAL_SKIP": ",".join(_FOLLOW_ADDRESSES),
        }
    )
    configure_formats(cache_mb=cache_mb)
    overheard.listen()


def configure_formats(*, cache_mb: int = 128) -> None:
    """The part of :func:`configure_gdal` that reading local files and bytes needs as well."""
    os.environ.update(
        {
            "GDAL_CACHEMAX": str(cache_mb),
            # no look-out for sidecars: an .ovr, .msk or .aux.xml beside a raster is not its
            # sender's word, and may be a VRT that names other files
            "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
            "GDAL_PAM_ENABLED": "NO",
            "GDAL_GEOREF_SOURCES": "INTERNAL",
            "GDAL_TIFF_INTERNAL_MASK": "YES",
            # its quick way through a PNG takes one that was cut for whole: what is missing would be
            # whatever memory held before
            "GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO",
            # what GDAL says comes back in exceptions; its own copy on stderr is noise
            "CPL_LOG": os.devnull,
            "PROJ_NETWORK": "OFF",
        }
    )


def gdal_path(uri: str) -> str:
    """``s3://bucket/key`` as GDAL's path; anything else is a local path and stays as it is."""
    if uri.startswith("s3://"):
        return "/vsis3/" + uri[5:]
    return uri


@contextmanager
def gdal_errors(*, reading: bool) -> Iterator[None]:
    """Let no GDAL error out but as one of ours.

    Args:
        reading: whether pixels are being read (damage is then in the pixels), or the file is being
            opened (damage is then in the header).

    Raises:
        RasterRejected: the raster is at fault.
        StoreUnavailable: the store could not be asked, or the disk is full.
    """
    begin = overheard.moment()
    try:
        yield
    except FrondError:
        raise
    except (RasterioError, CPLE_BaseError, OSError, ValueError, OverflowError, TypeError) as e:
        error = _translated(e, reading)
        if isinstance(error, RasterRejected) and (trouble := overheard.since(begin)):
            error = _away(trouble)
        raise error from e
    except MemoryError as e:
        raise RasterRejected(
            Reason.TOO_LARGE,
            "Decoding the image needs more memory than there is. Re-tile it, for example with "
            "gdal_translate -of COG.",
        ) from e
    # GDAL goes on without a mask or an overview that it could not read
    if trouble := overheard.since(begin):
        raise _away(trouble)


def _away(said: str) -> StoreUnavailable:
    return StoreUnavailable(f"the object store did not answer while a raster was read: {said}")


def _translated(e: BaseException, reading: bool) -> FrondError:
    said = _chain(e)
    if _AWAY.search(said):
        return _away(said)
    if _FULL.search(said):
        return StoreUnavailable(f"a temporary file could not be written: {said}")
    if _FORBIDDEN.search(said):
        return RasterRejected(
            Reason.OBJECT_MISSING,
            "The store does not let Frond read this object. Check the bucket's policy.",
        )
    if _MISSING.search(said):
        return RasterRejected(
            Reason.OBJECT_MISSING, "There is no object at this address. Upload it, then try again."
        )
    if _BIG.search(said):
        return RasterRejected(
            Reason.TOO_LARGE,
            f"The image asks for more memory or pixels than is allowed ({_short(said)}). "
            "Re-tile it, for example with gdal_translate -of COG.",
        )
    if reading:
        return RasterRejected(
            Reason.TRUNCATED,
            f"The file's header can be read but its pixels cannot: some are missing or damaged "
            f"({_short(said)}). Export or upload the file again.",
        )
    if _CUT.search(said):
        return RasterRejected(
            Reason.TRUNCATED,
            f"The file ends before its header does ({_short(said)}). Upload it again, whole.",
        )
    return RasterRejected(
        Reason.CORRUPT,
        f"The file's header is damaged or contradicts itself ({_short(said)}). "
        "Export it again, for example with gdal_translate.",
    )


def _chain(e: BaseException | None) -> str:
    told: list[str] = []
    while e is not None and len(told) < 8:
        text = _QUOTED.sub(lambda m: "" if m[1] else "this file", str(e))
        text = _NAME.sub("", text)
        if text and "See previous exception" not in text and text not in told:
            told.append(text)
        e = e.__cause__ or e.__context__
    return " | ".join(told) or "no reason given"


def _short(said: str) -> str:
    clean = re.sub(r" at (row|scanline) 4294967295(, col 4294967295)?", "", said.split(" | ")[-1])
    clean = re.sub(r"[^\x20-\x7e]+", "?", clean).strip(" .")
    return clean[:160]
