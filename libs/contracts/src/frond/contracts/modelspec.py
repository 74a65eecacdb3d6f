"""``model.yaml``: what a model folder says of its graph."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}$"
MIN_AREA: Final = 16
"""Scaled pixels: smaller regions of a segmentation give no polygon where ``decoder.params.min_area``
says nothing."""


class _Section(BaseModel):
    # a typing error in a hand-written file must not pass in silence
    model_config = ConfigDict(frozen=True, extra="forbid")


class InputSpec(_Section):
    """The graph's one input."""

    size: int = Field(ge=8, le=4096, description="side of the square window, pixels")
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    dtype: Literal["uint8", "float32", "float16"] = "float32"
    name: str | None = Field(default=None, description="None: the graph's first input")
    batch: int | None = Field(
        default=None, ge=1, le=256, description="windows a run; None: 1 if fixed, else chosen"
    )


class Normalization(_Section):
    """x' = (x·scale − mean) / std, by band; x in 0…255 (see Radiometry)."""

    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)


class DecoderSpec(_Section):
    """Which decoder reads the graph's outputs, and its own parameters."""

    name: str = Field(description="centerpoint, yolo, yolo-end2end, detr, torchvision, semantic, …")
    params: dict[str, Any] = Field(default_factory=dict)


class ModelThresholds(_Section):
    """Where the model's author put the bar; a job may override each."""

    score: float = Field(default=0.25, ge=0, le=1)
    nms_iou: float = Field(default=0.5, ge=0, le=1, description="inside one window")
    merge_iou: float = Field(default=0.5, ge=0, le=1, description="across windows' borders")


class ModelManifest(_Section):
    """A model folder's ``model.yaml``."""

    name: str = Field(pattern=NAME_PATTERN)
    version: str = "0"
    task: Literal["detection", "segmentation", "classification"] = "detection"
    description: str = ""
    decoder: DecoderSpec
    classes: tuple[str, ...] = Field(min_length=1)
    bands: tuple[int, ...] = Field(default=(1, 2, 3), min_length=1, description="1-based")
    input: InputSpec
    normalization: Normalization = Normalization()
    gsd_m: float | None = Field(
        default=None, gt=0, description="ground metres a pixel that the model was trained at"
    )
    margin: int = Field(default=64, ge=0, description="overlap on each side of a core, pixels")
    thresholds: ModelThresholds = ModelThresholds()
    max_detections: int = Field(default=1000, ge=1, le=100_000, description="a window")
    licence: str = ""
    metrics: dict[str, float] = Field(default_factory=dict)
    training_data: str = ""

    @model_validator(mode="after")
    def _margin_leaves_a_core(self) -> ModelManifest:
        if self.input.size - 2 * self.margin < 8:
            raise ValueError(
                f"margin {self.margin} leaves no core in a window of {self.input.size} pixels"
            )
        return self
