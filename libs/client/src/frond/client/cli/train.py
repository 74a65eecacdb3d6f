"""train: a model of one's own, in training's own environment."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Final

import typer

from frond.client.errors import FrondClientError

ENVIRONMENT: Final = Path("training/.venv/bin/python")
_PACKAGE: Final = "frond.training"


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(
        "train",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        add_help_option=False,
    )(train)


def train(context: typer.Context) -> None:
    """palm, landcover: train a model on labelled images, judge it, push it to the registry."""
    python = environment(Path.cwd())
    # whoever reads its output and its exit code has the training itself
    os.execv(python, [python, "-m", _PACKAGE, *(context.args or ["--help"])])  # noqa: S606


def environment(start: Path) -> str:
    """The Python that has torch and the training package: this one, or the nearest upwards.

    Raises:
        FrondClientError: there is none.
    """
    if importlib.util.find_spec(_PACKAGE) is not None and importlib.util.find_spec("torch"):
        return sys.executable
    here = start.resolve()
    for folder in (here, *here.parents):
        found = folder / ENVIRONMENT
        if os.access(found, os.X_OK):
            return str(found)
    raise FrondClientError(
        "Training needs an environment of its own, with torch. `make train-env` in Frond's "
        "repository makes it (training/.venv, about 6 GB); run frond train there."
    )
