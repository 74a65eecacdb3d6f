"""COCO, GeoJSON, GeoParquet, STAC and summaries, written as streams."""

from frond.artifacts.common import COG_TYPE, ImageResult, JobInfo, Legend, OpenSink, Sink
from frond.artifacts.stored import write_image_artifacts, write_job_artifacts
from frond.artifacts.writer import (
    IMAGE_ARTIFACTS,
    JOB_ARTIFACTS,
    MEDIA_TYPES,
    write_image,
    write_job,
)

__all__ = [
    "COG_TYPE",
    "IMAGE_ARTIFACTS",
    "JOB_ARTIFACTS",
    "MEDIA_TYPES",
    "ImageResult",
    "JobInfo",
    "Legend",
    "OpenSink",
    "Sink",
    "write_image",
    "write_image_artifacts",
    "write_job",
    "write_job_artifacts",
]
