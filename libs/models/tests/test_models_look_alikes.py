"""Outputs whose shapes look like one family's and that are another's, or nobody's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from model_graphs import end2end, planes, planted, queries, raw_yolo, torchvision

from frond.contracts.errors import ModelRejected
from frond.models.check import check
from frond.models.guess import Guess, guess, write_folder
from frond.models.session import ModelSession

RNG = np.random.default_rng(6)
NAMES = {"names": "{0: 'palm', 1: 'road', 2: 'roof'}", "stride": "32"}


def some(*shape: int, reach: float = 0.9) -> np.ndarray:
    return RNG.uniform(0.01, reach, (1, *shape)).astype("f4")


LOGS = np.array([0, 0, 0.4, 0.4, 0, 0, 0, 0], "f4")
CLASSES = planes(5).argmax(axis=1)

LOOK_ALIKES: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "yolo v7 with NMS": ({"output": some(7)[[0, 0]]}, "2 rows for 1 window"),
    "yolo v7 with NMS, nothing found": ({"output": some(7)[:0]}, "0 rows for 1 window"),
    "yolo-nas": ({"a": some(84, 4, reach=60), "b": some(84, 80)}, "Join them in the graph"),
    "pp-yoloe": ({"a": some(84, 4, reach=60), "b": some(80, 84)}, "Join them in the graph"),
    "retinanet": (
        {"regression": some(756, 4) - 2, "classification": some(756, 8), "anchors": some(756, 4)},
        "Join them in the graph",
    ),
    "yolo v4 of darknet": ({"boxes": some(84, 1, 4), "confs": some(84, 80)}, "Join them in the graph"),
    "ssd of tensorflow": (
        {"detection_boxes": some(100, 4), "detection_multiclass_scores": some(100, 91),
         "detection_scores": some(100), "raw_detection_scores": some(1917, 91)},
        "after their selection or NMS",
    ),
    "rt-detr after its postprocessor": (
        {"labels": np.zeros((1, 300), np.int64), "boxes": some(300, 4, reach=60), "scores": some(300)},
        "a DETR's logits and pred_boxes",
    ),
    "mmdetection": (
        {"dets": some(100, 5), "labels": np.zeros((1, 100), np.int64)}, "after their selection or NMS"
    ),
    "heads of each stride": (
        {"p3": some(24, 8, 8), "p4": some(24, 4, 4), "p5": some(24, 2, 2)}, "heads, one for each stride",
    ),
    "mask2former": (
        {"class_queries_logits": some(100, 8), "masks_queries_logits": some(100, 16, 16)},
        "classes and masks of queries",
    ),
    "yolox, not decoded": ({"output": some(84, 8) - LOGS}, "--decode_in_inference"),
    "yolo v5 for training, joined": ({"output": some(252, 8) - LOGS}, "below 0"),
    "class numbers": ({"y": CLASSES[:, None]}, "after an argmax"),
    "class numbers, channels last": ({"y": CLASSES[..., None]}, "after an argmax"),
    "class numbers as floats": ({"y": CLASSES[:, None].astype("f4")}, "after an argmax"),
    "a window's class number": ({"y": np.array([[3]])}, "after an argmax"),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(LOOK_ALIKES))
def test_look_alikes_are_refused(tmp_path: Path, kind: str) -> None:
    """With what they are and what to export; a guess would give wrong boxes or masks in silence."""
    outputs, words = LOOK_ALIKES[kind]
    with pytest.raises(ModelRejected) as e:
        guess(planted(tmp_path / "m.onnx", outputs))
    assert words in e.value.detail


def made(tmp_path: Path, outputs: dict[str, Any], **more: Any) -> Guess:
    found = write_folder(planted(tmp_path / "m.onnx", outputs, **more), tmp_path / "out")
    assert found.problem is None
    return found


def test_what_is_read_by_its_names_is_none_of_them(tmp_path: Path) -> None:
    """DETR's logits and boxes, with a score for each query beside them."""
    manifest = made(tmp_path, {**queries(300, 4), "best": some(300)}).manifest
    assert manifest.decoder.name == "detr"


def test_masks_at_several_depths_are_masks(tmp_path: Path) -> None:
    """Auxiliary outputs, as of BiSeNet: the first is taken, and the guess says so."""
    outputs = {"out": some(4, 8, 8), "aux": some(4, 4, 4)}
    found = write_folder(planted(tmp_path / "m.onnx", outputs), tmp_path / "out").manifest
    assert found.decoder.name == "semantic"
    assert found.decoder.params["outputs"] == {"scores": "out"}


def test_boxes_beside_the_head_that_holds_them_are_passed_over(tmp_path: Path) -> None:
    """The head is whole."""
    head = raw_yolo("v8", 3)
    outputs = {"output0": head, "boxes": head[:, :4].transpose(0, 2, 1)}
    manifest = made(tmp_path, outputs).manifest
    assert manifest.decoder.params == {"version": "v8", "outputs": {"output": "output0"}}


def test_rows_of_one_class_have_no_objectness(tmp_path: Path) -> None:
    """Five numbers a row are a box and a score, whether the class has a name or not."""
    rows = raw_yolo("v8", 1).transpose(0, 2, 1)
    manifest = made(tmp_path, {"output": rows}).manifest
    assert manifest.decoder.params == {"version": "v8"}
    assert len(manifest.classes) == 1


@pytest.mark.parametrize(("rows", "columns"), [(7, 50), (50, 7)])
def test_more_classes_than_queries_may_be_a_transposed_yolo(
    tmp_path: Path, rows: int, columns: int
) -> None:
    """Boxes in shares are along either axis: the guess says so, and check asks; not of what is likely."""
    found = made(tmp_path, {"output": some(rows, columns)})
    assert (found.manifest.decoder.name, len(found.manifest.classes)) == ("detr", columns - 4)
    assert ("or a YOLO, 3 class scores for each anchor" in found.why) == (rows == 7)
    asked = f"{columns - 4} classes for {rows} rows: is it transposed?"
    said = [f.text for f in check(tmp_path / "out", threads=1).findings if f.level == "odd"]
    assert any(text.startswith(asked) for text in said) == (rows == 7)


def test_masks_of_single_objects_are_said_to_be_left_out(tmp_path: Path) -> None:
    """As of Mask R-CNN: its boxes are read."""
    found = made(tmp_path, {**torchvision(), "masks": some(2, 64, 64)[0][:, None]})
    assert found.manifest.decoder.name == "torchvision"
    assert "masks of single objects (masks) are not" in found.why
    assert "masks" not in guess(planted(tmp_path / "plain.onnx", torchvision())).why


def test_maps_beside_a_yolo_head_are_passed_over(tmp_path: Path) -> None:
    """As torch.onnx.export gives them of Ultralytics' module."""
    outputs = {"output0": raw_yolo("v8", 3), "p3": some(67, 8, 8), "p4": some(67, 4, 4)}
    manifest = made(tmp_path, outputs).manifest
    assert manifest.decoder.params == {"version": "v8", "outputs": {"output": "output0"}}


@pytest.mark.parametrize("mask", [CLASSES, CLASSES[:, None]])
@pytest.mark.parametrize("first", [True, False])
def test_scores_are_taken_where_class_numbers_are_beside_them(
    tmp_path: Path, mask: np.ndarray, first: bool
) -> None:
    """Whichever comes first."""
    outputs = {"mask": mask, "probs": planes(5)}
    found = made(tmp_path, outputs if first else dict(reversed(outputs.items()))).manifest
    assert found.decoder.params["outputs"] == {"scores": "probs"}
    assert len(found.classes) == 4


@pytest.mark.parametrize("rows", [0, 1, 2, 4])
def test_few_finds_are_finds(tmp_path: Path, rows: int) -> None:
    """Where NMS in the graph leaves their number free, a sample may have none."""
    outputs = {"output0": end2end(3)[:, :rows] if rows < 3 else end2end(rows)}
    assert made(tmp_path, outputs, metadata=NAMES).manifest.decoder.name == "yolo-end2end"


@pytest.mark.parametrize(
    ("metadata", "version", "classes"), [(None, "v5", 80), ({"names": str(["a"] * 81)}, "v8", 81)]
)
def test_rows_of_one_a_cell_may_have_an_objectness(
    tmp_path: Path, metadata: Any, version: str, classes: int
) -> None:
    """YOLOX and v6 do; the number of names settles it, and a guess says so."""
    rows = np.concatenate([raw_yolo("v8", 81, 128).transpose(0, 2, 1)])
    found = made(tmp_path, {"output": rows}, size=128, metadata=metadata)
    assert found.manifest.decoder.params == {"version": version}
    assert len(found.manifest.classes) == classes
    assert ("decoder.params.version" in found.guessed) == (metadata is None)


def freed(path: Path) -> Path:
    """A free batch in the input, and one baked into what the graph gives."""
    model = onnx.load(str(planted(path, {"output0": raw_yolo("v8", 3)})))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    onnx.save(model, str(path))
    return path


def test_a_batch_that_is_free_in_name_only(tmp_path: Path) -> None:
    """Is set to 1, and said to be a guess."""
    found = write_folder(freed(tmp_path / "m.onnx"), tmp_path / "out")
    assert found.problem is None
    assert found.manifest.input.batch == 1
    assert "input.batch" in found.guessed
    data = yaml.safe_load(found.text)
    del data["input"]["batch"]
    (tmp_path / "out" / "model.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(ModelRejected, match=r"set input\.batch to 1"):
        ModelSession(tmp_path / "out")


def test_names_that_do_not_fit_are_said_to_be_there(tmp_path: Path) -> None:
    """Not that there are none."""
    found = made(tmp_path, {"output0": raw_yolo("v8", 5)}, metadata=NAMES)
    assert any("have 3 names, which do not fit" in line for line in found.fill_in)


@pytest.mark.parametrize(
    ("task", "decoder", "values", "activation"),
    [
        ("segmentation", "semantic", CLASSES[:, None], "sigmoid"),
        ("classification", "tile-classification", np.array([[3]]), "sigmoid"),
    ],
)
def test_no_activation_is_put_on_class_numbers(
    tmp_path: Path, task: str, decoder: str, values: np.ndarray, activation: str
) -> None:
    """Whoever writes model.yaml by hand is told, too: the scores would look sure and mean nothing."""
    planted(tmp_path / "model.onnx", {"y": values})
    (tmp_path / "model.yaml").write_text(yaml.safe_dump({
        "name": "m", "task": task, "classes": ["a"], "input": {"size": 64}, "margin": 8,
        "decoder": {"name": decoder, "params": {"activation": activation}},
    }))  # fmt: skip
    with pytest.raises(ModelRejected, match="holds whole numbers"):
        ModelSession(tmp_path)
