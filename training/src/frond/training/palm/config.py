"""What the palm detector's training is told besides what every kind is."""

from __future__ import annotations

from typing import Any, Final, Self

from pydantic import Field, model_validator

from frond.training.config import Config

DESCRIPTION: Final = "Oil and coconut palms in aerial RGB{gsd}; boxes of the crown."
_SHARED: Final = "Oil palm tree R2"
"""Of the shared data alone; ``configs/palm.yaml`` names it in ``training_data``."""


class Settings(Config):
    """``configs/palm.yaml``."""

    judging = frozenset({"judged_scenes", "reference_megapixels", "gsd_m", "full"})

    name: str = "palm-detector"
    description: str = DESCRIPTION.format(gsd=" of about 0.14 m")
    steps: int = Field(default=9000, ge=1)
    batch: int = Field(default=16, ge=1)
    rate: float = Field(default=2e-3, gt=0)
    background: float = Field(default=0.22, ge=0, lt=1, description="share of crops without a palm")
    drawn: float = Field(default=0.12, ge=0, lt=1, description="share of crops of drawn scenes")
    scenes: int = Field(default=240, ge=0, description="drawn scenes to cut crops from")
    judged_scenes: int = Field(
        default=40, ge=1, description="drawn scenes to judge by, of other seeds"
    )
    mixed: float = Field(default=0.2, ge=0, le=1, description="share of crops with another's strip")
    ironwork: float = Field(
        default=0.15, ge=0, le=1, description="share of the background's crops with bars drawn over"
    )
    validation_megapixels: float = Field(
        default=12.0, gt=0, description="of the validation parts, while training goes on"
    )
    reference_megapixels: float = Field(
        default=20.0,
        ge=0,
        description="of training imagery that drift is measured against; 0: none",
    )
    gsd_m: float | None = Field(
        default=None,
        gt=0,
        # what was trained before there was this field is still of the same config
        exclude_if=lambda given: given is None,
        description="ground metres a pixel of labelled images of one's own that do not say it",
    )
    full: bool = Field(default=True, description="judge at other scales and on the test too")

    @model_validator(mode="after")
    def _some_palms(self) -> Self:
        if self.background + self.drawn >= 1:
            raise ValueError("background and drawn together leave no share for crops of palms")
        return self

    @property
    def tells_of_the_shared_data(self) -> bool:
        """Whether ``licence`` and ``training_data`` are those of what ships."""
        return _SHARED in (self.training_data or "")

    def recipe(self) -> dict[str, Any]:
        """What decides the prepared data besides its sources."""
        return {"seed": self.seed, "scenes": self.scenes}
