"""Segmentation: planes against a reference that is written out pixel by pixel, and real graphs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from frond.contracts.errors import ModelRejected
from frond.contracts.modelspec import ModelManifest
from frond.contracts.reasons import Reason
from frond.models.decoders import decoder_for, planes_of
from frond.models.decoders.semantic import params_of, upsampled
from frond.models.session import ModelSession
from frond.models.testing import colour_model

SIZE = 16


def manifest_of(classes: int = 2, size: int = SIZE, **params: Any) -> ModelManifest:
    return ModelManifest.model_validate(
        {
            "name": "m", "task": "segmentation", "margin": 0, "input": {"size": size},
            "decoder": {"name": "semantic", "params": params},
            "classes": [f"c{i}" for i in range(classes)],
        }
    )  # fmt: skip


def planes(out: np.ndarray, manifest: ModelManifest) -> list[np.ndarray]:
    found = decoder_for(manifest).decode({"out": out}, manifest, manifest.thresholds)
    return [one.planes for one in planes_of(found)]


def logits(n: int, k: int, side: int, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, (n, k, side, side)).astype(np.float32)


def reference(out: np.ndarray, size: int, activation: str, background: int | None) -> np.ndarray:
    """One window [K, h, h] in Python's own numbers: interpolate, activate, round, reorder."""
    k, side, _ = out.shape

    def at(channel: int, y: int, x: int) -> float:
        def place(i: int) -> tuple[int, int, float]:
            where = max((i + 0.5) * side / size - 0.5, 0.0)
            low = int(where)
            return low, min(low + 1, side - 1), where - low

        (y0, y1, v), (x0, x1, u) = place(y), place(x)
        a, b, c, d = (float(out[channel, j, i]) for j in (y0, y1) for i in (x0, x1))
        return (a * (1 - u) + b * u) * (1 - v) + (c * (1 - u) + d * u) * v

    rows = []
    for y in range(size):
        for x in range(size):
            values = [at(c, y, x) for c in range(k)]
            if activation == "softmax":
                total = sum(math.exp(v - max(values)) for v in values)
                values = [math.exp(v - max(values)) / total for v in values]
            elif activation == "sigmoid":
                values = [1 / (1 + math.exp(-v)) for v in values]
            rival = 1 if background is None else max(1, round(values.pop(background) * 255))
            rows.append([*(round(v * 255) for v in values), rival])
    return np.array(rows).T.reshape(-1, size, size)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("background", [None, 0, 1, 2])
@pytest.mark.parametrize("side", [SIZE, SIZE // 4])
def test_planes_are_those_of_the_reference(
    activation: str, background: int | None, side: int
) -> None:
    """Each pixel of each plane; only what lies between two numbers may fall on either side."""
    classes = 3 if background is None else 2
    out = logits(2, 3, side)
    said = {} if background is None else {"background": background}
    found = planes(out, manifest_of(classes, activation=activation, **said))
    for one, window in zip(found, out, strict=True):
        assert one.dtype == np.uint8
        assert one.shape == (classes + 1, SIZE, SIZE)
        far = np.abs(one.astype(int) - reference(window, SIZE, activation, background))
        assert far.max() <= 1
        assert (far != 0).mean() < 0.001


def test_probabilities_are_taken_as_they_are() -> None:
    """rint(p · 255); what rounding brought outside 0…1 is brought back; logits are refused."""
    out = np.zeros((1, 2, SIZE, SIZE), np.float32)
    out[0, 0, 0, :5] = 0.5, 1.0, 1.001, -0.001, 0.1
    (found,) = planes(out, manifest_of())
    assert found[0, 0, :5].tolist() == [128, 255, 255, 0, 26]
    assert (found[2] == 1).all()
    with pytest.raises(ModelRejected, match="logits"):
        planes(out * 5, manifest_of())


def test_the_background_never_says_that_a_pixel_means_nothing() -> None:
    """0 in the rival plane is kept for that: a background of 0 is written as 1."""
    out = np.zeros((1, 3, SIZE, SIZE), np.float32)
    out[0, 1] = 1.0
    (found,) = planes(out, manifest_of(background=2))
    assert (found[0] == 0).all() and (found[1] == 255).all() and (found[2] == 1).all()
    (found,) = planes(out, manifest_of(background=1))
    assert (found[:2] == 0).all() and (found[2] == 255).all()


def test_large_logits_do_not_overflow() -> None:
    """A sure model is sure, not NaN."""
    out = np.zeros((1, 2, SIZE, SIZE), np.float32)
    out[0, 0], out[0, 1] = 3e4, -3e4
    for activation in ("softmax", "sigmoid"):
        (found,) = planes(out, manifest_of(activation=activation))
        assert (found[0] == 255).all() and (found[1] == 0).all()


def test_channels_may_come_last() -> None:
    """NHWC is NCHW turned."""
    out = logits(2, 2, SIZE)
    turned = np.ascontiguousarray(out.transpose(0, 2, 3, 1))
    plain = planes(out, manifest_of(activation="sigmoid"))
    for a, b in zip(
        plain, planes(turned, manifest_of(activation="sigmoid", layout="NHWC")), strict=True
    ):
        assert (a == b).all()


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8])
def test_scaling_up_is_what_onnx_calls_linear(factor: int) -> None:
    """ONNX's Resize, linear, half_pixel: what an exported interpolate does inside a graph."""
    size = 24
    small = logits(1, 2, size // factor)
    node = helper.make_node(
        "Resize", ["x", "", "scales"], ["y"], mode="linear",
        coordinate_transformation_mode="half_pixel",
    )  # fmt: skip
    graph = helper.make_graph(
        [node], "r",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, small.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array([1, 1, factor, factor], np.float32), "scales")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, {"x": small})
    np.testing.assert_allclose(upsampled(small[0], size), wanted[0], atol=1e-5)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"activation": "tanh"}, "'tanh'; it may be none, softmax or sigmoid"),
        ({"layout": "CHW"}, "'CHW'; it may be NCHW or NHWC"),
        ({"background": 3}, "with 2 classes it is a channel from 0 to 2"),
        ({"background": True}, "background is True"),
        ({"background": -1}, "background is -1"),
        ({"min_area": -1}, "min_area is -1"),
        ({"min_area": 2.5}, "no whole number of pixels"),
        ({"min_area": "much"}, "no whole number of pixels"),
    ],
)
def test_parameters_out_of_range_are_refused(params: dict[str, Any], words: str) -> None:
    """In words that say what may stand there."""
    with pytest.raises(ModelRejected, match=words) as e:
        params_of(manifest_of(**params))
    assert e.value.reason is Reason.BAD_MODEL


def test_one_class_needs_a_rival_or_a_sigmoid() -> None:
    """Softmax over one channel finds the class everywhere, in silence."""
    with pytest.raises(ModelRejected, match="is 1 everywhere"):
        params_of(manifest_of(1, activation="softmax"))
    assert params_of(manifest_of(1, activation="softmax", background=0)).background == 0
    assert params_of(manifest_of(1, activation="sigmoid")).min_area == 16


@pytest.mark.parametrize(
    ("shape", "params", "words"),
    [
        ((1, 3, 16, 16), {}, "is 1×3×16×16; 2 classes and no background need N×2×h×w"),
        ((1, 2, 16, 16), {"background": 0}, "2 classes and a background need N×3×h×w"),
        ((1, 2, 16, 16), {"layout": "NHWC"}, "is 1×2×16×16; .* need N×h×w×2"),
        ((1, 2, 5, 5), {}, "h and w 16 or a whole fraction of it"),
        ((1, 2, 32, 32), {}, "a whole fraction"),
        ((1, 2, 16, 8), {}, "a whole fraction"),
        ((1, 16, 16), {}, "is 1×16×16"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    shape: tuple[int, ...], params: dict[str, Any], words: str
) -> None:
    """With the shape as the graph gives it, and which lines of the manifest to look at."""
    with pytest.raises(ModelRejected, match=words):
        planes(np.zeros(shape, np.float32), manifest_of(**params))


@pytest.mark.parametrize(("shrink", "activation"), [(1, "none"), (1, "softmax"), (4, "softmax")])
def test_a_real_graph_from_pixels_to_planes(tmp_path: Path, shrink: int, activation: str) -> None:
    """Red is red, green is green and the rest is background, in every window of a batch."""
    session = ModelSession(
        colour_model(tmp_path, 16, margin=0, shrink=shrink, params={"activation": activation}),
        batch=3,
    )
    windows = [np.zeros((3, 16, 16), np.uint8) for _ in range(2)]
    windows[0][0, :, :8] = 255
    windows[0][1, :, 8:] = 255
    windows[1][:] = 200
    both = planes_of(session.decode(session.run(windows), session.manifest.thresholds))
    first, second = (one.planes for one in both)
    # away from the line between them, which a smaller output blurs
    assert (first[0, :, :6] > 250).all() and (first[0, :, 10:] < 5).all()
    assert (first[1, :, :6] < 5).all() and (first[1, :, 10:] > 250).all()
    assert (second[2] > 250).all() and (second[:2] < 5).all()


def test_the_same_windows_give_the_same_planes(tmp_path: Path) -> None:
    """With another session, another batch, another place in the batch."""
    folder = colour_model(tmp_path, 16, margin=0, params={"activation": "softmax"})
    rng = np.random.default_rng(9)
    windows = [rng.integers(0, 256, (3, 16, 16)).astype(np.uint8) for _ in range(3)]

    def run(session: ModelSession, some: list[np.ndarray]) -> list[bytes]:
        found = planes_of(session.decode(session.run(some), session.manifest.thresholds))
        return [one.planes.tobytes() for one in found]

    whole = run(ModelSession(folder, batch=3), windows)
    again = run(ModelSession(folder, batch=3), windows[::-1])
    assert whole == again[::-1]
    single = ModelSession(folder, batch=1)
    assert [run(single, [w])[0] for w in windows] == whole


def test_a_detection_decoder_for_a_segmentation_model_is_refused_at_load(tmp_path: Path) -> None:
    """Before the graph is opened; the sentence names the decoder that fits."""
    folder = colour_model(tmp_path)
    manifest = yaml.safe_load((folder / "model.yaml").read_text())
    manifest["decoder"] = {"name": "yolo"}
    (folder / "model.yaml").write_text(yaml.safe_dump(manifest))
    with pytest.raises(ModelRejected, match="For segmentation there is: semantic"):
        ModelSession(folder)
