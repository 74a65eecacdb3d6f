"""COCO, GeoJSON, GeoParquet, STAC and summaries, written as streams."""

from frond.artifacts.common import ImageResult, JobInfo, OpenSink, Sink
from frond.artifacts.stored import write_image_artifacts, write_job_artifacts
from frond.artifacts.writer import (
    IMAGE_ARTIFACTS,
    JOB_ARTIFACTS,
    MEDIA_TYPES,
    write_image,
    write_job,
)

__all__ = [
    "IMAGE_ARTIFACTS",
    "JOB_ARTIFACTS",
    "MEDIA_TYPES",
    "ImageResult",
    "JobInfo",
    "OpenSink",
    "Sink",
    "write_image",
    "write_image_artifacts",
    "write_job",
    "write_job_artifacts",
]
