"""Files and addresses that try to reach another file, host or process by way of GDAL."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio

from frond.contracts.errors import JobRejected, RasterRejected
from frond.contracts.ids import parse_s3_uri
from frond.contracts.reasons import Reason
from frond.raster import child, open_bytes, open_raster, sandbox

Make = Callable[..., Path]


class Trap:
    """A port of this machine; who knocks is counted."""

    def __init__(self) -> None:
        self.knocks = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                caller, _ = self._socket.accept()
            except OSError:
                return
            self.knocks += 1
            caller.close()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def trap() -> Iterator[Trap]:
    made = Trap()
    yield made
    made.close()


XML = {
    "a VRT of a web address": "<VRTDataset rasterXSize='9' rasterYSize='9'><VRTRasterBand "
    "dataType='Byte' band='1'><SimpleSource><SourceFilename>/vsicurl/{url}/a.tif"
    "</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>",
    "a VRT that runs Python": "<VRTDataset rasterXSize='9' rasterYSize='9'><VRTRasterBand "
    "dataType='Byte' band='1' subClass='VRTDerivedRasterBand'><PixelFunctionLanguage>Python"
    "</PixelFunctionLanguage></VRTRasterBand></VRTDataset>",
    "a tile service": "<GDAL_WMS><Service name='TMS'><ServerUrl>{url}/${{z}}</ServerUrl></Service>"
    "</GDAL_WMS>",
    "WMTS": "<GDAL_WMTS><GetCapabilitiesUrl>{url}/wmts</GetCapabilitiesUrl></GDAL_WMTS>",
    "WCS": "<WCS_GDAL><ServiceURL>{url}/wcs</ServiceURL></WCS_GDAL>",
    "an external entity": "<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b SYSTEM '{url}/b'>]><a>&b;</a>",
}


@pytest.mark.parametrize("what", XML)
def test_xml_under_a_rasters_name_reaches_nothing(what: str, tmp_path: Path, trap: Trap) -> None:
    """Refused by its first bytes, from a file and from memory, with or without a byte order mark."""
    text = XML[what].format(url=trap.url).encode()
    for content in (text, b"\xef\xbb\xbf" + text, b"\n  " + text):
        path = tmp_path / "innocent.tif"
        path.write_bytes(content)
        with pytest.raises(RasterRejected) as e, open_raster(str(path)):
            pass
        assert e.value.reason in (Reason.DRIVER_NOT_ALLOWED, Reason.NOT_A_RASTER)
        with pytest.raises(RasterRejected), open_bytes(content):
            pass
    assert trap.knocks == 0


@pytest.mark.parametrize(
    "driver", ["GPKG", "MBTiles", "PDF", "HDF5", "netCDF", "JP2OpenJPEG", "GIF", "BMP", "VRT"]
)
def test_other_formats_are_refused_however_they_are_named(driver: str, tmp_path: Path) -> None:
    """Real files where this GDAL can write them, else their first bytes."""
    path = tmp_path / "image.tif"
    magic = {
        "PDF": b"%PDF-1.7\n", "HDF5": b"\x89HDF\r\n\x1a\n", "netCDF": b"CDF\x02",
        "JP2OpenJPEG": b"\x00\x00\x00\x0cjP  \r\n\x87\n",
    }  # fmt: skip
    if driver in magic:
        path.write_bytes(magic[driver] + bytes(200))
    else:
        whole = tmp_path / f"made.{driver.lower()}"
        count = 4 if driver == "MBTiles" else 1
        try:
            with rasterio.open(
                whole, "w", driver=driver, width=256, height=256, count=count, dtype="uint8",
                crs="EPSG:3857", transform=rasterio.Affine(1, 0, 0, 0, -1, 0),
            ) as out:  # fmt: skip
                out.write(np.ones((count, 256, 256), np.uint8))
        except (rasterio.errors.RasterioError, TypeError):
            whole.write_bytes(b"SQLite format 3\x00" + bytes(200))
        path.write_bytes(whole.read_bytes())
    for look in (lambda: open_raster(str(path)), lambda: open_bytes(path.read_bytes())):
        with pytest.raises(RasterRejected) as e, look():
            pass
        assert e.value.reason is Reason.DRIVER_NOT_ALLOWED


@pytest.mark.parametrize(
    "uri",
    [
        "/vsicurl/http://169.254.169.254/a.tif", "/etc/passwd", "file:///etc/passwd",
        "http://127.0.0.1/a.tif", "vrt:///etc/passwd", "zip://a.zip!b.tif",
        "GTIFF_DIR:1:/etc/passwd", "s3://bucket//vsicurl/http://127.0.0.1/a.tif",
        "s3://bucket/../other/a.tif", "s3://bucket/a/../../b.tif", "s3://bucket/./a.tif",
        "s3://bucket/a\x00b.tif", "s3://bucket/a\nb.tif", "s3://bucket/", "s3://../a.tif",
        "s3://b@c/a.tif", "s3://127.0.0.1:9000/a.tif", "s3://bucket/" + "x" * 300 + ".tif",
    ],
)  # fmt: skip
def test_addresses_that_are_no_objects(uri: str) -> None:
    """No event carries one: what reaches GDAL is /vsis3/ with a bucket and a plain key."""
    with pytest.raises(JobRejected) as e:
        parse_s3_uri(uri)
    assert e.value.reason is Reason.BAD_IMAGE_URI


def test_a_tile_that_lies_about_its_size_is_damage(
    make_raster: Make, scene: Callable[..., np.ndarray], seen: Callable[..., None]
) -> None:
    """A JPEG of 65,000² inside a tile of 128²: refused, and its gigabytes never asked for."""
    path = make_raster(
        scene(), compress="jpeg", tiled=True, blockxsize=128, blockysize=128, photometric="ycbcr"
    )
    data = bytearray(path.read_bytes())
    at = data.find(b"\xff\xc0")
    assert at > 0
    while at > 0:
        # SOF0: length, precision, height, width
        data[at + 5 : at + 9] = b"\xfd\xe8\xfd\xe8"
        at = data.find(b"\xff\xc0", at + 9)
    path.write_bytes(bytes(data))
    with pytest.raises(RasterRejected) as e:
        seen(path)
    assert e.value.reason in (Reason.TRUNCATED, Reason.CORRUPT, Reason.TOO_LARGE)


def test_metadata_inside_a_tiff_is_only_read(
    make_raster: Make, scene: Callable[..., np.ndarray], trap: Trap
) -> None:
    """GDAL's own XML tag, with an entity and a path in it: text, and nothing is fetched."""
    path = make_raster(scene())
    with rasterio.open(path, "r+") as out:
        out.update_tags(SOURCE=f"/vsicurl/{trap.url}/x.tif", XML=f"<!ENTITY b SYSTEM '{trap.url}'>")
    with open_raster(str(path)) as dataset:
        dataset.read(1)
    assert trap.knocks == 0


def _naming_overviews(path: Path, target: str, *, lower: bool = False) -> Path:
    """A TIFF whose metadata says that its overviews lie elsewhere."""
    with rasterio.open(
        path, "w", driver="GTiff", width=256, height=256, count=1, dtype="uint8"
    ) as out:
        out.write(np.zeros((1, 256, 256), np.uint8))
        out.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=target)
    if lower:
        raw = path.read_bytes()
        for name in (b"OVERVIEW_FILE", b"OVERVIEWS"):
            raw = raw.replace(name, name.lower())
        path.write_bytes(raw)
    return path


def _targets(folder: Path, url: str) -> dict[str, str]:
    other = folder / "other.tif"
    with rasterio.open(
        other, "w", driver="GTiff", width=128, height=128, count=1, dtype="uint8"
    ) as out:
        out.write(np.full((1, 128, 128), 77, np.uint8))
    return {
        "a file": str(other),
        "a VRT": "<VRTDataset rasterXSize='128' rasterYSize='128'><VRTRasterBand dataType='Byte' "
        f"band='1'><SimpleSource><SourceFilename>{other}</SourceFilename><SourceBand>1</SourceBand>"
        "</SimpleSource></VRTRasterBand></VRTDataset>",
        "a web address": f"/vsicurl/{url}/x.tif",
        "another bucket": "/vsis3/another/x.tif",
    }


@pytest.mark.parametrize("lower", [False, True], ids=["as written by GDAL", "in lower case"])
@pytest.mark.parametrize("what", ["a file", "a VRT", "a web address", "another bucket"])
def test_overviews_in_another_file_are_refused(
    tmp_path: Path, trap: Trap, monkeypatch: pytest.MonkeyPatch, what: str, lower: bool
) -> None:
    """GDAL would open what OVERVIEW_FILE names, by any driver and with our keys, as soon as
    overviews are asked for: such a TIFF is not opened, from a file or from memory."""
    monkeypatch.setenv("AWS_S3_ENDPOINT", trap.url.removeprefix("http://"))
    path = _naming_overviews(tmp_path / "a.tif", _targets(tmp_path, trap.url)[what], lower=lower)
    for look in (lambda: open_raster(str(path)), lambda: open_bytes(path.read_bytes())):
        with pytest.raises(RasterRejected) as e, look() as dataset:
            dataset.overviews(1)
            dataset.read(out_shape=(1, 128, 128))
        assert e.value.reason is Reason.DRIVER_NOT_ALLOWED
    assert trap.knocks == 0


def _overviews_without_our_check(path: str) -> list[int]:
    with rasterio.open(path) as dataset:
        return list(dataset.overviews(1))


def _the_same_as_readers_do(path: str) -> list[int]:
    child.reach_only(path)
    return _overviews_without_our_check(path)


@pytest.mark.parametrize("what", ["a web address", "another bucket"])
def test_a_reader_reaches_its_own_raster_alone(
    tmp_path: Path, trap: Trap, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The second line: whatever a raster may yet make GDAL open, a reader process asks the network
    for nothing but the raster it was given. Where that is not said, this attack does knock."""
    for name, value in {
        "AWS_S3_ENDPOINT": trap.url.removeprefix("http://"), "AWS_HTTPS": "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s",
        "GDAL_HTTP_MAX_RETRY": "0", "CPL_LOG": os.devnull,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    path = _naming_overviews(tmp_path / "a.tif", _targets(tmp_path, trap.url)[what])
    knocks = []
    for attack in (_the_same_as_readers_do, _overviews_without_our_check):
        # a child each: GDAL remembers, and its calls hold up the trap's thread in this process
        box = sandbox.Sandbox(1)
        try:
            assert box.wait(attack, str(path), 60) == []
        finally:
            box.close()
        knocks.append(trap.knocks)
    assert knocks[0] == 0
    assert knocks[1] > 0
