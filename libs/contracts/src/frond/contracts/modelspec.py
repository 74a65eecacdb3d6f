"""``model.yaml``: what a model folder says of its graph."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from frond.contracts.drift import LEVELS, MOST_COUNTED, SCORE_BINS
from frond.contracts.jobs import MOST_FIGURE

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}$"
DIGEST_PREFIX_PATTERN: Final = r"^[0-9a-f]{8,64}$"
"""What names a version by its digest, and therefore is no alias."""
SERVED_PATTERN: Final = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,199}$"
"""Names and versions of models on a server: they become parts of its addresses."""
MIN_AREA: Final = 16
"""Scaled pixels: smaller regions of a segmentation give no polygon where ``decoder.params.min_area``
says nothing."""

_BASE_URL: Final = re.compile(
    r"https?://(?:(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?"
    r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*"
)


def is_alias(text: str) -> bool:
    """Whether an alias of a model may be called so: a reference has one meaning."""
    return bool(re.fullmatch(NAME_PATTERN, text)) and not re.fullmatch(DIGEST_PREFIX_PATTERN, text)


def base_url(text: str) -> str:
    """A server's base URL without its last slash; scheme and host in small letters.

    Raises:
        ValueError: it is none, or has a user, a query or ``/v2`` in it.
    """
    url = text.strip().rstrip("/")
    if len(url) > 500 or not _BASE_URL.fullmatch(url) or url.endswith("/v2"):
        raise ValueError(
            f"{text[:200]!r} is no base URL of a server: write http://host:port or "
            "https://host/path, without a user, a query or /v2"
        )
    parts = urlsplit(url)
    if parts.port == 0:  # which raises ValueError itself beyond 65535
        raise ValueError("0 is no port of a server")
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path}"


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


class ServerSpec(_Section):
    """A model that a server runs, in place of ``model.onnx``: the Open Inference Protocol v2 over
    HTTP (KServe, Triton, MLServer)."""

    url: Annotated[str, AfterValidator(base_url)] = Field(
        description="base URL, http or https; the protocol's v2/… comes after it"
    )
    model: str = Field(pattern=SERVED_PATTERN, description="its name on the server")
    version: str | None = Field(
        default=None, pattern=SERVED_PATTERN, description="None: whichever the server chooses"
    )
    timeout_s: float = Field(default=30.0, gt=0, le=600, description="for one answer")
    binary: bool | None = Field(
        default=None, description="binary tensors; None: where the server lists binary_tensor_data"
    )


class Reference(_Section):
    """What the training data looked like through this model's eyes; ``frond models reference``
    writes it. Live windows are compared with it (drift)."""

    bands: tuple[tuple[int, ...], ...] = Field(
        min_length=1,
        description="a histogram a band, in the order of the model's bands: the share of pixels by "
        "value, in parts of a million; 256 bins or a divisor of it",
    )
    scores: tuple[int, ...] = Field(
        default=(),
        description=f"the same of scores, {SCORE_BINS} bins from 0 to 1; empty: scores are not compared",
    )
    score: float = Field(default=0.0, ge=0, le=1, description="scores from here on were counted")
    images: int = Field(default=0, ge=0, description="that it was made of")
    windows: int = Field(ge=1, le=MOST_FIGURE, description="that it was made of")
    pixels: int = Field(ge=1, description="that it was made of, each of every band")
    found: int = Field(default=0, ge=0, description="scores that it was made of")
    windows_with_finds: int | None = Field(
        default=None,
        ge=0,
        description="those of these windows in which something was found; None: finds are not compared",
    )

    @model_validator(mode="after")
    def _finds_are_of_windows(self) -> Reference:
        if self.windows_with_finds is not None and self.windows_with_finds > self.windows:
            raise ValueError(
                f"windows_with_finds ({self.windows_with_finds}) are more than windows ({self.windows})"
            )
        return self

    @model_validator(mode="after")
    def _histograms_have_bins(self) -> Reference:
        for n, counts in enumerate(self.bands):
            if not counts or LEVELS % len(counts):
                raise ValueError(
                    f"histogram {n + 1} has {len(counts)} bins; {LEVELS} or a divisor of it is taken"
                )
        if self.scores and len(self.scores) != SCORE_BINS:
            raise ValueError(f"scores has {len(self.scores)} bins, not {SCORE_BINS}")
        for counts in (*self.bands, *([self.scores] if self.scores else [])):
            if min(counts) < 0 or not 0 < sum(counts) <= MOST_COUNTED:
                raise ValueError(
                    "a histogram holds counts of 0 and more, not zeros alone, and in all no more than "
                    f"{MOST_COUNTED}"
                )
        return self


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
    object_px: float | None = Field(
        default=None,
        gt=0,
        description="typical size of what it finds at gsd_m, pixels: the square root of a box's area; "
        "with it, the scale of an image without a GSD is estimated. None: it is not",
    )
    margin: int = Field(default=64, ge=0, description="overlap on each side of a core, pixels")
    thresholds: ModelThresholds = ModelThresholds()
    max_detections: int | None = Field(
        default=None, ge=1, le=100_000,
        description="a window's best so many are kept, and the others dropped; None: all are kept",
    )  # fmt: skip
    licence: str = ""
    metrics: dict[str, float] = Field(default_factory=dict)
    training_data: str = ""
    server: ServerSpec | None = Field(default=None, description="None: the folder's model.onnx")
    reference: Reference | None = Field(
        default=None, description="what drift is measured against; None: it is not"
    )

    @model_validator(mode="after")
    def _margin_leaves_a_core(self) -> ModelManifest:
        if self.input.size - 2 * self.margin < 8:
            raise ValueError(
                f"margin {self.margin} leaves no core in a window of {self.input.size} pixels"
            )
        return self

    @model_validator(mode="after")
    def _objects_are_boxes_in_a_window(self) -> ModelManifest:
        if self.object_px is None:
            return self
        if self.task != "detection":
            raise ValueError(f"object_px is a size of boxes, of which a {self.task} has none")
        if self.gsd_m is None:
            raise ValueError("object_px is a size at gsd_m, which is not set")
        if self.object_px > self.input.size / 2:
            raise ValueError(
                f"object_px {self.object_px:g} is more than half of a window of {self.input.size} pixels"
            )
        return self

    @model_validator(mode="after")
    def _reference_is_of_these_bands(self) -> ModelManifest:
        if self.reference is not None and len(self.reference.bands) != len(self.bands):
            raise ValueError(
                f"reference has histograms of {len(self.reference.bands)} bands; the model takes "
                f"{len(self.bands)}"
            )
        return self
