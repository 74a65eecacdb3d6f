"""All artifacts of a job, or of one image, in one pass over its images. Blocking: use a thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any, Final

from frond.artifacts.coco import CocoDataset, CocoResults, shared_names
from frond.artifacts.common import CountingSink, ImageResult, JobInfo, OpenSink
from frond.artifacts.geojson import GeoJson
from frond.artifacts.geoparquet import FileCrs, GeoParquet
from frond.artifacts.stac import write_stac
from frond.artifacts.summary import Summary
from frond.contracts.jobs import Artifact, ImageOutcome

MEDIA_TYPES: Final = {
    "coco.json": "application/json",
    "coco-results.json": "application/json",
    "detections.geojson": "application/geo+json",
    "detections.parquet": "application/vnd.apache.parquet",
    "summary.json": "application/json",
    "stac.json": "application/geo+json",
}
JOB_ARTIFACTS: Final = (
    "coco.json", "coco-results.json", "detections.geojson", "detections.parquet", "summary.json",
)  # fmt: skip
IMAGE_ARTIFACTS: Final = ("coco.json", "detections.geojson", "detections.parquet", "stac.json")


def write_job(
    results: Iterable[ImageResult],
    outcomes: Iterable[ImageOutcome],
    job: JobInfo,
    open_sink: OpenSink,
    uri_of: Callable[[str], str],
) -> list[Artifact]:
    """Write the job's artifacts side by side, in one pass.

    Args:
        results: every image once, in the order of (name, image id); loaded as they are asked for,
            so that one is held at a time.
        outcomes: the same images' outcomes, read before, twice: they decide the GeoParquet file's CRS,
            and what images of one name are called in COCO.
        open_sink: opens the sink of a file by name; the file appears when its block ends.
        uri_of: a file's address by its name.

    Returns:
        The files, in the order of ``JOB_ARTIFACTS``.
    """
    crs = FileCrs.of_job(outcomes)
    with ExitStack() as stack:
        sinks = _open(stack, JOB_ARTIFACTS, open_sink)
        writers: tuple[Any, ...] = (
            stack.enter_context(CocoDataset(sinks["coco.json"], job, shared_names(outcomes))),
            CocoResults(sinks["coco-results.json"], job),
            stack.enter_context(GeoJson(sinks["detections.geojson"], job)),
            GeoParquet(sinks["detections.parquet"], job, crs),
            stack.enter_context(Summary(sinks["summary.json"], job)),
        )
        for result in results:
            for writer in writers:
                writer.add(result)
        for writer in writers:
            writer.finish()
    return _artifacts(sinks, uri_of)


def write_image(
    result: ImageResult,
    job: JobInfo,
    open_sink: OpenSink,
    uri_of: Callable[[str], str],
    *,
    bucket: str = "",
) -> list[Artifact]:
    """Write one completed image's artifacts: the job's files of a job with this image alone, but
    the GeoParquet in the raster's own CRS, and heads that tell of the image; and its STAC item.

    Args:
        bucket: where the model registry lies, for the STAC item's link to the model.
    """
    with ExitStack() as stack:
        sinks = _open(stack, IMAGE_ARTIFACTS, open_sink)
        writers: tuple[Any, ...] = (
            stack.enter_context(CocoDataset(sinks["coco.json"], job)),
            stack.enter_context(GeoJson(sinks["detections.geojson"], job, result)),
            GeoParquet(sinks["detections.parquet"], job, FileCrs.of_image(result), result),
        )
        for writer in writers:
            writer.add(result)
            writer.finish()
        write_stac(sinks["stac.json"], job, result, bucket)
    return _artifacts(sinks, uri_of)


def _open(stack: ExitStack, names: Iterable[str], open_sink: OpenSink) -> dict[str, CountingSink]:
    return {n: CountingSink(stack.enter_context(open_sink(n, MEDIA_TYPES[n]))) for n in names}


def _artifacts(sinks: dict[str, CountingSink], uri_of: Callable[[str], str]) -> list[Artifact]:
    return [
        Artifact(
            name=name, uri=uri_of(name), media_type=MEDIA_TYPES[name], size=s.size, sha256=s.sha256
        )
        for name, s in sinks.items()
    ]
