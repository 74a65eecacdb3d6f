"""Drift, watched: what it asks for becomes a run as any other, under an id that is the same twice."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from frond.contracts import keys
from frond.contracts.errors import ModelRejected, ObjectMissing
from frond.contracts.events import DriftObserved
from frond.contracts.ids import digest
from frond.contracts.training import PRODUCTION, TrainingRequest, TrainingRun
from frond.models.registry import Registry
from frond.models.trainings import Trainings
from frond.runtime import get_logger
from frond.store import ObjectStore
from frond.training.worker.drifted import DriftState, Policy, after

BY: Final = "drift"
_MOST_BYTES: Final = 1 << 16
_log = get_logger(__name__)


class DriftWatch:
    """Asks for training where a version in production has drifted.

    Args:
        recipes: by model; others are not looked at.
    """

    def __init__(
        self,
        store: ObjectStore,
        trainings: Trainings,
        registry: Registry,
        recipes: Mapping[str, str],
        policy: Policy,
    ) -> None:
        self._store = store
        self._trainings = trainings
        self._registry = registry
        self._recipes = recipes
        self._policy = policy

    async def saw(self, event: DriftObserved) -> TrainingRun | None:
        """The run that a period asks for, stored; None: it asks for none."""
        recipe = self._recipes.get(event.model.name)
        if recipe is None or not await self._in_production(event):
            return None
        key = keys.training_drift(event.model.digest)
        while True:
            now = datetime.now(UTC)
            etag, state = await self._read(key)
            changed, asks = after(state, event, self._policy, now)
            if changed == state:
                return None
            # before it is noted that it was asked for: killed in between, the same one is asked for
            run = await self._ask(event, recipe, state, now) if asks else None
            data = changed.model_dump_json().encode()
            if etag:
                done = await self._store.replace(key, data, etag)
            else:
                done = await self._store.put_if_absent(key, data) == data
            if done:
                return run

    async def _ask(
        self, event: DriftObserved, recipe: str, state: DriftState, now: datetime
    ) -> TrainingRun:
        before = state.asked.isoformat() if state.asked else ""
        run = await self._trainings.begin(
            TrainingRequest(
                training_id=digest("training", BY, event.model.digest, before),
                model=event.model.name, recipe=recipe, requested_by=BY, requested=now,
                why=f"{event.model.name} {event.model.digest[:12]} has drifted for "
                f"{self._policy.periods} periods in succession, the last one until "
                f"{event.ended:%Y-%m-%d %H:%M}Z",
            )
        )  # fmt: skip
        _log.warning(
            "drift asks for training", training_id=run.training_id, model=run.model,
            digest=event.model.digest,
        )  # fmt: skip
        return run

    async def _in_production(self, event: DriftObserved) -> bool:
        try:
            ref = await self._registry.resolve(f"{event.model.name}@{PRODUCTION}")
        except ModelRejected:
            return False
        return ref.digest == event.model.digest

    async def _read(self, key: str) -> tuple[str, DriftState]:
        """With its ETag; "": it is not there. One that cannot be read is as good as none."""
        try:
            stat, raw = await self._store.head_bytes(key, _MOST_BYTES)
        except ObjectMissing:
            return "", DriftState()
        try:
            return stat.etag, DriftState.model_validate_json(raw)
        except ValueError:
            return stat.etag, DriftState()
