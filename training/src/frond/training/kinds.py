"""The kinds of models that can be trained, each a sub-package; torch comes with their tasks alone."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from frond.training.config import Config

if TYPE_CHECKING:
    from frond.training.loop import Task

KINDS: Final = ("palm", "landcover")


class Figures(NamedTuple):
    """How good a model is.

    Attributes:
        metrics: the figures to compare runs by, by name.
        told: all of them, as JSON.
    """

    metrics: dict[str, float]
    told: dict[str, Any]


def settings(kind: str) -> type[Config]:
    """``KIND.config.Settings``."""
    found: type[Config] = import_module(f"frond.training.{kind}.config").Settings
    return found


def prepare(kind: str, config: Config, folder: Path) -> str:
    """``KIND.data.prepare``: prepared data in ``folder``, made anew where its sources changed.

    Returns its digest: the same for the same sources, config and seed.
    """
    return str(import_module(f"frond.training.{kind}.data").prepare(config, folder))


def task(kind: str, config: Config, prepared: Path) -> Task:
    """``KIND.task.make``: what the loop trains, on prepared data."""
    made: Task = import_module(f"frond.training.{kind}.task").make(config, prepared)
    return made


def evaluate(kind: str, config: Config, prepared: Path, folder: Path) -> Figures:
    """``KIND.evaluate.evaluate``: judge the exported model in ``folder``.

    What comes of it (a threshold, metrics, tables) is written into its ``model.yaml`` and
    ``MODEL_CARD.md``. Needs no torch.
    """
    found = import_module(f"frond.training.{kind}.evaluate").evaluate(config, prepared, folder)
    return Figures(*found)
