"""The land cover networks: shapes, loss, a short training, export, comparison."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from landcover_scenes import drawn, write

torch = pytest.importorskip("torch", reason="training's own environment has torch")
pytest.importorskip("segmentation_models_pytorch", reason="training's own environment has it")

from frond.contracts.errors import UserError  # noqa: E402
from frond.models.session import ModelSession  # noqa: E402
from frond.training.landcover import compare  # noqa: E402
from frond.training.landcover.config import ARCHITECTURES, IGNORED, Architecture, Settings  # noqa: E402
from frond.training.landcover.data import prepare, scenes, split  # noqa: E402
from frond.training.landcover.model import Deployed, loss, network  # noqa: E402
from frond.training.landcover.task import make  # noqa: E402
from frond.training.loop import Interrupted, train  # noqa: E402
from frond.training.prepared import Store  # noqa: E402

SMALL = {
    "widths": (8, 8, 8, 8), "stem": 4, "decoder": (8, 8, 8, 8), "crop": 64, "batch": 2, "threads": 1,
    "loaders": 0, "validation": ("b",), "test": ("c",), "warmup": 1,
}  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for k, name in enumerate("abc"):
        write(drawn(name, k), tmp_path / "data")
    return tmp_path / "data"


def settings(root: Path, **more: object) -> Settings:
    return Settings.model_validate({"data": root, "steps": 2, **SMALL, **more})


@pytest.mark.parametrize("stride", [2, 4])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_probabilities(architecture: Architecture, stride: int, tmp_path: Path) -> None:
    """Each architecture: uint8 pixels in, five probabilities that add up to 1, more coarsely."""
    net = network(settings(tmp_path, architecture=architecture, stride=stride)).eval()
    with torch.no_grad():
        p = Deployed(net)(torch.randint(0, 256, (2, 96, 96, 3), dtype=torch.uint8))
    side = 96 // stride
    assert p.shape == (2, 5, side, side)
    assert torch.allclose(p.sum(1), torch.ones(2, side, side), atol=1e-5)


@pytest.mark.parametrize("encoder", ["tu-resnet18000", "resnet18000", "tu-mobilenetv3_small_050"])
def test_encoders_that_cannot_be_used_are_named(encoder: str, tmp_path: Path) -> None:
    """One that nobody knows, or that takes no widths, is told in a sentence with a way out."""
    with pytest.raises(UserError, match=f"{encoder}.*Name one of") as e:
        network(settings(tmp_path, encoder=encoder))
    assert "\n" not in e.value.detail


def test_loss_falls_with_truth_and_leaves_out_what_is_ignored() -> None:
    """Right logits cost less than wrong ones; an ignored pixel costs the same whatever is said."""
    labels = torch.full((1, 8, 8), 4, dtype=torch.uint8)
    labels[:, :4] = 1
    labels[:, 6:] = IGNORED
    weights = torch.ones(5)
    right = torch.zeros(1, 5, 4, 4)
    right[:, 1, :2], right[:, 4, 2:] = 9, 9
    wrong = right.roll(1, 1)
    assert loss(right, labels, weights, 1.0) < loss(wrong, labels, weights, 1.0) - 1
    # at the labels' own resolution nothing is interpolated across the border
    full = torch.zeros(1, 5, 8, 8)
    full[:, 1, :4], full[:, 4, 4:] = 9, 9
    other = full.clone()
    other[:, :, 6:] = torch.randn(1, 5, 2, 8)
    assert torch.equal(loss(full, labels, weights, 1.0), loss(other, labels, weights, 1.0))
    everything = torch.full((1, 8, 8), IGNORED, dtype=torch.uint8)
    assert torch.isfinite(loss(full, everything, weights, 1.0))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_trained_exported_and_read_by_the_product(
    root: Path, tmp_path: Path, architecture: Architecture
) -> None:
    """Two steps by the loop; the folder that comes out loads as a model and tells windows apart."""
    config = settings(root, architecture=architecture)
    digest = prepare(config, tmp_path / "prepared")
    task = make(config, tmp_path / "prepared")
    trained = train(task, config, digest, tmp_path / "checkpoint.pt")
    assert {"score", "iou", "dice", "accuracy"} <= set(trained.metrics)
    folder = tmp_path / "model"
    folder.mkdir()
    task.export(trained.model, folder)
    manifest = yaml.safe_load((folder / "model.yaml").read_text())
    assert manifest["task"] == "segmentation"
    session = ModelSession(folder, threads=1)
    rng = np.random.default_rng(0)
    windows = list(rng.integers(0, 256, (3, 512, 512, 3), dtype=np.uint8))
    found = session.decode(session.run(windows), session.manifest.thresholds)
    assert [one.planes.shape for one in found] == [(5, 512, 512)] * 3


def test_the_same_seed_gives_the_same_weights(root: Path, tmp_path: Path) -> None:
    """Twice; another seed gives others."""
    digests = []
    for n, seed in enumerate((7, 7, 8)):
        config = settings(root, seed=seed)
        digest = prepare(config, tmp_path / "prepared")
        task = make(config, tmp_path / "prepared")
        digests.append(train(task, config, digest, tmp_path / f"{n}.pt").digest)
    assert digests[0] == digests[1] != digests[2]


def test_a_comparison_goes_on_where_it_was(root: Path, tmp_path: Path) -> None:
    """Each scene is held out in its turn; what is in the file is not trained again."""
    config = settings(root, steps=1, prepared=tmp_path / "prepared")
    first = compare.compare(config, tmp_path / "out", ["linknet"], ["a"])
    assert set(first.runs) == {"linknet a"}
    path = tmp_path / "out" / "comparison.json"
    told = json.loads(path.read_text())
    told["runs"]["linknet a"]["metrics"]["iou"] = 0.123
    path.write_text(json.dumps(told))
    both = compare.compare(config, tmp_path / "out", ["linknet"], ["a", "b"])
    assert both.runs["linknet a"]["metrics"]["iou"] == 0.123
    assert both.runs["linknet b"]["steps"] == 1
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["comparison.json"]
    lines = compare.table(both).splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| linknet | 0.")


@pytest.mark.parametrize("scene", "abc")
def test_a_comparison_learns_nothing_of_the_scene_it_judges(
    root: Path, tmp_path: Path, scene: str
) -> None:
    """Whatever part it plays in the config; nor does it choose among weights."""
    config = settings(root, validate_every=1, patience=1)
    prepare(config, tmp_path / "prepared")
    mine = compare.without(config, "manet", scene)
    learnt, judged = split(mine, scenes(Store(tmp_path / "prepared")))
    assert [s.name for s in learnt] == sorted({"a", "b", "c"} - {scene})
    assert [s.name for s in judged] == [scene]
    assert (mine.architecture, mine.validate_every, mine.patience) == ("manet", 0, 0)


def test_a_comparison_of_an_unknown_scene_is_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the first of the others is trained, in a sentence, with exit code 2."""
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"steps": 1, "validation": ["b"], "test": ["c"]}))
    out = tmp_path / "out"
    asked = ["--config", file, "--data", root, "--out", out, "--scene", "a", "--scene", "tile9"]
    monkeypatch.setattr(sys, "argv", ["compare", *map(str, asked)])
    with pytest.raises(SystemExit) as ended:
        compare.main()
    assert ended.value.code == 2
    assert "There is no scene tile9 to hold out; there are a, b, c." in capsys.readouterr().err
    assert not (out / "comparison.json").exists()
    # what it prepared is its own: a training beside it prepares elsewhere
    assert (out / "prepared" / "manifest.json").is_file()


def test_a_resumed_run_has_the_weights_of_an_uninterrupted_one(root: Path, tmp_path: Path) -> None:
    """Which labels the loss takes is drawn by chance: the same after a restart."""
    config = settings(root, steps=4)
    digest = prepare(config, tmp_path / "prepared")
    task = make(config, tmp_path / "prepared")
    whole = train(task, config, digest, tmp_path / "whole.pt")
    asked = iter([False, True])
    with pytest.raises(Interrupted):
        train(task, config, digest, tmp_path / "cut.pt", stop=lambda: next(asked))
    again = train(task, config, digest, tmp_path / "cut.pt", resume=True)
    assert again.digest == whole.digest
    assert again.metrics == whole.metrics
