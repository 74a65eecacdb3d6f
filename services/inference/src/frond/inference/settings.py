"""What inference reads from its environment."""

from __future__ import annotations

from pydantic import Field

from frond.auth import AuthSettings
from frond.models.session import PROVIDERS
from frond.raster import Limits
from frond.runtime import ServiceSettings

MIB = 1 << 20


class InferenceSettings(ServiceSettings, AuthSettings):
    """Settings of the inference service.

    ``batch`` and ``providers`` are part of what a result's bytes depend on, and ``max_detections``
    of whether there is one: give every worker of an installation the same.
    """

    providers: str = Field(
        default=",".join(PROVIDERS), description="ONNX Runtime's, comma-separated, in order"
    )
    threads: int = Field(
        default=0, ge=0, description="of one run; 0: one for each core, or fewer (see tuning_s)"
    )
    batch: int = Field(
        default=0,
        ge=0,
        le=256,
        description="windows a run; 0: 1 on a CPU, 8 on a GPU, or more (see tuning_s)",
    )
    tuning_s: float = Field(
        default=5.0,
        ge=0,
        description="for measuring, when a model is first loaded on a machine, which threads and "
        "batch are fastest of those that give the same bytes; 0: nothing is measured",
    )
    models_loaded: int = Field(default=3, ge=1, description="models kept in memory")
    chunks_in_flight: int = Field(
        default=4, ge=1, description="read ahead, run or written at a time; sets the memory needed"
    )
    inference_readers: int = Field(
        default=2, ge=1, description="raster reader processes for chunks"
    )
    inference_reader_memory_mb: int = Field(
        default=4096, ge=0, description="what one reader may allocate; 0: as much as there is"
    )
    inference_read_timeout_s: float = Field(
        default=120.0, gt=0, description="for a chunk's windows, or a /predict image"
    )
    max_detections: int = Field(default=Limits().max_detections, ge=1, description="of one window")
    gdal_cache_mb: int = Field(default=128, ge=16, description="of each reader")
    predict_max_bytes: int = Field(default=64 * MIB, ge=1, description="body of a /predict request")
    predict_max_pixels: int = Field(default=64_000_000, ge=1, description="of a /predict image")
    predict_at_once: int = Field(
        default=4,
        ge=1,
        description="/predict images in memory: read, run or merged; other bodies wait on disk. "
        "More than twice the model's batch is of no use",
    )
    predict_readers: int = Field(
        default=2, ge=1, description="raster reader processes for /predict images"
    )
