"""The loop: the same weights from the same seed, whoever was killed on the way."""

from __future__ import annotations

import math
import os
import resource
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training's own environment has it: make train-test")

from frond.contracts.errors import UserError  # noqa: E402
from frond.training.config import Config, TrainingFailed  # noqa: E402
from frond.training.loop import Interrupted, Trained, train  # noqa: E402


class Line:
    """Learns a line, with dropout, so that torch's own randomness has a part in it."""

    name = "line"

    def __init__(self, scores: list[float] | None = None, fails_at: int = -1) -> None:
        self.scores, self.fails_at = scores, fails_at
        self.validated = 0

    def batch(self, seed: int, step: int) -> tuple[np.ndarray, ...]:
        if step == self.fails_at:
            raise ValueError("no such tile")
        x = np.random.default_rng([seed, step]).normal(size=(8, 4)).astype(np.float32)
        return x, x.sum(axis=1, keepdims=True)

    def model(self) -> Any:
        return torch.nn.Sequential(
            torch.nn.Linear(4, 16), torch.nn.BatchNorm1d(16), torch.nn.Dropout(0.2),
            torch.nn.Linear(16, 1),
        )  # fmt: skip

    def loss(self, model: Any, batch: tuple[Any, ...]) -> Any:
        return ((model(batch[0]) - batch[1]) ** 2).mean()

    def validate(self, model: Any) -> dict[str, float]:
        assert not model.training
        self.validated += 1
        if self.scores is not None:
            return {"score": self.scores[min(self.validated, len(self.scores)) - 1]}
        x, y = self.batch(1, 0)
        return {"score": -float(((model(torch.from_numpy(x)) - torch.from_numpy(y)) ** 2).mean())}

    def export(self, model: Any, folder: Path) -> None:
        raise NotImplementedError


def config(**more: Any) -> Config:
    told = {
        "name": "line",
        "description": "a line through points",
        "steps": 30,
        "batch": 8,
        "rate": 0.01,
        "checkpoint_every": 7,
    }
    return Config.model_validate({**told, "loaders": 0, "validate_every": 10, **more})


def trained(folder: Path, task: Line | None = None, **more: Any) -> Trained:
    loop = {k: more.pop(k) for k in ("resume", "stop", "watchers") if k in more}
    return train(task or Line(), config(**more), "data", folder / "c.pt", **loop)


def after(steps: int) -> Any:
    left = iter(range(steps))
    return lambda: next(left, None) is None


def test_same_seed_same_weights(tmp_path: Path) -> None:
    """Twice the same, however batches are made; another seed, other weights."""
    digest = trained(tmp_path).digest
    assert trained(tmp_path).digest == digest
    assert trained(tmp_path, loaders=2).digest == digest
    assert trained(tmp_path, seed=8).digest != digest


@pytest.mark.parametrize("killed_after", [1, 7, 19, 28])
def test_a_resume_gives_the_weights_of_an_uninterrupted_run(
    tmp_path: Path, killed_after: int
) -> None:
    """Interrupted after any step, once or twice, the run ends with the same weights and figures."""
    whole = trained(tmp_path)
    (tmp_path / "killed").mkdir()
    for steps in (killed_after, 1):
        with pytest.raises(Interrupted):
            trained(tmp_path / "killed", resume=True, stop=after(steps - 1))
    again = trained(tmp_path / "killed", resume=True)
    assert (again.digest, again.metrics, again.step) == (whole.digest, whole.metrics, whole.step)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    """Other data or another rate cannot be gone on with; without resume, it begins anew."""
    trained(tmp_path)
    with pytest.raises(UserError, match="another config"):
        trained(tmp_path, rate=0.02, resume=True)
    with pytest.raises(UserError, match="another config"):
        train(Line(), config(), "other data", tmp_path / "c.pt", resume=True)
    assert trained(tmp_path, rate=0.02).steps == 30


def test_a_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    """Cut short, or nothing of ours: a sentence, with what to do."""
    trained(tmp_path)
    whole = (tmp_path / "c.pt").read_bytes()
    for raw in (whole[:2000], whole[:-100], b"", b"something else"):
        (tmp_path / "c.pt").write_bytes(raw)
        with pytest.raises(UserError, match="damaged"):
            trained(tmp_path, resume=True)


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    """And nothing beside it; the error is the disk's own, and the run can go on from there."""
    with pytest.raises(Interrupted):
        trained(tmp_path, stop=after(3))
    before = (tmp_path / "c.pt").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="large"):
            trained(tmp_path, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [f.name for f in tmp_path.iterdir()] == ["c.pt"]
    assert (tmp_path / "c.pt").read_bytes() == before
    trained(tmp_path, resume=True)


def test_resumed_when_it_was_over(tmp_path: Path) -> None:
    """Nothing is trained again, and the same comes out."""
    first = trained(tmp_path)
    seen: list[int] = []

    class Task(Line):
        def batch(self, seed: int, step: int) -> tuple[np.ndarray, ...]:
            seen.append(step)
            return super().batch(seed, step)

    assert trained(tmp_path, Task(scores=[0.0]), resume=True).digest == first.digest
    assert not seen


def test_early_stop_keeps_the_best_weights(tmp_path: Path) -> None:
    """After two validations without a better score it ends, with the weights of the best."""
    told = trained(tmp_path, Line(scores=[1, 3, 2, 1, 9]), validate_every=5, patience=2)
    assert (told.ended, told.step, told.steps, told.metrics) == ("patience", 10, 20, {"score": 3})


def test_minutes_end_it(tmp_path: Path) -> None:
    """A run told to last no time at all ends after a step or two, with weights."""
    told = trained(tmp_path, minutes=1e-9, steps=1000)
    assert told.ended == "minutes"
    assert told.steps < 5


def test_a_loss_that_is_no_number_ends_it(tmp_path: Path) -> None:
    """It is told, and with what to do."""

    class Task(Line):
        def loss(self, model: Any, batch: tuple[Any, ...]) -> Any:
            return super().loss(model, batch) * math.nan

    with pytest.raises(TrainingFailed, match="Lower the rate"):
        trained(tmp_path, Task())


@pytest.mark.parametrize("loaders", [1, 2])
def test_a_batch_that_cannot_be_made(tmp_path: Path, loaders: int) -> None:
    """What went wrong in the other process is told in this one."""
    with pytest.raises(TrainingFailed, match="no such tile"):
        trained(tmp_path, Line(fails_at=11), loaders=loaders)


def test_a_loader_that_is_killed_is_noticed(tmp_path: Path) -> None:
    """Nobody waits for ever for a process that is gone."""

    class Task(Line):
        def batch(self, seed: int, step: int) -> tuple[np.ndarray, ...]:
            if step == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().batch(seed, step)

    with pytest.raises(TrainingFailed, match="died"):
        trained(tmp_path, Task(), loaders=1)


def test_watchers_hear_of_steps_and_validations(tmp_path: Path) -> None:
    """Every tenth step and every validation, the last step among them."""

    class Heard:
        def __init__(self) -> None:
            self.steps: list[int] = []
            self.scores: list[int] = []

        def step(self, step: int, steps: int, metrics: Any) -> None:
            assert steps == 25
            assert set(metrics) == {"loss", "rate"}
            self.steps.append(step)

        def validated(self, step: int, metrics: Any) -> None:
            self.scores.append(step)

    heard = Heard()
    trained(tmp_path, steps=25, watchers=lambda: [heard])
    assert (heard.steps, heard.scores) == ([10, 20, 25], [10, 20, 25])
