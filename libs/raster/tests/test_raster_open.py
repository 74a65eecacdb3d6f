from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from frond.contracts.errors import RasterRejected
from frond.contracts.plan import ImagePlan
from frond.contracts.reasons import Reason
from frond.raster import Limits, inspect, open_bytes, open_raster, sniff

VRT = b"""<VRTDataset rasterXSize="10" rasterYSize="10"><VRTRasterBand dataType="Byte" band="1">
<SimpleSource><SourceFilename>/etc/passwd</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", Reason.EMPTY_FILE),
        (b"hello, I am a shapefile, honestly\n" * 20, Reason.NOT_A_RASTER),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", Reason.NOT_A_RASTER),
        (b"<?xml version='1.0'?><kml/>", Reason.NOT_A_RASTER),
        (VRT, Reason.DRIVER_NOT_ALLOWED),
        (b"<?xml version='1.0'?>\n" + VRT, Reason.DRIVER_NOT_ALLOWED),
        (b"<GDAL_WMS><Service name='TMS'/></GDAL_WMS>", Reason.DRIVER_NOT_ALLOWED),
        (b"PK\x03\x04" + bytes(100), Reason.DRIVER_NOT_ALLOWED),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), Reason.DRIVER_NOT_ALLOWED),
        (bytes(5000), Reason.NOT_A_RASTER),
        (b"\x01\x02\x03\xff\xfe" * 50, Reason.NOT_A_RASTER),
        (b"II*\x00", Reason.TRUNCATED),
        (b"II*\x00" + struct.pack("<I", 1_000_000) + bytes(100), Reason.TRUNCATED),
        (b"MM\x00+\x00\x08\x00\x00" + struct.pack(">Q", 1 << 50) + bytes(100), Reason.TRUNCATED),
        (b"II*\x00" + struct.pack("<I", 8) + b"\xff" * 100, Reason.CORRUPT),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), Reason.CORRUPT),
        (b"\xff\xd8\xff\xe0" + bytes(100), Reason.CORRUPT),
    ],
)
def test_what_is_no_raster_is_called_by_its_name(
    tmp_path: Path, content: bytes, reason: Reason
) -> None:
    """Each kind of wrong file gets its code and a sentence; the same from a file and from memory."""
    path = tmp_path / "x.tif"
    path.write_bytes(content)
    with pytest.raises(RasterRejected) as e, open_raster(str(path)):
        pass
    assert e.value.reason is reason
    assert e.value.detail.endswith(".")
    told = e.value.detail
    assert str(tmp_path) not in told
    with pytest.raises(RasterRejected) as e, open_bytes(content):
        pass
    assert e.value.reason is reason
    # nor does the sentence name the place in memory, which is another one each time
    assert e.value.detail == told


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(RasterRejected) as e, open_raster(str(tmp_path / "none.tif")):
        pass
    assert e.value.reason is Reason.OBJECT_MISSING


def test_sniffing_needs_no_more_than_the_head() -> None:
    assert sniff(b"II*\x00" + struct.pack("<I", 8)) == "GTiff"
    assert sniff(b"\xff\xd8\xff\xe0") == "JPEG"


def test_sidecars_are_not_read(
    make_raster: Callable[..., Path], scene: Callable[..., np.ndarray]
) -> None:
    """A .msk or .aux.xml beside a raster has no effect: it is not the sender's word."""
    path = make_raster(scene())
    path.with_name("r.tif.msk").write_bytes(VRT)
    path.with_name("r.tif.ovr").write_bytes(VRT)
    path.with_name("r.tif.aux.xml").write_text(
        "<PAMDataset><PAMRasterBand band='1'><NoDataValue>30</NoDataValue></PAMRasterBand></PAMDataset>"
    )
    with open_raster(str(path)) as ds:
        info = inspect(ds)
    assert info.nodata == (None, None, None)
    assert not info.mask
    assert info.overviews == ()


@pytest.mark.parametrize("keep", [0.03, 0.5, 0.97, 0.999])
@pytest.mark.parametrize("tiled", [False, True])
def test_a_cut_file_is_truncated(
    tmp_path: Path,
    make_raster: Callable[..., Path],
    scene: Callable[..., np.ndarray],
    plan_of: Callable[..., ImagePlan],
    keep: float,
    tiled: bool,
) -> None:
    """However much of it is missing, it is rejected when it is planned, before any window is sent."""
    options = {"tiled": True, "blockxsize": 128, "blockysize": 128} if tiled else {}
    whole = make_raster(scene(), compress="deflate", **options).read_bytes()
    path = tmp_path / "cut.tif"
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(RasterRejected) as e:
        plan_of(path)
    assert e.value.reason in (Reason.TRUNCATED, Reason.CORRUPT)


@pytest.mark.parametrize("keep", [0.03, 0.5, 0.97, 0.999])
@pytest.mark.parametrize("driver", ["PNG", "JPEG"])
def test_a_cut_picture_is_truncated(
    tmp_path: Path, seen: Callable[..., None], keep: float, driver: str
) -> None:
    """Pictures as well: what is missing is never made up."""
    path = tmp_path / "cut"
    noise = np.random.default_rng(1).integers(0, 256, (200, 320, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, format=driver)
    whole = path.read_bytes()
    seen(path)
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(RasterRejected) as e:
        seen(path)
    assert e.value.reason in (Reason.TRUNCATED, Reason.CORRUPT)


def test_large_cut_file_is_found_without_reading_it(
    tmp_path: Path, make_raster: Callable[..., Path], plan_of: Callable[..., ImagePlan]
) -> None:
    """Also where an image is too large to be read in full first."""
    rng = np.random.default_rng(0)
    data = rng.integers(1, 255, (3, 1500, 1500), dtype=np.uint8)
    whole = make_raster(data, tiled=True, blockxsize=256, blockysize=256).read_bytes()
    path = tmp_path / "cut.tif"
    path.write_bytes(whole[: len(whole) * 9 // 10])
    with pytest.raises(RasterRejected) as e:
        plan_of(path, limits=Limits(verify_pixels=0))
    assert e.value.reason is Reason.TRUNCATED


def _header(width: int, height: int, dtype: str, path: Path, **kwargs: object) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=3, dtype=dtype,
        tiled=True, blockxsize=512, blockysize=512, SPARSE_OK=True, compress="deflate", **kwargs,
    ):  # fmt: skip
        pass
    return path


@pytest.mark.parametrize(
    ("width", "height"), [(1_000_000, 1_000_000), (300_000, 300_000), (150_000, 150_000)]
)
def test_a_decompression_bomb_is_too_large(tmp_path: Path, width: int, height: int) -> None:
    """A few MB that say they are gigapixels of nothing."""
    path = tmp_path / "bomb.tif"
    _header(width, height, "uint8", path, BIGTIFF="YES")
    with pytest.raises(RasterRejected) as e, open_raster(str(path)) as ds:
        inspect(ds, path.stat().st_size)
    assert e.value.reason is Reason.TOO_LARGE


def test_large_compressible_rasters_are_no_bombs(tmp_path: Path) -> None:
    """60,000² of one colour is a legal COG, and 2.9 MB may hold 36,000 × 18,000."""
    path = _header(60_000, 60_000, "uint8", tmp_path / "big.tif", BIGTIFF="YES")
    with open_raster(str(path)) as ds:
        assert inspect(ds, path.stat().st_size).pixels == 3_600_000_000


def test_one_giant_block_is_too_large(tmp_path: Path) -> None:
    """A tile that cannot be decoded in reasonable memory is turned down before it is."""
    path = tmp_path / "tile.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=40_000, height=40_000, count=3, dtype="uint8",
        tiled=True, blockxsize=40_000, blockysize=40_000, SPARSE_OK=True, compress="deflate",
    ):  # fmt: skip
        pass
    with pytest.raises(RasterRejected) as e, open_raster(str(path)) as ds:
        inspect(ds, path.stat().st_size)
    assert e.value.reason is Reason.TOO_LARGE


@pytest.mark.parametrize("dtype", ["complex64", "complex_int16", "int64", "uint64"])
def test_unsupported_samples(tmp_path: Path, dtype: str) -> None:
    path = _header(600, 600, dtype, tmp_path / "c.tif")
    with pytest.raises(RasterRejected) as e, open_raster(str(path)) as ds:
        inspect(ds, path.stat().st_size)
    assert e.value.reason is Reason.UNSUPPORTED_DTYPE
    assert dtype[:7] in e.value.detail
    # a plain conversion of complex samples would keep their real part alone
    amplitude = "DERIVED_SUBDATASET:AMPLITUDE:in.tif out.tif" in e.value.detail
    assert amplitude == dtype.startswith("complex")


@given(
    st.lists(
        st.tuples(st.integers(0, 700), st.integers(0, 255)), min_size=1, max_size=12, unique=True
    ),
    st.booleans(),
)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_damaged_headers_never_raise_anything_else(
    tmp_path: Path,
    make_raster: Callable[..., Path],
    scene: Callable[..., np.ndarray],
    plan_of: Callable[..., ImagePlan],
    changes: list[tuple[int, int]],
    big: bool,
) -> None:
    """Whatever bytes a header is changed to, the raster is planned or rejected."""
    whole = make_raster(
        scene(rows=60, cols=70), compress="deflate", BIGTIFF="YES" if big else "NO"
    ).read_bytes()
    raw = bytearray(whole)
    for at, value in changes:
        raw[at] = value
    path = tmp_path / "changed.tif"
    path.write_bytes(raw)
    with contextlib.suppress(RasterRejected):
        plan = plan_of(path)
        assert ImagePlan.model_validate_json(plan.model_dump_json()) == plan
