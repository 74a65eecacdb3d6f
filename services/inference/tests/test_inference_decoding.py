"""An image's bytes to windows: an array's are cut out of it as it is, and nothing tells."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

from frond.contracts.errors import RasterRejected
from frond.contracts.jobs import ModelRef
from frond.contracts.reasons import Reason
from frond.inference import decoding
from frond.inference.decoding import Decoded, Image, decode
from frond.models.folder import load_manifest
from frond.models.testing import blob_model
from frond.raster import Layout, PlanRequest

SHAPES = ((3, 256, 256), (3, 100, 61), (3, 300, 530), (5, 700, 256), (3, 4, 5))


@pytest.fixture(scope="module")
def request_for(tmp_path_factory: pytest.TempPathFactory) -> PlanRequest:
    manifest = load_manifest(blob_model(Path(tmp_path_factory.mktemp("blob"))))
    return PlanRequest(
        job_id="predict", image_id="1" * 32, image="memory", name="predict", uri="memory", etag="",
        size=1000, model=ModelRef(name="blob", digest="a" * 64, version="1"), manifest=manifest,
    )  # fmt: skip


def numbers(dtype: str, shape: tuple[int, int, int]) -> np.ndarray:
    rng = np.random.default_rng(3)
    return (rng.random(shape) * 2000 % 256).astype(dtype)


def as_npy(bands: np.ndarray) -> np.ndarray:
    out = io.BytesIO()
    np.save(out, bands)
    return np.frombuffer(out.getvalue(), np.uint8)


def as_tiff(bands: np.ndarray) -> np.ndarray:
    with MemoryFile() as memory, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with memory.open(
            driver="GTiff", count=bands.shape[0], height=bands.shape[1], width=bands.shape[2],
            dtype=bands.dtype.name, tiled=True, blockxsize=256, blockysize=256,
            photometric="MINISBLACK",
        ) as sink:  # fmt: skip
            sink.write(bands)
        return np.frombuffer(memory.read(), np.uint8)


def assert_same(one: Decoded, other: Decoded) -> None:
    assert (one.width, one.height, one.georeference, one.plan) == (
        other.width, other.height, other.georeference, other.plan,
    )  # fmt: skip
    assert len(one.chunks) == len(other.chunks)
    for ours, theirs in zip(one.chunks, other.chunks, strict=True):
        assert [w.index for w in ours] == [w.index for w in theirs]
        for a, b in zip(ours, theirs, strict=True):
            assert a.data.dtype == b.data.dtype == np.uint8
            np.testing.assert_array_equal(a.data, b.data)
            assert (a.valid is None) == (b.valid is None)


@pytest.mark.parametrize("layout", ["CHW", "HWC"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
def test_an_array_is_seen_as_a_raster_of_it_would_be(
    request_for: PlanRequest, dtype: str, layout: Layout
) -> None:
    """Same plan, notes and windows, whatever the type: bytes take a way of their own."""
    for shape in SHAPES:
        bands = numbers(dtype, shape)
        seen = decode(Image(as_npy(bands), request_for, layout))
        assert_same(seen, decode(Image(as_tiff(bands), request_for, layout)))


def test_axes_and_truth_values_change_nothing(request_for: PlanRequest) -> None:
    """Bands last, columns first in memory, booleans: the same as bands first."""
    bands = numbers("uint8", (3, 300, 530)) & 1
    plain = decode(Image(as_npy(bands), request_for, "HWC"))
    for other in (
        bands.transpose(1, 2, 0), np.asfortranarray(bands), bands.astype(bool),
        np.ascontiguousarray(bands.transpose(1, 2, 0)),
    ):  # fmt: skip
        assert_same(plain, decode(Image(as_npy(other), request_for, "HWC")))


def test_bytes_need_no_raster(request_for: PlanRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it is known what is said of so many bands, GDAL is not asked again."""
    bands = numbers("uint8", (3, 300, 530))
    decode(Image(as_npy(bands), request_for, "HWC"))

    def nobody(*_: object) -> None:
        raise AssertionError("GDAL was asked")

    monkeypatch.setattr(decoding, "_as_raster", nobody)
    assert decode(Image(as_npy(bands), request_for, "HWC")).plan.chunks


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_an_array_with_too_few_bands_is_refused_in_the_same_words(
    request_for: PlanRequest, dtype: str
) -> None:
    """By either way."""
    said = []
    for given in (as_npy, as_tiff):
        with pytest.raises(RasterRejected) as refused:
            decode(Image(given(numbers(dtype, (1, 300, 300))), request_for, "CHW"))
        said.append((refused.value.reason, refused.value.detail))
    assert said[0] == said[1]


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '|u1', 'fortran_order': False, 'shape': (" + "9" * 40 + ",)}",
        "{[]: 1}",
        "{'descr': '|u1', 'shape': (1,",
        "1" + "+1" * 4000,
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
    ],
)
def test_a_hostile_header_is_a_bad_file(header: str, request_for: PlanRequest) -> None:
    """Whatever numpy's parser raises, the answer says that the file cannot be read."""
    raw = header.encode()
    data = b"\x93NUMPY\x01\x00" + len(raw).to_bytes(2, "little") + raw
    with pytest.raises(RasterRejected) as e:
        decode(Image(np.frombuffer(data, np.uint8), request_for, "HWC"))
    assert e.value.reason is Reason.CORRUPT
