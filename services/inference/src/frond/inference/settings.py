"""What inference reads from its environment."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field, field_validator, model_validator

from frond.auth import AuthSettings
from frond.contracts.drift import DriftBounds
from frond.contracts.modelspec import base_url
from frond.drift import Length
from frond.models.session import PROVIDERS
from frond.raster import Limits
from frond.runtime import ServiceSettings

MIB = 1 << 20
_BOUNDS: Final = DriftBounds()
_LENGTH: Final = Length()
_LONGEST_S: Final = 31 * 86400.0
_MOST_WINDOWS: Final = 10_000_000


class InferenceSettings(ServiceSettings, AuthSettings):
    """Settings of the inference service.

    ``batch`` and ``providers`` are part of what a result's bytes depend on, and ``max_detections``
    of whether there is one: give every worker of an installation the same.
    """

    providers: str = Field(
        default=",".join(PROVIDERS),
        min_length=1,
        description="ONNX Runtime's, comma-separated, in order",
    )
    threads: int = Field(
        default=0,
        ge=0,
        description="of one run, one run after another; 0: one for each core, or fewer, or several "
        "runs at once (see tuning_s)",
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
        description="for measuring, when a model is first loaded on a machine, which threads, runs "
        "at once and batch are fastest of those that give the same bytes; 0: nothing is measured",
    )
    model_servers: str = Field(
        default="",
        description="comma-separated base URLs of the servers that may run models (model.yaml's "
        "server.url is one of them, or below one); empty: none",
    )
    model_patience_s: float = Field(
        default=900.0,
        ge=0,
        description="how long chunks wait for a model's server that does not answer, before they "
        "fail; 0: as long as it takes",
    )
    models_loaded: int = Field(
        default=3, ge=1, description="models kept in memory, not counting those that servers run"
    )
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
    gdal_cache_mb: int = Field(default=96, ge=16, description="of each reader")
    predict_max_bytes: int = Field(default=64 * MIB, ge=1, description="body of a /predict request")
    predict_max_pixels: int = Field(default=64_000_000, ge=1, description="of a /predict image")
    predict_max_detections: int = Field(
        default=50_000, ge=1, description="of a /predict image, in its windows together"
    )
    predict_at_once: int = Field(
        default=4,
        ge=1,
        description="/predict images in memory: read, run or merged; other bodies wait on disk. "
        "Half of them are one tenant's at most, and one at least. "
        "More than twice the model's batch is of no use. As many again where servers run their model",
    )
    predict_readers: int = Field(
        default=2, ge=1, description="raster reader processes for /predict images"
    )
    shadow_timeout_s: float = Field(
        default=30.0,
        ge=0,
        le=600,
        description="how long a chunk, whose own result is stored, waits for its job's shadow; 0: no "
        "shadow is run",
    )
    drift: Literal["off", "reference", "all"] = Field(
        default="reference",
        description="whose windows are compared with training data: nobody's, those of models whose "
        "manifest has a reference, or every model's (histograms alone where there is none)",
    )
    drift_share: float = Field(
        default=0.25, ge=0, le=1, description="of the windows, by hash: how many are looked at"
    )
    drift_period_s: float = Field(
        default=_LENGTH.seconds, gt=0, le=_LONGEST_S, allow_inf_nan=False,
        description="a period, at most; a month is the longest",
    )  # fmt: skip
    drift_period_windows: int = Field(
        default=_LENGTH.windows, ge=1, le=_MOST_WINDOWS, description="looked at in a period, about"
    )
    drift_min_windows: int = Field(
        default=_BOUNDS.windows, ge=1, le=_MOST_WINDOWS, description="with fewer nothing is said"
    )
    drift_alpha: float = Field(
        default=_BOUNDS.alpha, gt=0, le=0.1, description="level of the Kolmogorov–Smirnov test"
    )
    drift_psi_shifting: float = Field(default=_BOUNDS.shifting, gt=0, allow_inf_nan=False)
    drift_psi_drifted: float = Field(
        default=_BOUNDS.drifted, gt=0, allow_inf_nan=False, description="no less than shifting"
    )

    @field_validator("model_servers")
    @classmethod
    def _are_base_urls(cls, value: str) -> str:
        return ",".join(base_url(url) for url in value.split(",") if url.strip())

    @field_validator("drift", mode="before")
    @classmethod
    def _empty_is_the_default(cls, value: object) -> object:
        # as Compose hands on what nobody has set
        return "reference" if value == "" else value

    @model_validator(mode="after")
    def _drifted_is_more(self) -> InferenceSettings:
        if self.drift_psi_drifted < self.drift_psi_shifting:
            raise ValueError(
                f"FROND_DRIFT_PSI_DRIFTED ({self.drift_psi_drifted:g}) lies below "
                f"FROND_DRIFT_PSI_SHIFTING ({self.drift_psi_shifting:g}): it is the more serious one"
            )
        return self

    @property
    def servers(self) -> tuple[str, ...]:
        """Base URLs of ``model_servers``."""
        return tuple(url for url in self.model_servers.split(",") if url)

    @property
    def drift_length(self) -> Length:
        return Length(self.drift_period_s, self.drift_period_windows)

    @property
    def drift_bounds(self) -> DriftBounds:
        return DriftBounds(
            shifting=self.drift_psi_shifting,
            drifted=self.drift_psi_drifted,
            alpha=self.drift_alpha,
            windows=self.drift_min_windows,
        )
