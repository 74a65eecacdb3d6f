"""What may become of a run, and who may say so. No clock, no store, no process."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from frond.contracts.jobs import ModelRef
from frond.contracts.reasons import Reason
from frond.contracts.training import MOST_METRICS, PRODUCTION, TrainingRun, TrainingStatus
from frond.contracts.visible import visible

AWAY: Final = 75
"""Exit code of a process that what it needs does not answer: it may be gone on with later."""

_MOST_STEPS: Final = 1 << 53
_NAME: Final = 100
_DETAIL: Final = 500
_LARGEST: Final = 1e300


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a process is."""

    step: int | None = None
    steps: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ends."""

    status: TrainingStatus
    result: ModelRef | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    reason: Reason | None = None
    detail: str | None = None


class _Outcome(BaseModel):
    """The last line that a process writes to stdout."""

    model_config = ConfigDict(extra="ignore")

    model: str
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    version: str = Field(default="", max_length=200)
    alias: str
    metrics: dict[str, Any] = Field(default_factory=dict)


def failed(detail: str, reason: Reason = Reason.TRAINING_FAILED) -> Ending:
    return Ending(TrainingStatus.FAILED, reason=reason, detail=visible(detail)[:_DETAIL])


def other_model(run: TrainingRun, name: str) -> Ending:
    """The recipe is of another model than the run asks for."""
    return failed(
        f"Recipe {run.recipe} trains {name}, and the run asks for {run.model}. Ask for that model, or "
        "give the recipe's config its name."
    )


CANCELLED: Final = Ending(TrainingStatus.CANCELLED)


def taken(
    run: TrainingRun, me: str, now: datetime, *, abandoned: bool, attempts: int
) -> TrainingRun | None:
    """A run as this worker takes it up, or ends it in place of one that died; None: it is not ours.

    Args:
        abandoned: whoever has it has said nothing for as long as its lease.
    """
    theirs = run.status is TrainingStatus.RUNNING and run.worker != me
    if run.status.final or (theirs and not abandoned):
        return None
    mine = run.model_copy(
        update={
            "status": TrainingStatus.RUNNING, "worker": me, "attempts": run.attempts + 1,
            "started": run.started or now, "updated": now,
        }
    )  # fmt: skip
    if run.cancelled_by is not None:
        return ended(mine, mine, CANCELLED, now)
    if run.attempts >= attempts:
        why = (
            f"{run.attempts} workers died while they trained it; the worker's machine may have too "
            "little memory. Its log says more."
        )
        return ended(mine, mine, failed(why), now)
    return mine


def holds(run: TrainingRun, mine: TrainingRun) -> bool:
    """Whether a run is still that of whoever took it up as ``mine``."""
    return (run.status, run.worker, run.attempts) == (
        TrainingStatus.RUNNING, mine.worker, mine.attempts,
    )  # fmt: skip


def told(
    run: TrainingRun, mine: TrainingRun, progress: Progress, now: datetime
) -> TrainingRun | None:
    """A run with its newest progress; None: it is somebody else's now."""
    if not holds(run, mine):
        return None
    changed: dict[str, Any] = {"updated": now}
    if progress.step is not None:
        changed |= {"step": progress.step, "steps": progress.steps}
    if progress.metrics:
        changed["metrics"] = progress.metrics
    return run.model_copy(update=changed)


def ended(run: TrainingRun, mine: TrainingRun, how: Ending, now: datetime) -> TrainingRun | None:
    """A run as it ended; None: it is somebody else's now."""
    if not holds(run, mine):
        return None
    return run.model_copy(
        update={
            "status": how.status, "updated": now, "ended": now, "result": how.result,
            "metrics": how.metrics or run.metrics, "reason": how.reason, "detail": how.detail,
        }
    )  # fmt: skip


def released(run: TrainingRun, mine: TrainingRun, now: datetime) -> TrainingRun | None:
    """A run whose worker was asked to end, or whose process found the store away: whoever takes it up
    goes on with it. None: as :func:`ended`."""
    if not holds(run, mine):
        return None
    if run.cancelled_by is not None:
        return ended(run, mine, CANCELLED, now)
    return run.model_copy(
        update={
            "status": TrainingStatus.QUEUED, "worker": None, "attempts": run.attempts - 1,
            "updated": now,
        }
    )  # fmt: skip


def command(
    run: TrainingRun, program: Sequence[str], config: Path, data: Path, folder: Path, *,
    resume: bool, track: str = "",
) -> list[str]:  # fmt: skip
    """The whole command that trains a run.

    Args:
        folder: the run's own, in that of all runs; it goes when the run has ended.

    Raises:
        ValueError: it would move ``production``; no contract lets such a run through.
    """
    if run.alias == PRODUCTION:
        raise ValueError("training moves no alias production")
    recipe = run.recipe.partition("-")[0]
    words = [
        *program, recipe, "--config", str(config), "--data", str(data),
        # what lies beside the runs, as MLflow's store does, outlives them
        "--run", str(folder), "--out", str(folder / "model"), "--push", run.alias,
        "--progress-file", str(folder / "progress"),
    ]  # fmt: skip
    for name in ("minutes", "steps", "seed"):
        value = getattr(run.overrides, name)
        if value is not None:
            words += [f"--{name}", str(value)]
    if track:
        words += ["--track", track]
    # data or config may have changed since; who would drop --resume then is not there to be asked
    return words + (["--resume", "--or-anew"] if resume else [])


def ending_of(run: TrainingRun, code: int, last: bytes, said: str) -> Ending | None:
    """What a process's end means; None: the run has not ended, an outage is in its way.

    Args:
        code: its exit code; negative: the signal that killed it.
        last: the last line of its stdout.
        said: the last line of its stderr.
    """
    if code == AWAY:
        return None
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        more = " The machine may have too little memory." if -code == signal.SIGKILL else ""
        return failed(f"The process that trained was killed ({name}).{more}")
    if code:
        return failed(said or f"The process that trained ended with exit code {code}.")
    try:
        outcome = _Outcome.model_validate_json(last)
    except (ValidationError, ValueError):
        return failed("The process that trained ended without saying which version it made.")
    if outcome.model != run.model:
        return other_model(run, outcome.model)
    if outcome.alias != run.alias:
        return failed(f"The version was pushed as {outcome.alias!r}, not as {run.alias!r}.")
    ref = ModelRef(name=outcome.model, digest=outcome.digest, version=outcome.version)
    return Ending(TrainingStatus.SUCCEEDED, ref, finite(outcome.metrics))


def progress_of(text: bytes) -> Progress | None:
    """What a progress file says: ``{"step": …, "steps": …, "metrics": {…}}``, one object or one a
    line, of which the last readable one counts. None: nothing yet, or it is being written."""
    for line in (text, *reversed(text.splitlines())):
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            return Progress(
                _count(found.get("step")), _count(found.get("steps")),
                finite(found.get("metrics")),
            )  # fmt: skip
    return None


def finite(metrics: object) -> dict[str, float]:
    """Those of the metrics that are numbers: JSON has no NaN, and a run has a hundred at most."""
    if not isinstance(metrics, dict):
        return {}
    kept = {
        visible(str(k))[:_NAME]: float(v)
        for k, v in metrics.items()
        if isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < _LARGEST
    }
    return dict(list(kept.items())[:MOST_METRICS])


def _count(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value < _MOST_STEPS else None
