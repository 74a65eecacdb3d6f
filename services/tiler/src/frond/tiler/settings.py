"""What the tiler reads from its environment."""

from __future__ import annotations

import os

from pydantic import Field

from frond.raster import CHUNK_MB, WINDOWS_PER_CHUNK, Limits
from frond.runtime import ServiceSettings


class TilerSettings(ServiceSettings):
    """Settings of the tiler, besides those of every service."""

    tiler_images: int = Field(default=8, ge=1, description="images in flight at once")
    tiler_readers: int = Field(
        default=max(1, min(4, os.cpu_count() or 1)), ge=1, description="raster reader processes"
    )
    tiler_timeout_s: float = Field(
        default=120.0,
        gt=0,
        description="to open and plan an image, besides 1 s a MB of the file and 1 s each 10 MB of"
        " its pixels",
    )
    tiled_backlog: int = Field(
        default=5_000, ge=1,
        description="chunks waiting for inference at which planning waits; below FROND_LOOKAHEAD",
    )  # fmt: skip
    tiler_reader_memory_mb: int = Field(
        default=4096, ge=0, description="what one reader may allocate; 0: as much as there is"
    )
    windows_per_chunk: int = Field(
        default=WINDOWS_PER_CHUNK, ge=1, le=1024, description="at most, however small they are"
    )
    chunk_mb: int = Field(
        default=CHUNK_MB, ge=1, le=1024,
        description="MiB of a chunk's windows, at most, but for one window or a manifest's batch: an "
        "inference worker holds FROND_CHUNKS_IN_FLIGHT of them",
    )  # fmt: skip
    max_pixels: int = Field(default=Limits().max_pixels, ge=1)
    max_file_bytes: int = Field(default=Limits().max_bytes, ge=1, description="bytes of one image")
    max_bands: int = Field(default=Limits().max_bands, ge=1)
    max_windows: int = Field(default=Limits().max_windows, ge=1, description="of one image")

    @property
    def limits(self) -> Limits:
        return Limits(
            max_pixels=self.max_pixels, max_bytes=self.max_file_bytes, max_bands=self.max_bands,
            max_windows=self.max_windows,
        )  # fmt: skip
