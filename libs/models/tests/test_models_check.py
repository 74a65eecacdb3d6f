"""What a check says of folders that fit, and of each way not to fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from model_graphs import end2end, planes, planted, queries, raw_yolo
from onnx import TensorProto, helper, numpy_helper

from frond.models.check import Report, check, classes_of, drawn_windows, saturated
from frond.models.decoders import WindowDetections
from frond.models.folder import load_manifest
from frond.models.testing import blob_model, colour_model, tile_model


def folder(tmp_path: Path, outputs: dict[str, Any], decoder: Any, **more: Any) -> Path:
    graph = {k: more.pop(k) for k in ("sway", "dtype", "metadata") if k in more}
    made = tmp_path / "m"
    planted(made / "model.onnx", outputs, **graph)
    manifest = {
        "name": "m", "decoder": decoder, "classes": ["a", "b", "c"], "input": {"size": 64},
        "normalization": {"scale": 1 / 255}, "gsd_m": 0.2, "licence": "CC0-1.0", "margin": 16,
    }  # fmt: skip
    (made / "model.yaml").write_text(yaml.safe_dump(manifest | more))
    return made


def told(report: Report, level: str) -> str:
    return "\n".join(f.text for f in report.findings if f.level == level)


@pytest.mark.parametrize("make", [blob_model, colour_model, tile_model])
def test_what_fits_is_told_to_fit(tmp_path: Path, make: Any) -> None:
    """A result for each window, time told, nothing wrong."""
    report = check(make(tmp_path), threads=1)
    assert report.fits, report.findings
    assert len(report.results) == len(report.windows) == 2
    assert report.window_s is not None
    assert report.window_s > 0
    fine = told(report, "fine")
    assert "It loads" in fine
    assert "same bytes twice" in fine
    assert "Batches of 8" in fine
    assert "windows, a raster of 10000×10000 pixels" in fine


def test_a_sample_may_be_given(tmp_path: Path) -> None:
    """It is asked with the manifest, and what it gives is what was looked at."""
    window = np.zeros((256, 256, 3), np.uint8)
    window[100:116, 50:66] = (255, 0, 255)
    report = check(blob_model(tmp_path), lambda session: [window], threads=1)
    (found,) = report.results
    assert isinstance(found, WindowDetections)
    np.testing.assert_allclose(found.boxes, [[50, 100, 66, 116]], atol=0.1)
    assert "1 box in 1 window at" in told(report, "fine")


def test_what_is_left_to_write_is_named(tmp_path: Path) -> None:
    """Placeholders of classes, GSD and licence: odd, not wrong."""
    made = folder(
        tmp_path, {"y": end2end()}, {"name": "yolo-end2end"}, gsd_m=None, licence="",
        classes=["class-0", "class-1", "class-2"],
    )  # fmt: skip
    report = check(made, threads=1)
    assert report.fits
    for word in ("class-0", "gsd_m", "licence"):
        assert word in told(report, "odd")


REJECTED: dict[str, tuple[dict[str, Any], Any, dict[str, Any], str]] = {
    "fields": ({"y": end2end()}, {"name": "yolo-end2end"}, {"marginn": 3}, "marginn is no field"),
    "decoder": ({"y": end2end()}, {"name": "yolo"}, {"classes": list("abcdefg")}, "YOLO with 7 classes"),
    "no such decoder": ({"y": end2end()}, {"name": "yolo8"}, {}, "there is no decoder 'yolo8'"),
    "size": ({"y": end2end()}, {"name": "yolo-end2end"}, {"input": {"size": 128}}, "takes windows of 3×64×64"),
    "type": ({"y": end2end()}, {"name": "yolo-end2end"}, {"dtype": "float16"}, "takes float16 input"),
    "classes": ({"y": end2end()}, {"name": "yolo-end2end"}, {"classes": ["a"]}, "lists 1 classes"),
    "logits": (
        {"y": planes(3, logits=True)}, {"name": "semantic"}, {"task": "segmentation"},
        "look like logits",
    ),
    "not finite": (
        {"y": np.full((1, 3, 6), np.nan, "f4")}, {"name": "yolo-end2end"}, {}, "NaN or infinite",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", list(REJECTED))
def test_what_the_services_would_refuse_is_told(tmp_path: Path, fault: str) -> None:
    """In the sentence that a job would fail with."""
    outputs, decoder, more, words = REJECTED[fault]
    report = check(folder(tmp_path, outputs, decoder, **more), threads=1)
    assert not report.fits
    assert words in told(report, "wrong")
    assert report.results == ()


def test_no_folder_is_a_finding(tmp_path: Path) -> None:
    """So is one without a graph."""
    assert "is no folder" in told(check(tmp_path / "none"), "wrong")
    (tmp_path / "model.onnx").write_bytes(b"")
    (tmp_path / "model.yaml").write_text("name: x")
    assert "is missing" in told(check(tmp_path), "wrong")


def test_a_graph_that_does_not_see_its_input_is_wrong(tmp_path: Path) -> None:
    """The same outputs for windows that have nothing in common."""
    made = folder(tmp_path, {"y": end2end()}, {"name": "yolo-end2end"}, sway=0.0)
    assert "does not see its input" in told(check(made, threads=1), "wrong")


def test_a_graph_that_finds_nothing_is_odd(tmp_path: Path) -> None:
    """With NMS inside it gives the same empty rows for most images: that alone is no fault."""
    rows = np.zeros((1, 300, 6), "f4")
    report = check(folder(tmp_path, {"y": rows}, {"name": "yolo-end2end"}, sway=0.0), threads=1)
    assert report.fits
    assert "Not one box" in told(report, "odd")


def test_boxes_in_shares_of_the_window_are_wrong(tmp_path: Path) -> None:
    """Pixels are what YOLO decoders read."""
    rows = end2end()
    rows[..., :4] /= 64
    made = folder(tmp_path, {"y": rows}, {"name": "yolo-end2end"})
    assert "shares of the window" in told(check(made, threads=1), "wrong")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r[..., 4].fill(0.0), "All scores are 0"),
        (lambda r: r.__setitem__((0, slice(0, 2), 4), 0.3), "scores are 0.3"),
        (lambda r: r.__setitem__((0, 1, slice(0, 4)), r[0, 0, :4]), "are the same one"),
        (lambda r: r[0, :2, :4].__iadd__(200.0), "outside their window"),
        (lambda r: r[..., :4].fill(0.0), "Not one box"),
        (lambda r: r.__setitem__((0, 0, slice(0, 4)), (2, 2, 62, 62)), "Set margin to 30 or more"),
        (lambda r: r.__setitem__((0, slice(0, 2), 4), 0.9999), "all 0 or 1"),
    ],
)
def test_what_looks_odd_is_told_and_fits(tmp_path: Path, change: Any, words: str) -> None:
    """It may be meant so: exit code and verdict are those of a folder that fits."""
    rows = end2end()
    change(rows)
    made = folder(tmp_path, {"y": rows}, {"name": "yolo-end2end"})
    report = check(made, threads=1)
    assert words in told(report, "odd")
    assert report.fits


def test_a_flood_of_boxes_is_odd(tmp_path: Path) -> None:
    """As many as max_detections lets pass: thresholds or scaling."""
    outputs = queries(100, 3)
    outputs["logits"][...] = 3.3
    made = folder(tmp_path, outputs, {"name": "detr"}, max_detections=20)
    assert "raise thresholds.score" in told(check(made, threads=1), "odd")


def test_missing_normalisation_is_odd(tmp_path: Path) -> None:
    """Most graphs take 0…1; a uint8 input has none to set."""
    made = folder(tmp_path, {"y": raw_yolo("v8", 3)}, {"name": "yolo"}, normalization={})
    assert "normalization is not set" in told(check(made, threads=1), "odd")
    uint8 = folder(tmp_path / "8", {"y": raw_yolo("v8", 3)}, {"name": "yolo"}, dtype="uint8",
                   normalization={}, input={"size": 64, "dtype": "uint8"})  # fmt: skip
    assert "normalization" not in told(check(uint8, threads=1), "odd")


def test_masks_of_one_class_everywhere_are_odd(tmp_path: Path) -> None:
    """Saturated planes, and one class for every pixel."""
    scores = np.zeros((1, 3, 64, 64), "f4")
    scores[:, 1] = 0.999
    made = folder(tmp_path, {"y": scores}, {"name": "semantic"}, task="segmentation")
    odd = told(check(made, threads=1), "odd")
    assert "Every pixel of the sample is b" in odd
    assert "all 0 or 1" in odd
    assert "same scores" in odd or "Every pixel" in odd


def test_the_share_of_each_class_is_told(tmp_path: Path) -> None:
    """Of all windows' pixels at the model's threshold, in the classes' order, and what is of none."""
    window = np.full((64, 64, 3), 128, np.uint8)
    window[:32] = (255, 0, 0)
    window[40:41, 0:1] = (0, 255, 0)
    fine = told(check(colour_model(tmp_path), lambda s: [window, window], threads=1), "fine")
    assert "2 windows, at score ≥ 0.5: red 50 %, green < 0.1 %; of no class 50 %." in fine
    bare = np.full((64, 64, 3), 128, np.uint8)
    never = told(check(colour_model(tmp_path), lambda s: [bare], threads=1), "fine")
    assert "1 window, at score ≥ 0.5: red 0 %, green 0 %; of no class 100 %." in never


def test_no_more_than_twenty_classes_are_told(tmp_path: Path) -> None:
    """The rest are counted."""
    scores = np.full((1, 23, 64, 64), 0.2, "f4")
    more = {"task": "segmentation", "classes": [f"k{n}" for n in range(23)]}
    made = folder(tmp_path, {"y": scores}, {"name": "semantic"}, **more)
    fine = told(check(made, threads=1), "fine")
    assert "k19 0 %, 3 classes more; of no class 100 %" in fine


def simple(path: Path, nodes: list[Any], constants: dict[str, Any]) -> None:
    """x [n, 3, 16, 16] to ``y`` [n, k, 6], a yolo-end2end head."""
    graph = helper.make_graph(
        nodes, "t", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "k", 6])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )  # fmt: skip
    path.mkdir(parents=True)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        str(path / "model.onnx"),
    )
    (path / "model.yaml").write_text(yaml.safe_dump({
        "name": "t", "classes": ["a"], "margin": 0, "input": {"size": 16},
        "decoder": {"name": "yolo-end2end"}, "normalization": {"scale": 1 / 255},
    }))  # fmt: skip


BOX = np.array([[[2, 3, 10, 11, 0.5, 0]]], "f4")
SHIFT = np.array([[[0, 0, 40, 40, 0.3, 0]]], "f4")


def test_a_batch_that_mixes_its_windows_is_wrong(tmp_path: Path) -> None:
    """As batch normalisation in training mode does."""
    simple(
        tmp_path / "m",
        [
            helper.make_node("ReduceMean", ["x"], ["own"], axes=[1, 2, 3], keepdims=1),
            helper.make_node("ReduceMean", ["own"], ["all"], axes=[0], keepdims=1),
            helper.make_node("Sub", ["own", "all"], ["far4"]),
            helper.make_node("Squeeze", ["far4", "last"], ["far"]),
            helper.make_node("Mul", ["far", "shift"], ["tilt"]),
            helper.make_node("Add", ["tilt", "box"], ["y"]),
        ],
        {"last": np.array([3], np.int64), "shift": SHIFT, "box": BOX},
    )
    wrong = told(check(tmp_path / "m", threads=1), "wrong")
    assert "change with the windows beside it" in wrong


def selecting(path: Path, rows: float, *, box: bool, found: bool = False) -> Path:
    """A graph that gives a batch as many rows as its brightest window asks for.

    Args:
        rows: for a window all white.
        box: whether one more goes before them.
        found: whether each of them is a find, else they are zeros.
    """
    head = ["first", "rows"] if box else ["rows"]
    simple(
        path,
        [
            helper.make_node("ReduceMean", ["x"], ["own"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("ReduceMax", ["own"], ["most"], keepdims=1),
            helper.make_node("Mul", ["most", "asked"], ["k0"]),
            helper.make_node("Cast", ["k0"], ["k"], to=TensorProto.INT64),
            helper.make_node("Shape", ["x"], ["n"], end=1),
            helper.make_node("Concat", ["n", "k", "six"], ["shape"], axis=0),
            helper.make_node("Concat", ["n", "one", "six"], ["single"], axis=0),
            helper.make_node("Expand", ["box", "single"], ["first"]),
            helper.make_node("Expand", ["row", "shape"], ["rows"]),
            helper.make_node("Concat", head, ["y"], axis=1),
        ],
        {
            "asked": np.array(rows, "f4"), "six": np.array([6], np.int64),
            "one": np.array([1], np.int64), "box": BOX, "row": BOX if found else BOX * 0,
        },
    )  # fmt: skip
    return path


def test_a_graph_that_finds_no_rows_at_all_is_odd(tmp_path: Path) -> None:
    """Where their number is free there is not one, and nothing to compare."""
    report = check(selecting(tmp_path / "m", 0.0, box=False), threads=1)
    assert report.fits, report.findings
    assert "Batches of 8 give what single windows give" in told(report, "fine")
    assert "Not one box" in told(report, "odd")


def test_rows_that_are_filled_up_for_others_change_nothing(tmp_path: Path) -> None:
    """A batch has the rows of the window with the most: what is found counts."""
    report = check(selecting(tmp_path / "m", 2000.0, box=True), threads=1)
    assert report.fits, report.findings
    assert "Batches of 8 give what single windows give" in told(report, "fine")


def test_finds_that_come_with_the_windows_beside_are_wrong(tmp_path: Path) -> None:
    """As many as are found alone and among others are told."""
    report = check(selecting(tmp_path / "m", 20.0, box=False, found=True), threads=1)
    wrong = told(report, "wrong")
    assert "change with the windows beside it in a batch (9 boxes alone, 10 among others)" in wrong


def test_a_graph_that_throws_dice_is_wrong(tmp_path: Path) -> None:
    """As dropout in training mode does."""
    simple(
        tmp_path / "m",
        [
            helper.make_node("ReduceMean", ["x"], ["own"], axes=[1, 2, 3], keepdims=1),
            helper.make_node("Squeeze", ["own", "last"], ["three"]),
            helper.make_node("RandomUniformLike", ["three"], ["dice"]),
            helper.make_node("Mul", ["dice", "shift"], ["tilt"]),
            helper.make_node("Add", ["tilt", "box"], ["y"]),
        ],
        {"last": np.array([3], np.int64), "shift": SHIFT, "box": BOX},
    )
    assert "different bytes" in told(check(tmp_path / "m", threads=1), "wrong")


def test_drawn_windows_and_helpers(tmp_path: Path) -> None:
    """Two different windows of the model's size and bands; classes of planes; saturation."""
    manifest = load_manifest(blob_model(tmp_path, 64, margin=8))
    first, second = drawn_windows(manifest)
    assert first.shape == (64, 64, 3)
    assert first.tobytes() != second.tobytes()
    assert first.tobytes() == drawn_windows(manifest)[0].tobytes()
    column = np.array([[200, 120, 140], [10, 130, 30], [40, 20, 150]], np.uint8)
    assert classes_of(column.reshape(3, 1, 3), 0.5).tolist() == [[1, 2, 0]]
    assert not saturated([])


@pytest.mark.parametrize(("score", "odd"), [(0.5, False), (0.3, False), (0.7, True)])
def test_a_threshold_above_the_references_is_odd(tmp_path: Path, score: float, odd: bool) -> None:
    """Drift would look at no score of it any more, and nobody would notice."""
    made = blob_model(tmp_path)
    data = yaml.safe_load((made / "model.yaml").read_text())
    data["thresholds"] = {"score": score}
    data["reference"] = {"bands": [[1] * 256] * 3, "windows": 9, "pixels": 256, "score": 0.5}
    (made / "model.yaml").write_text(json.dumps(data))  # YAML, too
    report = check(made, threads=1)
    assert report.fits
    assert ("frond models reference" in told(report, "odd")) is odd
