"""Whose a run is, by the clock of the worker that looks at it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from frond.contracts.ids import digest
from frond.contracts.training import TrainingRequest
from frond.models.registry import Registry
from frond.models.trainings import Trainings
from frond.training.worker import deciding
from frond.training.worker.trainer import Policy, Trainer
from support.services import open_store

pytestmark = pytest.mark.stack


async def test_only_silence_that_was_watched_counts(
    service_env: dict[str, str], tmp_path: Path
) -> None:
    """After an outage of the store whoever lives is given time to say so; who is dead is not given
    more than that."""
    store = open_store(service_env)
    trainings = Trainings(store)
    now = datetime.now(UTC)
    asked = await trainings.begin(
        TrainingRequest(training_id=digest("x"), model="m", recipe="palm", requested=now)
    )
    await trainings.change(
        asked.training_id,
        lambda run, _: deciding.taken(run, "other", now, abandoned=False, attempts=5),
    )
    at = 0.0
    policy = Policy(
        program=(), data=tmp_path, configs=tmp_path, out=tmp_path, lease_s=60, look_s=15
    )
    trainer = Trainer(trainings, Registry(store), policy, steady=lambda: at)
    for at in (0.0, 15.0, 30.0, 500.0, 515.0, 530.0, 545.0):
        assert await trainer.next() is None, at
    at = 560.0
    taken = await trainer.next()
    assert taken is not None and (taken.worker, taken.attempts) == (trainer.me, 2)
    store.close()
