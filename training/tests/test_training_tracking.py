"""A run in MLflow whose process was killed: nothing was told of its end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from training_support import SMALL

from frond.contracts.errors import UserError
from frond.training.palm.config import Settings
from frond.training.tracking import LOG_FILE, MLflow, tracker

mlflow = pytest.importorskip("mlflow", reason="training's own environment has it: make train-test")


def begun(folder: Path, *, resumed: bool = False, **more: Any) -> MLflow:
    """What a process begins, and never ends when it is killed."""
    folder.mkdir(exist_ok=True)
    config = Settings.model_validate({**SMALL, "run": folder, **more})
    return MLflow("palm", config, {"config": config.digest()}, resumed=resumed)


def states(store: Path) -> list[str]:
    """Of all runs in a store, the first one first."""
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{store}")
    experiment = client.get_experiment_by_name("palm-detector")
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"])
    return [r.info.status for r in runs]


def test_no_run_goes_on_for_ever(tmp_path: Path) -> None:
    """A resume goes on with it; whoever begins anew in its folder ends it, and no other one."""
    ours, store = tmp_path / "r", tmp_path / "mlflow.db"
    begun(tmp_path / "neighbour")
    begun(ours)
    begun(ours, resumed=True)
    assert states(store) == ["RUNNING", "RUNNING"]
    begun(ours).ended("FINISHED")
    assert states(store) == ["RUNNING", "KILLED", "FINISHED"]
    elsewhere = tmp_path / "other.db"
    begun(ours)
    assert states(store) == ["RUNNING", "KILLED", "FINISHED", "RUNNING"]
    begun(ours, resumed=True, track=f"sqlite:///{elsewhere}")
    assert states(store) == ["RUNNING", "KILLED", "FINISHED", "KILLED"]
    assert states(elsewhere) == ["RUNNING"]


def test_two_that_begin_at_the_same_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither finds the model's experiment, and one of them makes it: both are kept in it."""
    begun(tmp_path / "one")
    found = mlflow.MlflowClient.get_experiment_by_name
    answers = [lambda *_: None, found]
    monkeypatch.setattr(
        mlflow.MlflowClient, "get_experiment_by_name", lambda *a: answers.pop(0)(*a)
    )
    begun(tmp_path / "other")
    monkeypatch.undo()
    assert states(tmp_path / "mlflow.db") == ["RUNNING", "RUNNING"]


def test_runs_that_make_their_store_together(tmp_path: Path) -> None:
    """Workers that share a folder begin at once where nothing is yet: all are kept."""
    code = "import sys, test_training_tracking as t; t.begun(t.Path(sys.argv[1]))"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    every = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path / str(n)], env=env) for n in range(3)
    ]
    assert [p.wait(120) for p in every] == [0, 0, 0]
    assert states(tmp_path / "mlflow.db") == ["RUNNING"] * 3


def test_away_when_a_run_is_gone_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It costs the figures alone, and is told; where nothing is done yet, the run is refused."""
    config = Settings.model_validate({**SMALL, "run": tmp_path, "track": "http://127.0.0.1:9"})
    with pytest.raises(UserError, match="does not take the run"):
        tracker("palm", config, {}, None)
    kept = tracker("palm", config, {}, 4)
    assert "does not take the run" in capsys.readouterr().err
    kept.step(6, 6, {"loss": 0.5})
    kept.ended("FINISHED")
    lines = (tmp_path / LOG_FILE).read_text().splitlines()
    assert [json.loads(x) for x in lines][-2:] == [
        {"step": 6, "steps": 6, "loss": 0.5}, {"ended": "FINISHED"},
    ]  # fmt: skip


def test_a_store_that_is_gone(tmp_path: Path) -> None:
    """It is not made anew to ask of a run that was in it, and the next run begins."""
    gone = tmp_path / "gone.db"
    begun(tmp_path / "r", track=f"sqlite:///{gone}")
    gone.unlink()
    begun(tmp_path / "r")
    assert not gone.exists()
    assert states(tmp_path / "mlflow.db") == ["RUNNING"]
