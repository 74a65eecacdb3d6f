"""What the land cover model's training is told besides what every kind is."""

from __future__ import annotations

import math
from typing import Any, Final, Literal

from pydantic import Field, model_validator

from frond.training.config import Config

Architecture = Literal["unet", "linknet", "manet"]
ARCHITECTURES: Final[tuple[Architecture, ...]] = ("unet", "linknet", "manet")

CLASSES: Final = ("building", "road", "water", "vegetation")
BACKGROUND: Final = len(CLASSES)
"""The value in labels, and the channel, of what is none of the classes."""
IGNORED: Final = 255
"""The value in labels of pixels that neither teach nor count."""

WINDOW: Final = 512
MARGIN: Final = 64
INPUT, OUTPUT = "image", "probabilities"
"""Of the exported graph."""


class Settings(Config):
    """``configs/landcover.yaml``."""

    judging = frozenset({"reference_megapixels"})

    name: str = "landcover"
    description: str = (
        "Buildings, roads, water and vegetation as masks, in RGB imagery of about a metre a pixel."
    )
    steps: int = Field(default=2400, ge=1)
    batch: int = Field(default=8, ge=1)
    rate: float = Field(default=2e-3, gt=0)
    ema: float = Field(default=0.995, ge=0, lt=1)
    threads: int = Field(default=2, ge=1)
    architecture: Architecture = "unet"
    encoder: str = Field(
        default="tu-resnet18", description="of segmentation-models-pytorch; its weights are random"
    )
    widths: tuple[int, int, int, int] = Field(
        default=(32, 64, 96, 160), description="channels of the encoder's four stages"
    )
    stem: int = Field(default=16, ge=4, description="channels of the encoder's first layers")
    decoder: tuple[int, int, int, int] = Field(
        default=(96, 64, 48, 32),
        description="channels of U-Net's and MANet's decoder at a 16th, an 8th, a 4th and a half of "
        "the resolution",
    )
    stride: Literal[2, 4] = Field(
        default=4,
        description="input pixels to one of the output; at 4 the decoder's half is left out",
    )
    crop: int = Field(default=256, ge=64, multiple_of=32, description="side of a training crop")
    zoom: tuple[float, float] = Field(default=(0.5, 2.0), description="crops are scaled by")
    rare: float = Field(
        default=0.6, ge=0, le=1, description="share of crops that are centred on one of the classes"
    )
    weights: tuple[float, float, float, float, float] = Field(
        default=(1.5, 1.5, 1.0, 1.2, 0.8),
        description="of the classes and the background, in cross entropy",
    )
    dice: float = Field(
        default=1.0, ge=0, description="weight of the Dice loss beside cross entropy"
    )
    reference_megapixels: float = Field(
        default=20.0, gt=0, description="of training imagery that drift is measured against"
    )
    validation: tuple[str, ...] = Field(
        default=("tile2",), description="scenes that decide when to stop and which one ships"
    )
    test: tuple[str, ...] = Field(
        default=("tile5",), description="scenes that decide nothing and are only judged on"
    )

    @model_validator(mode="after")
    def _scenes_are_not_split(self) -> Settings:
        if both := set(self.validation) & set(self.test):
            raise ValueError(f"{sorted(both)[0]} is among validation and test")
        if len(set(self.held_out)) < len(self.held_out):
            raise ValueError("a scene is named twice in validation or test")
        if self.patience and not self.validation:
            raise ValueError("patience needs validation scenes: without them nothing gets better")
        if not 0 < self.zoom[0] <= self.zoom[1] < math.inf:
            raise ValueError("zoom is from the smallest to the largest, both above 0")
        if not all(0 < w < math.inf for w in self.weights):
            raise ValueError("weights are above 0")
        if min(*self.widths, *self.decoder) < 1:
            raise ValueError("widths and decoder are numbers of channels, 1 or more")
        return self

    @property
    def parts(self) -> dict[str, str]:
        """Scenes that are judged on, each with the part it plays."""
        return dict.fromkeys(self.validation, "validation") | dict.fromkeys(self.test, "test")

    @property
    def held_out(self) -> tuple[str, ...]:
        """Scenes of which nothing is learnt."""
        return (*self.validation, *self.test)

    def recipe(self) -> dict[str, Any]:
        """What decides the prepared data besides its sources."""
        return {}


def settings(config: Config) -> Settings:
    """The config as this kind's. Raises TypeError for another's."""
    if not isinstance(config, Settings):
        raise TypeError(f"{type(config).__name__} is no config of a land cover model")
    return config
