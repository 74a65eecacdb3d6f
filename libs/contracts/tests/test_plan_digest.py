"""A plan's digest is of what can change a result's bytes."""

from __future__ import annotations

from frond.contracts.jobs import ModelRef
from frond.contracts.plan import ImagePlan, RasterSource, WindowGrid


def planned(job: str, uri: str, checksum: str | None, etag: str = "e") -> ImagePlan:
    return ImagePlan(
        job_id=job, image_id=f"{job}-image", image="s3://b/a.tif", name="a.tif", checksum=checksum,
        source=RasterSource(
            uri=uri, etag=etag, size=9, bands=(1, 2, 3), dtype="uint8", width=900, height=600
        ),
        grid=WindowGrid(width=900, height=600, size=512, margin=64),
        model=ModelRef(name="palm", digest="a" * 64), chunks=1,
    )  # fmt: skip


def test_where_a_copy_lies_is_no_part_of_it() -> None:
    """A raster that is read by a tiled copy has one digest in every job, as the rasters that are read
    themselves have; another copy has another."""
    first, again = (planned(j, f"s3://f/jobs/{j}/cog.tif", "raw").plan_digest for j in "ab")
    assert first == again
    assert planned("a", "s3://f/jobs/a/cog.tif", "raw", etag="f").plan_digest != first
    assert (
        planned("a", "s3://b/a.tif", None).plan_digest
        == planned("b", "s3://b/a.tif", None).plan_digest
    )
    assert (
        planned("a", "s3://b/a.tif", None).plan_digest
        != planned("a", "s3://b/b.tif", None).plan_digest
    )
