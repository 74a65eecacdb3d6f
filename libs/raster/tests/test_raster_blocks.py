"""Blocks of windows: a raster in the store stays open between those of one image, and no longer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from frond.contracts.errors import RasterRejected
from frond.contracts.plan import ImagePlan
from frond.contracts.reasons import Reason
from frond.raster import Block, RasterReader, configure_gdal, read_block, reader

pytestmark = pytest.mark.stack


@pytest.fixture
def client(stack: Any) -> Iterator[Any]:
    """The store; GDAL of this process is pointed at it."""
    from minio import Minio

    before = dict(os.environ)
    configure_gdal(stack.s3_endpoint, stack.access_key, stack.secret_key)
    yield Minio(stack.s3_endpoint.split("://")[1], stack.access_key, stack.secret_key, secure=False)
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which rasters were opened, each time."""
    paths: list[str] = []
    real = reader.open_dataset

    def noted(path: str, *args: Any, **kwargs: Any) -> Any:
        paths.append(path)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(reader, "open_dataset", noted)
    return paths


def stored(client: Any, bucket: str, path: Path, plan: ImagePlan, name: str) -> ImagePlan:
    """The plan, of this file as an object."""
    put = client.fput_object(bucket, name, str(path))
    there = {"uri": f"s3://{bucket}/{name}", "etag": put.etag}
    return plan.model_copy(update={"source": plan.source.model_copy(update=there)})


def block(plan: ImagePlan, *windows: int) -> Block:
    return Block(plan.source, plan.grid, windows, "HWC")


def drawn(make_raster: Callable[..., Path], seed: int, name: str) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 255, (3, 700, 700), dtype=np.uint8)
    return make_raster(pixels, name, tiled=True, blockxsize=128, blockysize=128)


def same(plan: ImagePlan, path: Path, *windows: int) -> None:
    """What a block gives is what the file on disk has there."""
    local = plan.source.model_copy(update={"uri": str(path)})
    with RasterReader(local, plan.grid, layout="HWC") as beside:
        here = beside.read_block(windows)
    for got, expected in zip(read_block(block(plan, *windows)), here, strict=True):
        assert np.array_equal(got.data, expected.data)


def test_blocks_of_one_raster_open_it_once(
    client: Any, bucket: str, make_raster: Callable[..., Path],
    plan_of: Callable[..., ImagePlan], opened: list[str],
) -> None:  # fmt: skip
    """And those of another raster between them close it; pixels are the file's throughout."""
    one, two = drawn(make_raster, 1, "one.tif"), drawn(make_raster, 2, "two.tif")
    first = stored(client, bucket, one, plan_of(one), "one.tif")
    other = stored(client, bucket, two, plan_of(two), "two.tif")
    for windows in ((0, 1), (2, 3), (20, 30)):
        same(first, one, *windows)
    assert opened.count(first.source.uri) == 1
    same(other, two, 4, 5)
    same(first, one, 4, 5)
    assert opened.count(first.source.uri) == 2


def test_an_object_in_the_place_of_another_is_read_anew(
    client: Any, bucket: str, make_raster: Callable[..., Path], plan_of: Callable[..., ImagePlan]
) -> None:
    """Though it has its name and its size: it is planned with its own ETag."""
    one, two = drawn(make_raster, 1, "one.tif"), drawn(make_raster, 2, "two.tif")
    plan = plan_of(one)
    before = stored(client, bucket, one, plan, "same.tif")
    same(before, one, 0, 1, 2)
    after = stored(client, bucket, two, plan, "same.tif")
    assert after.source.etag != before.source.etag
    same(after, two, 0, 1, 2)


def test_what_failed_is_opened_anew(
    client: Any, bucket: str, make_raster: Callable[..., Path],
    plan_of: Callable[..., ImagePlan], opened: list[str],
) -> None:  # fmt: skip
    """A raster whose pixels could not be read is not kept with what was learned of it."""
    path = drawn(make_raster, 1, "one.tif")
    plan, whole = plan_of(path), path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    cut = stored(client, bucket, path, plan, "one.tif")
    with pytest.raises(RasterRejected) as e:
        read_block(block(cut, plan.grid.count - 1))
    assert e.value.reason is Reason.TRUNCATED
    path.write_bytes(whole)
    client.fput_object(bucket, "one.tif", str(path))
    before = len(opened)
    same(cut, path, plan.grid.count - 1)
    assert cut.source.uri in opened[before:]


def test_files_are_not_kept(
    make_raster: Callable[..., Path], plan_of: Callable[..., ImagePlan], opened: list[str]
) -> None:
    """A copy on this disk is deleted after its block, and would keep its space while open."""
    path = drawn(make_raster, 1, "one.tif")
    plan = plan_of(path)
    read_block(block(plan, 0))
    read_block(block(plan, 1))
    assert len(opened) == 2
    open_files = {os.path.realpath(n) for n in Path("/proc/self/fd").iterdir()}
    assert str(path) not in open_files
