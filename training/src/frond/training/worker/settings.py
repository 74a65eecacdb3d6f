"""What the training worker reads from its environment."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Final

from pydantic import Field, field_validator, model_validator

from frond.contracts.modelspec import NAME_PATTERN
from frond.contracts.training import RECIPE_PATTERN
from frond.runtime import ServiceSettings

_DAY_S: Final = 24 * 3600.0
_FILE: Final = "sqlite:///"


class TrainingSettings(ServiceSettings):
    """Settings of the training worker."""

    training_data: Path = Field(
        default=Path("../shared/data"), description="imagery and labels, in place of the configs'"
    )
    training_configs: Path = Field(
        default=Path("training/configs"), description="NAME.yaml for each recipe and config"
    )
    training_out: Path = Field(
        default=Path(".frond/training"),
        description="checkpoints of what runs, and logs of what ran; a run that another worker "
        "began is gone on with only where both share it",
    )
    training_program: str = Field(
        default="", description="the command that trains; empty: python -m frond.training"
    )
    training_track: str = Field(
        default="",
        description="where experiments are tracked; empty: as the config says, and where that says "
        "nothing, mlflow.db and mlartifacts in the folder of all runs",
    )
    training_max_s: float = Field(
        default=_DAY_S, gt=0, description="how long one process may train; then its run has failed"
    )
    training_attempts: int = Field(
        default=5, ge=1, description="workers that may die at one run; then it has failed"
    )
    training_lease_s: float = Field(
        default=60.0, gt=0, description="how soon the run of a worker that died is taken up"
    )
    training_progress_s: float = Field(
        default=5.0, gt=0, description="how often progress is told, and a cancellation looked for"
    )
    training_look_s: float = Field(
        default=15.0, gt=0, description="how often an idle worker looks for runs"
    )
    training_stop_s: float = Field(
        default=10.0,
        gt=0,
        description="how long a process that is to end may take to keep its work",
    )
    training_on_drift: str = Field(
        default="", description="palm-detector:palm,…: models that drift has trained, and how"
    )
    training_drift_periods: int = Field(
        default=2, ge=1, description="drifted in succession, before a run is asked for"
    )
    training_rest_s: float = Field(
        default=7 * _DAY_S, gt=0, description="between two runs that drift of one version asks for"
    )

    @field_validator("training_on_drift")
    @classmethod
    def _readable(cls, value: str) -> str:
        recipes_of(value)
        return value

    @field_validator("training_program")
    @classmethod
    def _is_a_command(cls, value: str) -> str:
        shlex.split(value)
        return value

    @model_validator(mode="after")
    def _leases_outlast_silence(self) -> TrainingSettings:
        if self.training_lease_s < 3 * self.training_progress_s:
            raise ValueError(
                "FROND_TRAINING_LEASE_S must be 3 times FROND_TRAINING_PROGRESS_S or more"
            )
        if self.training_stop_s >= self.drain_s:
            raise ValueError("FROND_TRAINING_STOP_S must be less than FROND_DRAIN_S")
        return self

    @property
    def program(self) -> tuple[str, ...]:
        """The command that trains, without its arguments."""
        words = shlex.split(self.training_program)
        if not words:
            return sys.executable, "-m", "frond.training"
        # it begins in the run's folder, from where a relative path leads nowhere
        program = str(Path(words[0]).absolute()) if "/" in words[0] else words[0]
        return program, *words[1:]

    @property
    def track(self) -> str:
        """FROND_TRAINING_TRACK; a file's relative path is one from here, for the same reason."""
        scheme, found, path = self.training_track.partition(_FILE)
        return f"{_FILE}{Path(path).absolute()}" if found and not scheme else self.training_track

    @property
    def on_drift(self) -> dict[str, str]:
        """FROND_TRAINING_ON_DRIFT: recipe by model."""
        return recipes_of(self.training_on_drift)


def recipes_of(text: str) -> dict[str, str]:
    """``palm-detector:palm,…`` by model. Raises ValueError."""
    found: dict[str, str] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        model, colon, recipe = (s.strip() for s in part.partition(":"))
        if (
            not colon
            or not re.fullmatch(NAME_PATTERN, model)
            or not re.fullmatch(RECIPE_PATTERN, recipe)
            or model in found
        ):
            raise ValueError(f"{part!r}: write MODEL:RECIPE, each model once (palm-detector:palm)")
        found[model] = recipe
    return found
