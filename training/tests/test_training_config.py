"""Configs are checked, and their digest tells runs apart by what they train, not by where."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from frond.contracts.errors import UserError
from frond.training import kinds
from frond.training.config import read

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_what_ships_can_be_read(kind: str) -> None:
    """The config of each kind is one, and its model's name is that of the shipped model."""
    told = read(kinds.settings(kind), CONFIGS / f"{kind}.yaml")
    assert told.name in ("palm-detector", "landcover")


def test_a_misspelt_field_is_told(tmp_path: Path) -> None:
    """A typing error does not pass in silence."""
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump({"steps": 3, "lerning_rate": 1}))
    with pytest.raises(UserError, match="lerning_rate"):
        read(kinds.settings("palm"), file)
    file.write_text("- 1")
    with pytest.raises(UserError, match="mapping"):
        read(kinds.settings("palm"), file)
    with pytest.raises(UserError, match="cannot be read"):
        read(kinds.settings("palm"), tmp_path / "none.yaml")


def test_the_digest_is_of_what_is_trained(tmp_path: Path) -> None:
    """Another folder or more loaders: the same run. Another seed or rate: another one."""
    file = tmp_path / "c.yaml"
    file.write_text("steps: 3\n")
    kind = kinds.settings("palm")
    plain = read(kind, file)
    assert read(kind, file, out="elsewhere", data="there", loaders=3).digest() == plain.digest()
    assert read(kind, file, seed=8).digest() != plain.digest()
    assert read(kind, file, rate=0.1).digest() != plain.digest()
    assert read(kind, file, gsd_m=0.1).digest() != plain.digest()


def test_what_a_model_is_judged_by_is_not_what_it_learnt(tmp_path: Path) -> None:
    """Its licence, its name, how many scenes are drawn to judge it: known later. Which scenes were held
    out, or the rate: not."""
    file = tmp_path / "c.yaml"
    file.write_text("steps: 3\n")
    palm, landcover = (read(kinds.settings(k), file) for k in ("palm", "landcover"))
    later = {"licence": "CC0-1.0", "version": "3", "training_data": "ours", "data": Path("there")}
    for config, more in (
        (palm, {"full": False, "judged_scenes": 2, "gsd_m": 0.1, "minutes": 4.0}),
        (landcover, {"reference_megapixels": 3.0}),
    ):
        assert config.model_copy(update={**later, **more}).learnt() == config.learnt()
        assert config.judging <= set(type(config).model_fields)
        assert config.model_copy(update={"rate": 0.1}).learnt() != config.learnt()
    assert landcover.model_copy(update={"test": ("tile1",)}).learnt() != landcover.learnt()


def test_what_ships_is_still_of_the_same_config() -> None:
    """A field that came later and is not set changes no digest: checkpoints and run.json name it."""
    digest = read(kinds.settings("palm"), CONFIGS / "palm.yaml").digest()
    assert digest.startswith("7c7c8cace0fc")


def test_where_a_run_keeps_its_things(tmp_path: Path) -> None:
    """Beside the model's folder where that is told, else under training/runs."""
    file = tmp_path / "c.yaml"
    file.write_text("steps: 3\n")
    kind = kinds.settings("palm")
    assert read(kind, file).run_folder == Path("training/runs/palm-detector")
    told = read(kind, file, out="models/mine")
    assert (told.run_folder, told.model_folder) == (Path("models/mine.run"), Path("models/mine"))
    assert read(kind, file, run="r").model_folder == Path("r/model")
