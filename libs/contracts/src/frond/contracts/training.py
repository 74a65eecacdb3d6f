"""Training runs: what is asked for, where it stands, how it ended."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from frond.contracts.jobs import Contract, ModelRef, Moment
from frond.contracts.modelspec import DIGEST_PREFIX_PATTERN, NAME_PATTERN
from frond.contracts.reasons import Reason

PRODUCTION: Final = "production"
"""The alias that no training moves: what jobs are given is for people to say."""
STAGING: Final = "staging"
TRAINING_ID_PATTERN: Final = r"^[0-9a-f]{32}$"
RECIPE_PATTERN: Final = r"^(palm|landcover)(-[a-z0-9][a-z0-9._-]{0,49})?$"
MOST_METRICS: Final = 100
_LONGEST_MINUTES: Final = 31 * 24 * 60.0


class TrainingStatus(StrEnum):
    """Where a training run stands; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    """Its version is in the registry, under the alias that was asked for."""
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in (
            TrainingStatus.SUCCEEDED, TrainingStatus.FAILED, TrainingStatus.CANCELLED,
        )  # fmt: skip


def _can_be_moved(alias: str) -> str:
    if alias == PRODUCTION:
        raise ValueError(
            "training moves no alias production; name another one, and promote the version once it "
            "has been judged"
        )
    # the registry would say so as well, once all is trained
    if re.fullmatch(DIGEST_PREFIX_PATTERN, alias):
        raise ValueError("it looks like a version's digest; name the alias otherwise")
    return alias


TrainedAlias = Annotated[
    str,
    Field(
        pattern=NAME_PATTERN,
        description="to point at the new version; never production: that is promoted on purpose",
    ),
    AfterValidator(_can_be_moved),
]


class TrainingOverrides(Contract):
    """What overrides the recipe's config; None leaves what it says."""

    # strict: true is no seed, and "12" no number
    minutes: float | None = Field(default=None, gt=0, le=_LONGEST_MINUTES, strict=True)
    steps: int | None = Field(default=None, ge=1, le=1_000_000_000, strict=True)
    seed: int | None = Field(default=None, ge=0, lt=1 << 32, strict=True)


class TrainingRequest(Contract):
    """A training run as it was asked for; none of this changes."""

    training_id: str = Field(pattern=TRAINING_ID_PATTERN)
    model: str = Field(pattern=NAME_PATTERN, description="the model that gets a version by it")
    recipe: str = Field(
        pattern=RECIPE_PATTERN,
        description="palm or landcover, or a config of one of them: palm-NAME, landcover-NAME",
    )
    overrides: TrainingOverrides = TrainingOverrides()
    why: str = Field(default="", max_length=2000)
    requested_by: str = Field(
        default="", max_length=300, description="whose key or token; drift: no person asked"
    )
    requested: Moment
    alias: TrainedAlias = STAGING


class TrainingRun(TrainingRequest):
    """A training run and where it stands: one object in the store, changed under its ETag alone."""

    status: TrainingStatus = TrainingStatus.QUEUED
    updated: Moment | None = Field(default=None, description="when a worker last said anything")
    started: Moment | None = None
    ended: Moment | None = None
    worker: str | None = Field(default=None, description="who trains: the only one that may")
    attempts: int = Field(
        default=0,
        ge=0,
        description="workers that took it up; one that was asked to end does not count",
    )
    cancelled_by: str | None = Field(
        default=None, description="who wants it to stop: its worker then ends it within seconds"
    )
    step: int | None = Field(default=None, ge=0)
    steps: int | None = Field(default=None, ge=0)
    metrics: Annotated[dict[str, float], Field(max_length=MOST_METRICS)] = Field(
        default_factory=dict, description="the newest ones; at the end those of the version"
    )
    result: ModelRef | None = Field(default=None, description="the version, once it succeeded")
    reason: Reason | None = None
    detail: str | None = Field(default=None, description="why it failed, for people")

    def request(self) -> TrainingRequest:
        """What was asked for, alone."""
        return TrainingRequest.model_validate(
            {name: getattr(self, name) for name in TrainingRequest.model_fields}
        )
