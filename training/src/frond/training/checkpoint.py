"""The state of a run, and its file: written beside the old one, synced, renamed over it."""

from __future__ import annotations

import copy
import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import torch
from torch import Tensor, nn

from frond.training.config import bad

_FORMAT: Final = 1
_PLAIN: Final = (
    "step", "spent", "loss", "rate", "best", "best_step", "best_metrics", "since_best", "validated",
)  # fmt: skip


@dataclass
class State:
    """All that the next step depends on, and the best weights so far.

    Attributes:
        average: the moving average of ``net``: what is validated, exported and kept as best.
        spent: seconds.
        loss: smoothed.
        since_best: validations since the best one.
        validated: the step of the last validation; −1: none.
    """

    net: nn.Module
    average: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0
    spent: float = 0.0
    loss: float = 0.0
    rate: float = 0.0
    best: dict[str, Tensor] = field(default_factory=dict)
    best_step: int = 0
    best_metrics: dict[str, float] = field(default_factory=dict)
    since_best: int = 0
    validated: int = -1

    @classmethod
    def fresh(cls, net: nn.Module, optimizer: torch.optim.Optimizer) -> Self:
        return cls(net, copy.deepcopy(net).eval(), optimizer)

    def take(self, kept: Kept) -> None:
        """Become what was kept."""
        self.net.load_state_dict(kept.told["net"])
        self.average.load_state_dict(kept.told["average"])
        self.optimizer.load_state_dict(kept.told["optimizer"])
        for name in _PLAIN:
            setattr(self, name, kept.told[name])


@dataclass(frozen=True)
class Kept:
    """A checkpoint as it was read."""

    told: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.told["step"])


def save(file: Path, run: str, state: State) -> None:
    """Replace the checkpoint; whoever is killed meanwhile leaves the old one, and so does a full disk."""
    told = {name: getattr(state, name) for name in _PLAIN}
    told |= {"format": _FORMAT, "run": run, "net": state.net.state_dict()}
    told |= {"average": state.average.state_dict(), "optimizer": state.optimizer.state_dict()}
    whole = io.BytesIO()
    # torch's writer says "unexpected pos" of a full disk
    torch.save(told, whole)
    fresh = file.with_name(f".{file.name}.new")
    try:
        with fresh.open("wb") as out:
            out.write(whole.getbuffer())
            out.flush()
            os.fsync(out.fileno())
        fresh.replace(file)
    finally:
        fresh.unlink(missing_ok=True)


def load(file: Path, run: str) -> Kept | None:
    """The checkpoint of this run; None where there is none.

    Raises:
        UserError: it is of other data or another config, or damaged.
    """
    if not file.is_file():
        return None
    told = _read(file)
    if told.get("format") != _FORMAT or told.get("run") != run:
        raise bad(
            f"{file} is of a run with another config, seed or data. Run with those again, or "
            "without --resume, which begins anew."
        )
    return Kept(told)


def steps_done(file: Path) -> int | None:
    """How far a checkpoint is; None where there is none."""
    return int(_read(file)["step"]) if file.is_file() else None


def _read(file: Path) -> dict[str, Any]:
    raw = file.read_bytes()
    try:
        told = torch.load(io.BytesIO(raw), weights_only=True)
    except Exception:
        # of damaged bytes the unpickler raises whatever it stumbles over
        told = None
    if not isinstance(told, dict):
        raise bad(f"{file} is damaged. Run without --resume, which begins anew.")
    return told
