"""What a training run is told: a YAML file, checked; no torch is needed to read it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from frond.contracts.errors import FrondError, UserError
from frond.contracts.modelspec import NAME_PATTERN
from frond.contracts.reasons import Reason

C = TypeVar("C", bound="Config")

_ASIDE: Final = frozenset(
    {"data", "out", "run", "prepared", "track", "minutes", "loaders", "checkpoint_every"}
)
"""Fields that say where or how long, not what: two runs that differ in these are the same run."""
_SAID: Final = frozenset({"name", "version", "description", "licence", "training_data"})


class Config(BaseModel):
    """What every kind of model's training takes; kinds add fields of their own.

    Relative paths are relative to the working directory.
    """

    # a typing error in a hand-written file must not pass in silence
    model_config = ConfigDict(frozen=True, extra="forbid")

    judging: ClassVar[frozenset[str]] = frozenset()
    """A kind's fields that are of how a model is judged and told of, whatever it learnt."""

    name: str = Field(pattern=NAME_PATTERN, description="the model's name in the registry")
    version: str = Field(default="1", min_length=1, max_length=64)
    description: str = Field(description="what it finds, in a sentence")
    licence: str | None = Field(default=None, description="of the weights: as the data allows")
    training_data: str | None = Field(default=None, description="whose imagery it is, for the card")
    data: Path = Field(default=Path("../shared/data"), description="imagery and labels")
    out: Path | None = Field(default=None, description="the model's folder; None: RUN/model")
    run: Path | None = Field(
        default=None,
        description="checkpoints and logs; None: OUT.run beside OUT, else training/runs/NAME",
    )
    prepared: Path | None = Field(default=None, description="prepared data; None: RUN/prepared")
    track: str | None = Field(
        default=None, description="MLflow's tracking URI; None: beside the runs; 'off': a log alone"
    )
    seed: int = Field(default=7, ge=0, lt=1 << 32)
    steps: int = Field(ge=1)
    minutes: float | None = Field(default=None, gt=0, description="end by then, if it comes first")
    batch: int = Field(ge=1)
    rate: float = Field(gt=0, description="the highest learning rate, of AdamW")
    decay: float = Field(default=0.03, ge=0, description="weight decay, of matrices alone")
    warmup: int = Field(default=300, ge=1, description="steps until the rate is reached")
    clip: float = Field(default=5.0, gt=0, description="the gradient's largest norm")
    ema: float = Field(default=0.9985, ge=0, lt=1, description="what the averaged weights keep")
    bfloat16: bool = Field(default=True, description="forward passes in bfloat16")
    threads: int = Field(default=1, ge=1, description="torch's; another number, other last digits")
    loaders: int = Field(default=1, ge=0, description="processes that make batches; 0: none apart")
    validate_every: int = Field(default=0, ge=0, description="steps; 0: at the end alone")
    patience: int = Field(
        default=0,
        ge=0,
        description="stop after so many validations without a better score; 0: never",
    )
    checkpoint_every: int = Field(default=500, ge=1, description="steps")

    @property
    def run_folder(self) -> Path:
        if self.run is not None:
            return self.run
        if self.out is not None:
            return self.out.with_name(f"{self.out.name}.run")
        return Path("training/runs") / self.name

    @property
    def prepared_folder(self) -> Path:
        return self.prepared or self.run_folder / "prepared"

    @property
    def model_folder(self) -> Path:
        return self.out or self.run_folder / "model"

    def digest(self) -> str:
        """SHA-256 of all that decides which weights come out, besides the data."""
        told = self.model_dump(mode="json", exclude=set(_ASIDE))
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def learnt(self) -> dict[str, Any]:
        """The fields that what is learnt hangs on: others may change before it is judged again."""
        return self.model_dump(mode="json", exclude={*_ASIDE, *_SAID, *self.judging})


def read(kind: type[C], file: Path, **changed: Any) -> C:
    """A config from its file, with what the command line says in place of what it says.

    Raises:
        UserError: there is no such file, or a field is missing, unknown or out of range.
    """
    try:
        told = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise bad(f"{file} cannot be read: {' '.join(str(e).split())[:200]}") from None
    if not isinstance(told, dict):
        raise bad(f"{file} must be a mapping of fields (name, steps, batch, rate …).")
    told |= {k: v for k, v in changed.items() if v is not None}
    try:
        return kind.model_validate(told)
    except ValidationError as e:
        words = [f"{'.'.join(map(str, x['loc'])) or 'the whole'}: {x['msg']}" for x in e.errors()]
        raise bad(f"{file}: {'; '.join(words)[:800]}.") from None


class TrainingFailed(FrondError):
    """The run did not work, told in a sentence."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


def bad(sentence: str) -> UserError:
    """What was asked for cannot be."""
    return UserError(Reason.BAD_REQUEST, sentence)
