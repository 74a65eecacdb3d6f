"""One suite of behaviours that every decoder has to show, and what is special to each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from frond.contracts.errors import ModelRejected
from frond.contracts.modelspec import ModelManifest, ModelThresholds
from frond.contracts.reasons import Reason
from frond.models.decoders import (
    DECODERS,
    WindowDetections,
    WindowPlanes,
    WindowResult,
    decoder_for,
    detections_of,
)

SIZE = 256
Outputs = dict[str, NDArray[Any]]
Planted = list[tuple[tuple[float, float, float, float], float, int]]


def manifest_of(decoder: str, classes: int = 2, **params: Any) -> ModelManifest:
    return ModelManifest.model_validate(
        {
            "name": "m",
            "task": DECODERS[decoder].task if decoder in DECODERS else "detection",
            "decoder": {"name": decoder, "params": params},
            "classes": [f"c{i}" for i in range(classes)],
            "input": {"size": SIZE},
            "thresholds": {"score": 0.3},
            "max_detections": 20,
        }
    )


def centre(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = box
    return (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0


def logit(p: float) -> float:
    p = min(max(p, 1e-6), 1 - 1e-6)
    return float(np.log(p / (1 - p)))


def centerpoint(windows: list[Planted]) -> Outputs:
    side = SIZE // 4
    heat = np.zeros((len(windows), 2, side, side), np.float32)
    size = np.zeros((len(windows), 2, side, side), np.float32)
    offset = np.zeros((len(windows), 2, side, side), np.float32)
    for n, planted in enumerate(windows):
        for box, score, cls in planted:
            x, y, w, h = centre(box)
            i, j = int(y // 4), int(x // 4)
            heat[n, cls, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2] = score / 2
            heat[n, cls, i, j] = score
            size[n, :, i, j] = w, h
            offset[n, :, i, j] = x / 4 - j, y / 4 - i
    return {"heatmap": heat, "size": size, "offset": offset}


def yolo_v5(windows: list[Planted]) -> Outputs:
    out = np.zeros((len(windows), 50, 7), np.float32)
    for n, planted in enumerate(windows):
        for row, (box, score, cls) in enumerate(planted):
            out[n, row, :4] = centre(box)
            out[n, row, 4] = 1.0
            out[n, row, 5 + cls] = score
    return {"output0": out}


def yolo_v8(windows: list[Planted]) -> Outputs:
    out = np.zeros((len(windows), 6, 50), np.float32)
    for n, planted in enumerate(windows):
        for row, (box, score, cls) in enumerate(planted):
            out[n, :4, row] = centre(box)
            out[n, 4 + cls, row] = score
    return {"output0": out}


def end2end(windows: list[Planted]) -> Outputs:
    out = np.zeros((len(windows), 30, 6), np.float32)
    for n, planted in enumerate(windows):
        for row, (box, score, cls) in enumerate(planted):
            out[n, row] = (*box, score, cls)
    return {"output0": out}


def end2end_centres(windows: list[Planted]) -> Outputs:
    out = end2end(windows)["output0"]
    for n, planted in enumerate(windows):
        for row, (box, _, _) in enumerate(planted):
            out[n, row, :4] = np.array(centre(box)) / SIZE
    return {"output0": out}


def detr_sigmoid(windows: list[Planted]) -> Outputs:
    logits = np.full((len(windows), 30, 2), -12.0, np.float32)
    boxes = np.full((len(windows), 30, 4), 0.5, np.float32)
    for n, planted in enumerate(windows):
        for row, (box, score, cls) in enumerate(planted):
            logits[n, row, cls] = logit(score)
            boxes[n, row] = np.array(centre(box)) / SIZE
    return {"logits": logits, "pred_boxes": boxes}


def detr_softmax(windows: list[Planted]) -> Outputs:
    out = detr_sigmoid(windows)
    logits = np.full((len(windows), 30, 3), -30.0, np.float32)
    logits[..., 2] = 0.0
    for n, planted in enumerate(windows):
        for row, (_, score, cls) in enumerate(planted):
            logits[n, row, cls] = logit(score)
    return {"logits": logits, "pred_boxes": out["pred_boxes"]}


def detr_joined(windows: list[Planted]) -> Outputs:
    out = np.zeros((len(windows), 30, 6), np.float32)
    for n, planted in enumerate(windows):
        for row, (box, score, cls) in enumerate(planted):
            out[n, row, :4] = np.array(centre(box)) / SIZE
            out[n, row, 4 + cls] = score
    return {"output0": out}


def torchvision(windows: list[Planted]) -> Outputs:
    (planted,) = windows
    return {
        "boxes": np.array([b for b, _, _ in planted], np.float32).reshape(-1, 4),
        "labels": np.array([c + 1 for _, _, c in planted], np.int64),
        "scores": np.array([s for _, s, _ in planted], np.float32),
    }


def semantic(windows: list[Planted]) -> Outputs:
    out = np.zeros((len(windows), 2, SIZE, SIZE), np.float32)
    for n, planted in enumerate(windows):
        for (x0, y0, x1, y1), score, cls in planted:
            out[n, cls, round(y0) : round(y1), round(x0) : round(x1)] = score
    return {"probabilities": out}


def tiles(windows: list[Planted]) -> Outputs:
    out = np.zeros((len(windows), 2), np.float32)
    for n, planted in enumerate(windows):
        for _, score, cls in planted:
            out[n, cls] = score
    return {"probabilities": out}


@dataclass(frozen=True)
class Case:
    decoder: str
    make: Callable[[list[Planted]], Outputs]
    nms: bool = False
    batches: bool = True
    params: tuple[tuple[str, Any], ...] = ()

    def decode(
        self, windows: list[Planted], thresholds: ModelThresholds | None = None
    ) -> list[WindowDetections]:
        return detections_of(self.read(self.make(windows), thresholds))

    def read(
        self, outputs: Outputs, thresholds: ModelThresholds | None = None
    ) -> Sequence[WindowResult]:
        manifest = manifest_of(self.decoder, **dict(self.params))
        return decoder_for(manifest).decode(outputs, manifest, thresholds or manifest.thresholds)


CASES = {
    "centerpoint": Case("centerpoint", centerpoint, nms=True),
    "yolo-v5": Case("yolo", yolo_v5, nms=True),
    "yolo-v8": Case("yolo", yolo_v8, nms=True),
    "yolo-end2end": Case("yolo-end2end", end2end),
    "yolo-end2end-centres": Case("yolo-end2end", end2end_centres, params=(("boxes", "centres"),)),
    "detr-sigmoid": Case("detr", detr_sigmoid),
    "detr-softmax": Case("detr", detr_softmax),
    "detr-joined": Case("detr", detr_joined),
    "torchvision": Case("torchvision", torchvision, batches=False),
}


ALL = CASES | {
    "semantic": Case("semantic", semantic),
    "tile-classification": Case("tile-classification", tiles),
}


@pytest.fixture(params=list(CASES.values()), ids=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    """A decoder whose results are boxes."""
    found = request.param
    assert isinstance(found, Case)
    return found


@pytest.fixture(params=list(ALL.values()), ids=list(ALL))
def any_case(request: pytest.FixtureRequest) -> Case:
    """A decoder, whatever its results are."""
    found = request.param
    assert isinstance(found, Case)
    return found


def test_every_decoder_is_in_the_suite() -> None:
    """A decoder that is registered is one that these behaviours hold for."""
    assert {c.decoder for c in ALL.values()} == set(DECODERS)


def test_results_are_of_the_tasks_type(any_case: Case) -> None:
    """Boxes for detection and classification, planes for segmentation, one entry a window."""
    manifest = manifest_of(any_case.decoder)
    kind = WindowPlanes if manifest.task == "segmentation" else WindowDetections
    (found,) = any_case.read(any_case.make([[((40, 40, 90, 90), 0.8, 0)]]))
    assert isinstance(found, kind)
    if manifest.task == "segmentation":
        with pytest.raises(TypeError):
            detections_of([found])


def test_an_empty_window_has_no_detections(case: Case) -> None:
    """Nothing planted, nothing found; the columns keep their types."""
    (found,) = case.decode([[]])
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)
    assert found.boxes.dtype == found.scores.dtype == np.float32
    assert found.classes.dtype == np.int32


def test_a_planted_box_is_found_at_its_place(case: Case) -> None:
    """Corners to a hundredth of a pixel, the score and the class as planted."""
    (found,) = case.decode([[((40.5, 60.0, 90.5, 110.0), 0.8, 1)]])
    np.testing.assert_allclose(found.boxes, [[40.5, 60.0, 90.5, 110.0]], atol=0.01)
    np.testing.assert_allclose(found.scores, [0.8], atol=1e-4)
    assert found.classes.tolist() == [1]


def test_windows_of_a_batch_do_not_mix(case: Case) -> None:
    """Each window gets what was planted in it, in order."""
    if not case.batches:
        pytest.skip("one image a run")
    windows: list[Planted] = [
        [((10, 10, 30, 30), 0.9, 0)],
        [],
        [((50, 50, 90, 90), 0.7, 1), ((150, 150, 170, 190), 0.5, 0)],
    ]
    found = case.decode(windows)
    assert [len(f) for f in found] == [1, 0, 2]
    np.testing.assert_allclose(found[2].boxes[1], [150, 150, 170, 190], atol=0.01)


def test_the_threshold_is_respected(case: Case) -> None:
    """What scores below is dropped; an override moves the bar."""
    planted: list[Planted] = [[((10, 10, 50, 50), 0.8, 0), ((100, 100, 140, 140), 0.2, 0)]]
    assert len(case.decode(planted)[0]) == 1
    assert len(case.decode(planted, ModelThresholds(score=0.1))[0]) == 2
    assert len(case.decode(planted, ModelThresholds(score=0.9))[0]) == 0


def test_detections_come_in_total_order(case: Case) -> None:
    """Best first; equal scores by class and place, however the graph listed them."""
    planted: Planted = [
        ((10, 10, 40, 40), 0.5, 0),
        ((200, 10, 240, 40), 0.5, 0),
        ((100, 100, 140, 140), 0.9, 1),
        ((10, 150, 40, 190), 0.5, 1),
    ]
    (a,) = case.decode([planted])
    (b,) = case.decode([planted[::-1]])
    assert a.boxes.tobytes() == b.boxes.tobytes()
    assert a.classes.tolist() == [1, 0, 0, 1]
    assert a.scores[0] == a.scores.max()


def test_no_more_than_the_cap_and_those_the_best(case: Case) -> None:
    """max_detections of a window are kept, by score."""
    planted: Planted = [
        ((10 + 40 * (i % 5), 10 + 40 * (i // 5), 30 + 40 * (i % 5), 30 + 40 * (i // 5)),
         0.4 + i / 100, 0)
        for i in range(25)
    ]  # fmt: skip
    (found,) = case.decode([planted])
    assert len(found) == 20
    np.testing.assert_allclose(found.scores.min(), 0.45, atol=1e-3)


def test_overlaps_are_suppressed_where_the_graph_does_not(case: Case) -> None:
    """Two boxes on one object are one; boxes of two classes are two."""
    planted: Planted = [
        ((40, 40, 100, 100), 0.9, 0),
        ((48, 40, 108, 100), 0.8, 0),
        ((40, 48, 100, 108), 0.7, 1),
    ]
    (found,) = case.decode([planted])
    assert len(found) == (2 if case.nms else 3)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(any_case: Case, value: float) -> None:
    """NaN anywhere in any output: a sentence, never a detection."""
    for name in any_case.make([[((40, 40, 90, 90), 0.8, 0)]]):
        outputs = any_case.make([[((40, 40, 90, 90), 0.8, 0)]])
        if outputs[name].dtype.kind != "f":
            continue
        outputs[name].reshape(-1)[-1] = value
        with pytest.raises(ModelRejected, match="NaN or infinite") as e:
            any_case.read(outputs)
        assert e.value.reason is Reason.BAD_MODEL


def test_outputs_of_another_shape_are_refused(any_case: Case) -> None:
    """The sentence tells the shape there is, in the form 1×2×3."""
    outputs = {
        k: v[..., None, None] for k, v in any_case.make([[((4, 4, 90, 90), 0.8, 0)]]).items()
    }
    with pytest.raises(ModelRejected, match="×"):
        any_case.read(outputs)


def test_missing_outputs_are_named(any_case: Case) -> None:
    """What the decoder wants and what the graph has."""
    with pytest.raises(ModelRejected, match="other, spare"):
        any_case.read({"other": np.zeros((1, 2, 3), np.float32), "spare": np.zeros(1, np.float32)})


def test_boxes_without_area_are_dropped(case: Case) -> None:
    """A box of no width is none."""
    (found,) = case.decode([[((40, 40, 40, 90), 0.8, 0), ((100, 100, 150, 150), 0.8, 0)]])
    assert len(found) == 1


def test_logits_in_place_of_probabilities_are_refused() -> None:
    """Scores of 5 mean a forgotten activation; finding nothing sensible would be silent."""
    outputs = yolo_v8([[((10, 10, 40, 40), 5.0, 0)]])
    with pytest.raises(ModelRejected, match="logits"):
        CASES["yolo-v8"].read(outputs)


def test_yolo_layouts_are_told_apart_or_asked_for() -> None:
    """The number of classes decides; where it cannot, the manifest must."""
    manifest = manifest_of("yolo", classes=2)
    both = {"o": np.zeros((1, 6, 7), np.float32)}
    with pytest.raises(ModelRejected, match=r"decoder\.params\.version"):
        decoder_for(manifest).decode(both, manifest, manifest.thresholds)
    said = manifest_of("yolo", classes=2, version="v5")
    assert len(decoder_for(said).decode(both, said, said.thresholds)[0]) == 0
    with pytest.raises(ModelRejected, match="list of classes"):
        decoder_for(manifest).decode(
            {"o": np.zeros((1, 84, 8400), np.float32)}, manifest, manifest.thresholds
        )


def test_yolo_takes_the_rows_turned_as_well() -> None:
    """[N, A, 4 + C] is [N, 4 + C, A] transposed."""
    out = yolo_v8([[((10, 10, 40, 40), 0.9, 1)]])["output0"].transpose(0, 2, 1)
    (found,) = CASES["yolo-v8"].read({"o": out})
    np.testing.assert_allclose(found.boxes, [[10, 10, 40, 40]])


@pytest.mark.parametrize("case", ["yolo-end2end", "yolo-end2end-centres"])
def test_unused_rows_of_an_end_to_end_graph_are_no_finds(case: str) -> None:
    """Rows without area may name class -1, also for a job that takes every score; with area they
    may not."""
    outputs = CASES[case].make([[((10, 10, 40, 40), 0.9, 1)]])
    outputs["output0"][0, 1:, 5] = -1
    (found,) = detections_of(CASES[case].read(outputs, ModelThresholds(score=0)))
    np.testing.assert_allclose(found.boxes, [[10, 10, 40, 40]], atol=0.01)
    outputs["output0"][0, 1, :4] = outputs["output0"][0, 0, :4]
    with pytest.raises(ModelRejected, match="class -1"):
        CASES[case].read(outputs, ModelThresholds(score=0))


def test_a_plateau_is_one_peak() -> None:
    """Equal neighbours do not become a detection each."""
    outputs = centerpoint([[]])
    outputs["heatmap"][0, 0, 10:12, 10:12] = 0.9
    outputs["size"][:] = 3.0
    (found,) = CASES["centerpoint"].read(outputs)
    assert len(found) == 1


def test_labels_count_from_the_offset() -> None:
    """torchvision's 0 is the background unless the manifest says otherwise."""
    outputs = torchvision([[((10, 10, 40, 40), 0.9, 0), ((60, 60, 90, 90), 0.9, 1)]])
    outputs["labels"][:] = 0, 1
    with pytest.raises(ModelRejected, match=r"class -1 .* 2 classes"):
        CASES["torchvision"].read(outputs)
    manifest = manifest_of("torchvision", label_offset=0)
    (found,) = decoder_for(manifest).decode(outputs, manifest, manifest.thresholds)
    assert found.classes.tolist() == [0, 1]


def test_roles_may_be_named() -> None:
    """params.outputs maps a role to the graph's own name."""
    outputs = centerpoint([[((40, 40, 90, 90), 0.8, 0)]])
    outputs["hm"] = outputs.pop("heatmap")
    manifest = manifest_of("centerpoint", outputs={"heatmap": "hm"})
    assert len(decoder_for(manifest).decode(outputs, manifest, manifest.thresholds)[0]) == 1
