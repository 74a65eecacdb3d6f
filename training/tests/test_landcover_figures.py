"""IoU and Dice of the land cover model, while it trains and when it is judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from landcover_scenes import drawn, write
from onnx import TensorProto, helper, numpy_helper
from pycocotools import mask as coco

from frond.contracts.modelspec import ModelManifest
from frond.training.card import BEGIN, END
from frond.training.landcover import card, data, plot
from frond.training.landcover import evaluate as evaluation
from frond.training.landcover.config import BACKGROUND, CLASSES, IGNORED, WINDOW, Settings
from frond.training.landcover.data import Bytes
from frond.training.landcover.evaluate import evaluate, run_lengths, scaled, write_coco
from frond.training.landcover.figures import shares, table, windows

Told = dict[str, Any]


def test_windows_cover_a_scene_once() -> None:
    """Each pixel is in one core, in its place, also where the scene is no multiple of it."""
    scene = drawn("a", 1, 192, 240)
    y, x = np.mgrid[:192, :240]
    scene.pixels[:] = np.stack([y, x, np.full_like(y, 7)], axis=-1)
    scene.labels[:] = (y + x) % 5
    seen = np.zeros((192, 240), int)
    for pixels, labels, core in windows(scene, 128, 16):
        assert pixels.shape == (128, 128, 3)
        there = labels != IGNORED
        assert not pixels[~there].any()
        at = pixels[there].astype(int)
        np.testing.assert_array_equal(labels[there], (at[:, 0] + at[:, 1]) % 5)
        own = pixels[core][there[core]]
        seen[own[:, 0], own[:, 1]] += 1
        assert len(own) == len(np.unique(own, axis=0))
    assert (seen == 1).all()


def test_shares_are_those_of_the_definition() -> None:
    """IoU = both ÷ either, Dice = 2 both ÷ sum; means over what is labelled; ignored is left out."""
    scene = drawn("a", 1, 48, 72)
    scene.labels[:], scene.labels[:12], scene.labels[40:] = BACKGROUND, 0, IGNORED

    def classify(given: Bytes) -> Bytes:
        found = np.full(given.shape[:3], BACKGROUND, np.uint8)
        # windows begin 16 pixels above the scene
        found[:, 16 + 6 : 16 + 18] = 0
        return found

    counted = table([scene], classify, 512, 16)
    assert counted.sum() == 40 * 72
    told = shares(counted)
    assert told["iou_building"] == pytest.approx(6 / 18)
    assert told["dice_building"] == pytest.approx(12 / 24)
    assert told["iou"] == told["iou_building"]
    assert "iou_road" not in told
    assert told["accuracy"] == pytest.approx(28 / 40)


@pytest.mark.parametrize("first", [0, 1])
def test_run_lengths_are_cocos(first: int) -> None:
    """pycocotools reads the same mask, whichever value it begins with."""
    mask = np.random.default_rng(1).integers(0, 2, (7, 5)).astype(bool)
    mask[0, 0] = bool(first)
    told = {"size": [7, 5], "counts": run_lengths(mask)}
    np.testing.assert_array_equal(coco.decode(coco.frPyObjects(told, 7, 5)), mask)


def reader(folder: Path) -> None:
    """A graph that tells a drawn scene's class by its red, half as finely."""
    made = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Gather", ["planes", "first"], ["red"], axis=1),
        helper.make_node("AveragePool", ["red"], ["half"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Sub", ["half", "centres"], ["off"]),
        helper.make_node("Abs", ["off"], ["far"]),
        helper.make_node("Neg", ["far"], ["near"]),
        helper.make_node("Softmax", ["near"], ["probabilities"], axis=1),
    ]
    centres = np.arange(5, dtype=np.float32).reshape(1, 5, 1, 1) * 50
    given = [
        numpy_helper.from_array(np.array([0]), "first"),
        numpy_helper.from_array(centres, "centres"),
    ]
    size = WINDOW
    graph = helper.make_graph(
        made, "reader",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", size, size, 3])],
        [helper.make_tensor_value_info(
            "probabilities", TensorProto.FLOAT, ["n", 5, size // 2, size // 2])],
        given,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(folder / "model.onnx"))


def test_judged_as_the_product_reads_it(tmp_path: Path) -> None:
    """A graph that tells by red is as wrong as red is; figures, threshold and card are written."""
    scenes = {name: drawn(name, k) for k, name in enumerate("abc")}
    scenes["c"].labels[96:120] = BACKGROUND
    for scene in scenes.values():
        write(scene, tmp_path / "data")
    config = Settings(data=tmp_path / "data", validation=("b",), test=("c",), licence="CC0-1.0")
    data.prepare(config, tmp_path / "prepared")
    folder = tmp_path / "model"
    folder.mkdir()
    reader(folder)
    card.write_manifest(folder, config, None)
    card.write_card(folder, config, None)
    text = (folder / "MODEL_CARD.md").read_text()
    (folder / "MODEL_CARD.md").write_text(text.replace("# landcover", "# Words that stay"))

    metrics, told = evaluate(config, tmp_path / "prepared", folder)

    c = scenes["c"]
    found, counts = c.pixels[..., 0] // 50, c.labels != IGNORED
    for k, name in enumerate(CLASSES):
        a, b = (found == k) & counts, c.labels == k
        assert metrics[f"iou_{name}_c"] == pytest.approx((a & b).sum() / (a | b).sum(), abs=1e-6)
    assert metrics["iou_c"] < 0.95
    assert metrics["dice_c"] > metrics["iou_c"]
    assert metrics["iou_b"] == 1
    assert told["threshold"] in (0.2, 0.3, 0.4)
    assert set(told["scenes"]) == {"b", "c"}
    assert told["scale off"]["b ×2"]["overall"]["iou"] > 0.9
    manifest = ModelManifest.model_validate(yaml.safe_load((folder / "model.yaml").read_text()))
    assert manifest.classes == CLASSES
    assert manifest.decoder.params["background"] == BACKGROUND
    assert manifest.metrics == pytest.approx(metrics)
    assert manifest.thresholds.score == told["threshold"]
    assert manifest.reference is not None
    # scene a is all that is learnt from
    assert (manifest.reference.images, len(manifest.reference.bands)) == (1, 3)
    text = (folder / "MODEL_CARD.md").read_text()
    assert text.startswith("# Words that stay")
    assert text.count(BEGIN) == text.count(END) == 1
    assert "| b (validation) | IoU |" in text
    assert "| c (test) | Dice |" in text
    plot.draw(told, tmp_path / "a.svg")
    plot.draw(told, tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    evaluate(config, tmp_path / "prepared", folder)
    # however long a window took
    assert (folder / "MODEL_CARD.md").read_text() == text


def judged_by(score: dict[str, float], monkeypatch: pytest.MonkeyPatch, **more: object) -> Told:
    """Figures of scenes a, b, c; ``score``: the threshold at which each of them is found best."""

    def judged(_: Path, dataset: Path, bar: float) -> Told:
        iou = 1 - abs(bar - score.get(dataset.name, bar))
        return {"overall": {"iou": iou, "dice": iou}, "classes": {}}

    monkeypatch.setattr(evaluation, "_judged", judged)
    monkeypatch.setattr(evaluation, "_milliseconds", lambda _: 1.0)
    config = Settings.model_validate({"validation": ("b",), "test": ("c",), **more})
    found = {name: drawn(name, k) for k, name in enumerate("abc")}
    return evaluation.figures(config, found, Path())


def test_the_test_scene_has_no_say_in_the_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation likes 0.5, the test 0.2: 0.5 ships. Scale off is of the validation alone."""
    told = judged_by({"b": 0.5, "c": 0.2}, monkeypatch)
    assert told["threshold"] == 0.5
    assert told["validation by threshold"]["0.2"] == 0.7
    assert told["scenes"]["c"]["overall"]["iou"] == 0.7
    assert set(told["scale off"]) == {"b ×0.5", "b ×2"}


def test_a_threshold_that_nobody_chose_is_not_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a validation scene the test still has no say, and the card claims no choice."""
    told = judged_by({"c": 0.5}, monkeypatch, validation=())
    assert told["threshold"] == 0.2
    told["scenes"] = told["scale off"] = {}
    config = Settings(validation=(), test=("c",))
    assert "0.2, which nothing chose." in card.tables(config, told)


def test_reference_is_of_scenes_that_were_learnt_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drift measured against held-out scenes would hide how new they are."""
    scenes = {name: drawn(name, k) for k, name in enumerate("abc")}
    for scene in scenes.values():
        write(scene, tmp_path / "data")
    config = Settings(data=tmp_path / "data", validation=("b",), test=("c",))
    data.prepare(config, tmp_path / "prepared")
    told = judged_by({}, monkeypatch)
    told["scenes"] = told["scale off"] = {}
    monkeypatch.setattr(evaluation, "figures", lambda *_: told)
    given: list[Bytes] = []
    monkeypatch.setattr(evaluation, "refer", lambda _, images: given.extend(images))
    evaluate(config, tmp_path / "prepared", tmp_path)
    assert len(given) == 1
    np.testing.assert_array_equal(given[0], scenes["a"].pixels)


def test_what_does_not_count_is_a_crowds(tmp_path: Path) -> None:
    """Ignored pixels are a crowd's region, in labels that hold each class once."""
    scene = drawn("a", 1)
    told = json.loads((write_coco([scene], tmp_path / "coco") / "labels.json").read_text())
    crowds = [a for a in told["annotations"] if a["iscrowd"]]
    assert [a["area"] for a in crowds] == [2 * 240]
    plain = {a["category_id"]: a["area"] for a in told["annotations"] if not a["iscrowd"]}
    assert plain == {k + 1: int((scene.labels == k).sum()) for k in range(4)}


def test_a_scene_at_another_scale_keeps_its_labels() -> None:
    """Twice and half as large; no class that was not there."""
    scene = drawn("a", 1)
    for k in (0.5, 2.0):
        other = scaled(scene, k)
        assert other.pixels.shape == (round(192 * k), round(240 * k), 3)
        assert set(np.unique(other.labels)) <= set(np.unique(scene.labels))
        assert abs((other.labels == 1).mean() - (scene.labels == 1).mean()) < 0.01
