"""The land cover model that ships: it runs, and says of itself what was measured."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from frond.models.session import ModelSession
from frond.training.config import read
from frond.training.landcover.config import CLASSES, Settings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "models" / "landcover"


def test_it_runs() -> None:
    """Windows in, five planes each; black water and white sand are not the same to it."""
    session = ModelSession(FOLDER, threads=1)
    assert session.manifest.classes == CLASSES
    windows = [np.full((512, 512, 3), v, np.uint8) for v in (12, 230)]
    found = session.decode(session.run(windows), session.manifest.thresholds)
    water = CLASSES.index("water")
    dark, bright = (int(np.median(one.planes[water])) for one in found)
    assert dark > 128 > bright


@pytest.mark.parametrize("figure", ["iou", "dice"])
@pytest.mark.parametrize("scene", ["tile2 (validation)", "tile5 (test)"])
def test_card_and_manifest_tell_the_same(scene: str, figure: str) -> None:
    """Each class's figure and the mean of both scenes."""
    card = (FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8")
    metrics = ModelSession(FOLDER, threads=1).manifest.metrics
    row = re.search(
        rf"^\| {re.escape(scene)} \| {figure} \|(.*)\|$", card, re.MULTILINE | re.IGNORECASE
    )
    assert row is not None
    cells = [float(c) for c in row[1].split("|")[:5]]
    name = scene.partition(" ")[0]
    names = [*(f"{figure}_{c}_{name}" for c in CLASSES), f"{figure}_{name}"]
    assert cells == [round(metrics[n], 3) for n in names]


def test_the_config_is_that_of_the_shipped_model() -> None:
    """What `frond train landcover` is told by default holds out the scenes that the card tells of."""
    config = read(Settings, ROOT / "training" / "configs" / "landcover.yaml")
    assert config.parts == {"tile2": "validation", "tile5": "test"}
    assert config.architecture == "linknet"
    metrics = ModelSession(FOLDER, threads=1).manifest.metrics
    assert {f"iou_{name}" for name in config.parts} <= set(metrics)
