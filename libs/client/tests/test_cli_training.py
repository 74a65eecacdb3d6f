"""``frond training`` at a real door, with nobody there who trains."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from frond.client.cli import app
from frond.client.training import Training
from frond.contracts.jobs import ModelRef
from frond.contracts.training import TrainingStatus
from frond.models.trainings import Trainings
from frond.store import ObjectStore, StoreSettings

pytestmark = pytest.mark.stack
runner = CliRunner()
REF = ModelRef(name="palm-detector", digest="ab" * 32, version="2")


def frond(*words: str, code: int = 0) -> Result:
    done = runner.invoke(app, ["training", *words])
    assert done.exit_code == code, (words, done.output)
    return done


@pytest.fixture
def admin(door: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    made = runner.invoke(app, ["keys", "create", "--store", "--name", "first", "--scope", "admin"])
    monkeypatch.setenv("FROND_API_KEY", made.stdout.strip())
    yield


def set_to(env: dict[str, str], training_id: str, **fields: Any) -> None:
    """What a worker would do."""

    async def change() -> None:
        store = ObjectStore(
            StoreSettings(
                env["FROND_S3_ENDPOINT"], env["FROND_S3_ACCESS_KEY"], env["FROND_S3_SECRET_KEY"],
                env["FROND_S3_BUCKET"],
            )
        )  # fmt: skip
        await Trainings(store).change(training_id, lambda run, _: run.model_copy(update=fields))
        store.close()

    asyncio.run(change())


def test_a_run_from_start_to_end(
    admin: None, service_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for, listed, shown, waited for; what is next is said, and failure is exit code 1."""
    said = frond(
        "start", "palm-detector", "--recipe", "palm", "--minutes", "30", "--why", "a [red] sensor"
    )
    run_id = said.stdout.split()[-2]
    assert f"frond training show {run_id} --wait" in said.stdout
    shown = json.loads(frond("show", run_id, "--json").stdout)
    assert shown["status"] == "queued" and shown["overrides"]["minutes"] == 30
    listed = frond("list").stdout
    assert run_id in listed and "a [red] sensor" in listed
    moving = {"status": TrainingStatus.RUNNING, "step": 4, "steps": 9, "metrics": {"loss": 0.25}}
    set_to(service_env, run_id, **moving)
    told = frond("show", run_id).stdout
    assert "4/9" in told and "loss 0.25" in told and "minutes 30" in told

    done = {"status": TrainingStatus.SUCCEEDED, "result": REF, "ended": datetime.now(UTC)}
    look, looks = Training.show, itertools.count()

    def show(self: Training, training_id: str) -> dict[str, Any]:
        if next(looks) == 1:
            set_to(service_env, run_id, **done)
        return look(self, training_id)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "show", show)
        waited = frond("show", run_id, "--wait")
    assert "running 4/9" in waited.stderr
    assert f"frond models promote palm-detector {REF.digest[:12]}" in waited.stdout
    assert "has ended already" in frond("cancel", run_id, code=2).stderr


def test_what_goes_wrong(admin: None, service_env: dict[str, str]) -> None:
    """Refused with a sentence; cancelled at once while it waits; a failure says why."""
    assert "recipe" in frond("start", "palm-detector", "--recipe", "roofs", code=2).stderr
    wrong = frond("start", "x", "--recipe", "palm", "--alias", "production", code=2).stderr
    assert "promote" in wrong
    assert "There is no training" in frond("show", "0" * 32, code=2).stderr
    assert "There are no training runs" in frond("list").stdout
    started = json.loads(frond("start", "roofs", "--recipe", "palm-x", "--json").stdout)
    cancelled = frond("cancel", started["training_id"])
    assert cancelled.stdout.endswith("is cancelled.\n")
    assert "cancelled" in frond("show", started["training_id"], "--wait", code=1).stdout
    other = json.loads(frond("start", "roofs", "--recipe", "palm-x", "--json").stdout)
    assert other["training_id"] != started["training_id"]
    failed = {"status": TrainingStatus.FAILED, "detail": "The disk\x1b is full."}
    set_to(service_env, other["training_id"], **failed)
    shown = frond("show", other["training_id"], "--wait", code=1).stdout
    assert "The disk\\x1b is full." in shown
