"""One training loop for every kind of model.

A batch is a function of the seed and the step, and so is whatever else is random: a run that was
killed and goes on from its checkpoint ends with the weights of one that was not.
"""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from frond.training.checkpoint import State, load, save
from frond.training.config import Config, TrainingFailed
from frond.training.loading import batches

Arrays = tuple[NDArray[Any], ...]

_SMOOTH: Final = 0.98
_TELL_EVERY: Final = 10


class Task(Protocol):
    """What a kind of model adds to the loop. The loop alone moves and averages weights.

    Attributes:
        name: of the kind: ``palm``, ``landcover``.
    """

    name: str

    def batch(self, seed: int, step: int) -> Arrays:
        """A training batch, of ``config.batch`` items, the same for the same seed and step.

        Made by numpy alone, in a forked process: nothing of torch may be used, and nothing kept.
        """
        ...

    def model(self) -> nn.Module:
        """A fresh network; torch's seed is set before."""
        ...

    def loss(self, model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        """What to lower, as float32; ``batch`` is what :meth:`batch` made, as tensors."""
        ...

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Figures on the validation data; the higher ``score``, the better."""
        ...

    def export(self, model: nn.Module, folder: Path) -> None:
        """Write ``model.onnx`` (checked against torch), ``model.yaml`` and ``MODEL_CARD.md``."""
        ...


class Watcher(Protocol):
    """Is told how it goes."""

    def step(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        """``step`` of ``steps`` are done, or as much of the time as that."""
        ...

    def validated(self, step: int, metrics: Mapping[str, float]) -> None: ...


@dataclass(frozen=True)
class Trained:
    """What came out.

    Attributes:
        model: the averaged weights, those of the best validation where there are several.
        step: at which they were taken.
        steps: that were done.
        metrics: of their validation.
        digest: of the weights, see :func:`weights_digest`.
        ended: ``steps``, ``minutes`` or ``patience``.
    """

    model: nn.Module
    step: int
    steps: int
    metrics: dict[str, float]
    digest: str
    ended: str


class Interrupted(Exception):
    """Asked to stop; there is a checkpoint."""


def weights_digest(model: nn.Module) -> str:
    """SHA-256 over names, shapes and values of all weights and buffers."""
    whole = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        array = value.detach().cpu().contiguous().numpy()
        whole.update(f"{name} {array.dtype} {array.shape}\n".encode())
        whole.update(array.tobytes())
    return whole.hexdigest()


def train(
    task: Task,
    config: Config,
    data_digest: str,
    checkpoint: Path,
    *,
    watchers: Callable[[], list[Watcher]] = list,
    resume: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Trained:
    """Train until ``steps``, ``minutes`` or ``patience`` are over.

    The rate rises over ``warmup`` steps and falls to nothing by whichever end is nearer; only
    without ``minutes`` can a run be repeated to the same weights.

    Args:
        data_digest: of the prepared data; a checkpoint of other data is not gone on from.
        checkpoint: its file; replaced whole, never half.
        watchers: made once the processes that make batches have been forked.
        resume: go on from the checkpoint, if there is one.
        stop: asked after every step.

    Raises:
        UserError: the checkpoint is of another run.
        TrainingFailed: a batch could not be made, or the loss is no number.
        Interrupted: ``stop`` said so.
    """
    torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(True)
    run = hashlib.sha256(f"{config.digest()} {data_digest}".encode()).hexdigest()
    found = load(checkpoint, run) if resume else None
    start = found.step if found is not None else 0
    with batches(task.batch, config.seed, start, config.steps, config.loaders) as stream:
        told = watchers()
        torch.manual_seed(config.seed)
        net = task.model()
        state = State.fresh(net, _optimizer(net, config))
        if found is not None:
            state.take(found)
        else:
            checkpoint.unlink(missing_ok=True)
        began = time.monotonic() - state.spent
        limit = math.inf if config.minutes is None else 60 * config.minutes
        ended = "steps"

        def keep() -> None:
            state.spent = time.monotonic() - began
            save(checkpoint, run, state)

        while state.step < config.steps:
            if config.patience and state.since_best >= config.patience:
                ended = "patience"
                break
            done = max(state.step / config.steps, (time.monotonic() - began) / limit)
            if done >= 1:
                ended = "minutes"
                break
            _step(task, config, state, next(stream), done)
            at = state.step
            if at % _TELL_EVERY == 0 or at == config.steps:
                metrics = {"loss": state.loss, "rate": state.rate}
                # by minutes, the last step is not known
                steps = config.steps if config.minutes is None else max(at, round(at / done))
                for watcher in told:
                    watcher.step(at, min(steps, config.steps), metrics)
            if config.validate_every and at % config.validate_every == 0:
                _validate(task, state, told)
            if stop():
                keep()
                raise Interrupted
            if at % config.checkpoint_every == 0 and at < config.steps:
                keep()
        if state.validated != state.step:
            _validate(task, state, told)
        keep()
    best = copy.deepcopy(state.average)
    best.load_state_dict(state.best)
    best.eval()
    return Trained(
        best, state.best_step, state.step, state.best_metrics, weights_digest(best), ended
    )


def _optimizer(net: nn.Module, config: Config) -> torch.optim.Optimizer:
    matrices = [p for p in net.parameters() if p.ndim > 1]
    rest = [p for p in net.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": config.decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.rate)


def _step(task: Task, config: Config, state: State, arrays: Arrays, done: float) -> None:
    step, net = state.step, state.net
    net.train()
    warm = min(1.0, (step + 1) / max(1, min(config.warmup, config.steps // 5)))
    state.rate = config.rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
    for group in state.optimizer.param_groups:
        group["lr"] = state.rate
    # dropout and the like: the same after a resume
    torch.manual_seed(int(np.random.SeedSequence([config.seed, step]).generate_state(1)[0]))
    loss = task.loss(net, tuple(torch.from_numpy(a) for a in arrays))
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(net.parameters(), config.clip)
    state.optimizer.step()
    keep = min(config.ema, (1 + step) / (20 + step))
    with torch.no_grad():
        pairs = zip(state.average.state_dict().values(), net.state_dict().values(), strict=True)
        for mean, now in pairs:
            if mean.dtype.is_floating_point:
                mean.lerp_(now, 1 - keep)
            else:
                mean.copy_(now)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise TrainingFailed(f"The loss is {value} at step {step}. Lower the rate.")
    state.loss = value if step == 0 else _SMOOTH * state.loss + (1 - _SMOOTH) * value
    state.step += 1


def _validate(task: Task, state: State, told: list[Watcher]) -> None:
    state.average.eval()
    with torch.no_grad():
        metrics = task.validate(state.average)
    state.validated = state.step
    before = state.best_metrics.get("score", -math.inf)
    state.since_best = 0 if metrics["score"] > before else state.since_best + 1
    # of two as good, the one that has seen more
    if metrics["score"] >= before or not state.best:
        state.best = {k: v.clone() for k, v in state.average.state_dict().items()}
        state.best_step, state.best_metrics = state.step, dict(metrics)
    for watcher in told:
        watcher.validated(state.step, metrics)
