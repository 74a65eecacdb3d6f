"""model.yaml and MODEL_CARD.md, as every kind writes them."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from frond.contracts.modelspec import ModelManifest
from frond.training import kinds
from frond.training.card import BEGIN, END


@pytest.fixture(params=kinds.KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def written(kind: str, folder: Path, **more: Any) -> str:
    """The card of a model that was not judged yet."""
    card = import_module(f"frond.training.{kind}.card")
    config = kinds.settings(kind).model_validate(more)
    card.write_manifest(folder, config, None)
    card.write_card(folder, config, None)
    return (folder / "MODEL_CARD.md").read_text()


def test_a_new_card_and_manifest(kind: str, tmp_path: Path) -> None:
    """Whose data and which licence; what nobody said is no null in the manifest."""
    text = written(kind, tmp_path, licence="CC0-1.0")
    assert text.startswith(f"# {kinds.settings(kind)().name}\n\n")
    assert f"frond train {kind}" in text
    assert text.endswith(
        f"{BEGIN}\n\n{END}\n\n## Training data and licence\n\nNot said.\n\n"
        "Licence of the weights: CC0-1.0.\n"
    )
    told = yaml.safe_load((tmp_path / "model.yaml").read_text())
    assert ModelManifest.model_validate(told).licence == "CC0-1.0"
    assert list(told)[:4] == ["name", "version", "task", "description"]
    assert "training_data" not in told and told["metrics"] == {}


@pytest.mark.parametrize("begin", [BEGIN, "<!-- figures: by an older command -->"])
def test_figures_go_between_the_marks(kind: str, tmp_path: Path, begin: str) -> None:
    """Whoever wrote the first mark; a card without marks has the figures at its end."""
    (tmp_path / "MODEL_CARD.md").write_text(f"Before.\n{begin}\nold\n{END}\nAfter.\n")
    assert written(kind, tmp_path) == f"Before.\n{BEGIN}\n\n{END}\nAfter.\n"
    (tmp_path / "MODEL_CARD.md").write_text("Mine.\n")
    assert written(kind, tmp_path) == f"Mine.\n\n{BEGIN}\n\n{END}"
