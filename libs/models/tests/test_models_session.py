"""Sessions over real ONNX graphs: fitted, refused in plain words, deterministic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from model_graphs import beside
from onnx import TensorProto, helper, numpy_helper

from frond.contracts.errors import ModelRejected
from frond.contracts.modelspec import ModelThresholds
from frond.contracts.reasons import Reason
from frond.models import session
from frond.models.decoders import DECODERS
from frond.models.folder import bad_model
from frond.models.session import ModelSession
from frond.models.testing import MAGENTA, blob_model

CPU = ["CPUExecutionProvider"]
FIXTURES = Path(__file__).parents[4] / "shared" / "data" / "onnx_fixtures" / "dummy_model"


def write(
    folder: Path,
    nodes: Sequence[Any],
    input_shape: Sequence[Any],
    outputs: dict[str, Sequence[Any]],
    constants: dict[str, np.ndarray],
    manifest: dict[str, Any],
    input_type: int = TensorProto.FLOAT,
) -> Path:
    graph = helper.make_graph(
        list(nodes),
        "t",
        [helper.make_tensor_value_info("x", input_type, list(input_shape))],
        [helper.make_tensor_value_info(k, TensorProto.FLOAT, list(v)) for k, v in outputs.items()],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(folder / "model.onnx"))
    base = {"name": "t", "classes": ["a"], "margin": 0, "input": {"size": 16}}
    (folder / "model.yaml").write_text(yaml.safe_dump(base | manifest))
    return folder


def echo(folder: Path, *, batch: Any = "n", **more: Any) -> Path:
    """A graph whose one detection's score is the mean of the normalised input: x̄ / 1000."""
    layout = more.pop("layout", "NCHW")
    shape = [batch, 3, 16, 16] if layout == "NCHW" else [batch, 16, 16, 3]
    dtype = more.pop("dtype", "float32")
    kinds = {
        "float32": TensorProto.FLOAT,
        "uint8": TensorProto.UINT8,
        "float16": TensorProto.FLOAT16,
    }
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["f"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Mul", ["mean", "milli"], ["s4"]),
        helper.make_node("Squeeze", ["s4", "last"], ["s"]),
        helper.make_node("Mul", ["s", "box0"], ["zero"]),
        helper.make_node("Add", ["zero", "box"], ["boxes"]),
        helper.make_node("Concat", ["boxes", "s", "zeros"], ["out"], axis=2),
    ]
    nodes.insert(6, helper.make_node("Mul", ["s", "none"], ["zeros"]))
    return write(
        folder, nodes, shape, {"out": [batch, 1, 6]},
        {
            "milli": np.array(0.001, np.float32), "last": np.array([3], np.int64),
            "box0": np.zeros((1, 1, 4), np.float32), "none": np.array(0, np.float32),
            "box": np.array([[[2, 3, 10, 11]]], np.float32),
        },
        {"decoder": more.pop("decoder", {"name": "yolo-end2end"}),
         "input": {"size": 16, "layout": layout, "dtype": dtype} | more.pop("input", {}), **more},
        kinds[dtype],
    )  # fmt: skip


def score_of(session: ModelSession, window: np.ndarray) -> float:
    (found,) = session.detect([window], ModelThresholds(score=0.0))
    return float(found.scores[0]) * 1000 if len(found) else 0.0


def planted(size: int = 256) -> tuple[np.ndarray, list[tuple[int, int, int, int]]]:
    rng = np.random.default_rng(3)
    image = rng.integers(40, 120, (3, size, size)).astype(np.uint8)
    truth = []
    for x, y in ((20, 30), (101, 67), (200, 210), (63, 180), (150, 150)):
        image[:, y : y + 16, x : x + 16] = np.array(MAGENTA)[:, None, None]
        truth.append((x, y, x + 16, y + 16))
    return image, truth


def test_planted_squares_are_found_where_they_are(tmp_path: Path) -> None:
    """The whole road of a window, on a real graph: boxes to a tenth of a pixel."""
    image, truth = planted()
    session = ModelSession(blob_model(tmp_path))
    (found,) = session.detect([image])
    assert len(found) == len(truth)
    assert found.scores.min() > 0.85
    nearest = np.abs(found.boxes[:, None] - np.array(truth)[None]).max(axis=2).min(axis=0)
    assert nearest.max() < 0.1


def test_twice_the_same_is_the_same_bits(tmp_path: Path) -> None:
    """Two sessions, two runs each, one answer."""
    image, _ = planted()
    folder = blob_model(tmp_path)
    runs = [s.run([image, image]) for s in (ModelSession(folder), ModelSession(folder))] + [
        ModelSession(folder, threads=1).run([image, image])
    ]
    for name in runs[0]:
        assert runs[0][name].tobytes() == runs[1][name].tobytes() == runs[2][name].tobytes()
        assert len(runs[0][name]) == 2


def test_batches_are_always_full(tmp_path: Path) -> None:
    """The tail is filled by repeating, and cut away again."""
    session = ModelSession(blob_model(tmp_path, batch=4))
    image, truth = planted()
    assert session.batch == 4
    assert session.prepare([image]).shape == (4, 3, 256, 256)
    found = session.detect([image] * 6)
    assert [len(f) for f in found] == [len(truth)] * 6
    with pytest.raises(ValueError, match="batch of 4"):
        session.prepare([image] * 5)
    with pytest.raises(ValueError, match="the model takes"):
        session.prepare([image[:, :-1]])


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_layouts_dtypes_and_normalisation(tmp_path: Path, layout: str, dtype: str) -> None:
    """(x·scale − mean) / std by band, in the graph's own layout and type."""
    norm: dict[str, Any] = {}
    window = np.empty((3, 16, 16), np.uint8)
    window[:] = np.array([60, 120, 180])[:, None, None]
    expected = 120.0
    if dtype != "uint8":
        norm = {"normalization": {"scale": 2.0, "mean": [10, 20, 30], "std": [1, 2, 5]}}
        expected = ((120 - 10) / 1 + (240 - 20) / 2 + (360 - 30) / 5) / 3
    session = ModelSession(echo(tmp_path, layout=layout, dtype=dtype, **norm))
    assert session.layout == layout[1:]
    given = window if layout == "NCHW" else np.ascontiguousarray(window.transpose(1, 2, 0))
    given.flags.writeable = False
    assert score_of(session, given) == pytest.approx(expected, rel=2e-3)


def test_uint8_cannot_be_normalised(tmp_path: Path) -> None:
    """A manifest that asks for it is wrong, and says so."""
    with pytest.raises(ModelRejected, match="takes uint8"):
        ModelSession(echo(tmp_path, dtype="uint8", normalization={"scale": 0.5}))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        ({"batch": 2, "input": {"batch": 4}}, "fixed to a batch of 2.*says 4"),
        ({"input": {"dtype": "uint8"}}, "takes float32 input, but model.yaml says uint8"),
        ({"input": {"size": 32}}, "takes windows of 3×16×16, but model.yaml says 3×32×32"),
        ({"bands": [1, 2, 3, 4]}, "4 bands"),
        ({"input": {"name": "image"}}, "no input 'image'; its input is 'x'"),
    ],
)
def test_a_graph_that_does_not_fit_its_manifest(
    tmp_path: Path, make: dict[str, Any], words: str
) -> None:
    """Refused at load, saying which field to change."""
    with pytest.raises(ModelRejected, match=words) as e:
        ModelSession(echo(tmp_path, **make))
    assert e.value.reason is Reason.BAD_MODEL


def test_a_fixed_batch_is_taken_from_the_graph(tmp_path: Path) -> None:
    """Unless the manifest contradicts it."""
    assert ModelSession(echo(tmp_path, batch=3)).batch == 3


def test_outputs_that_the_decoder_does_not_read_are_left_alone(tmp_path: Path) -> None:
    """Whatever their shapes: what is read is the same bytes without them."""
    image, _ = planted()
    plain = ModelSession(blob_model(tmp_path / "plain")).run([image])
    more = ModelSession(beside(blob_model(tmp_path / "more"))).run([image])
    assert {k: v.tobytes() for k, v in more.items()} == {k: v.tobytes() for k, v in plain.items()}


def test_of_several_outputs_the_right_one_is_named(tmp_path: Path) -> None:
    """In decoder.params.outputs; who does not is told so, and not of a shape that nobody reads."""
    named = {"name": "yolo-end2end", "params": {"outputs": {"output": "out"}}}
    session = ModelSession(beside(echo(tmp_path / "named", decoder=named)))
    assert list(session.run([np.zeros((3, 16, 16), np.uint8)])) == ["out"]
    words = r"needs an output 'output'; the graph has anchors, out, scale\. Name it"
    with pytest.raises(ModelRejected, match=words):
        ModelSession(beside(echo(tmp_path / "not")))
    wrong = {"name": "yolo-end2end", "params": {"outputs": ["out"]}}
    with pytest.raises(ModelRejected, match="must map roles"):
        ModelSession(beside(echo(tmp_path / "wrong", decoder=wrong)))


def test_what_is_no_graph_is_refused(tmp_path: Path) -> None:
    """Any bytes in model.onnx's place."""
    folder = blob_model(tmp_path)
    for raw in (b"", b"not a graph", (folder / "model.onnx").read_bytes()[:300]):
        (folder / "model.onnx").write_bytes(raw)
        with pytest.raises(ModelRejected, match=r"cannot load model\.onnx|takes 0 inputs"):
            ModelSession(folder)


@pytest.mark.filterwarnings("ignore:overflow")
def test_nan_shows_at_load(tmp_path: Path) -> None:
    """A model that answers NaN to a plain sample never reaches a job."""
    with pytest.raises(ModelRejected, match="NaN"):
        ModelSession(echo(tmp_path, normalization={"scale": 3e38}))


def test_torchvision_graphs_run_one_image_at_a_time(tmp_path: Path) -> None:
    """Rank 3 input, outputs without a batch axis."""
    node = helper.make_node
    folder = write(
        tmp_path,
        [
            node("ReduceMax", ["x"], ["top"], keepdims=0),
            node("Mul", ["top", "share"], ["s0"]),
            node("Unsqueeze", ["s0", "zero"], ["scores"]),
            node("Identity", ["box"], ["boxes"]),
            node("Identity", ["one"], ["labels"]),
        ],
        [3, 16, 16],
        {"boxes": [1, 4], "labels": [1], "scores": [1]},
        {"share": np.array(1 / 255, np.float32), "zero": np.array([0], np.int64),
         "box": np.array([[1, 2, 9, 9]], np.float32), "one": np.array([1], np.float32)},
        {"decoder": {"name": "torchvision"}},
    )  # fmt: skip
    session = ModelSession(folder)
    assert session.batch == 1
    dark = np.zeros((3, 16, 16), np.uint8)
    found = session.detect([dark, np.full_like(dark, 255)])
    assert [len(f) for f in found] == [0, 1]


def _fixtures() -> list[Path]:
    return sorted(FIXTURES.rglob("*.onnx"))


@pytest.mark.skipif(not FIXTURES.is_dir(), reason="the shared data is not here")
@pytest.mark.parametrize(
    "decoder", sorted(d.name for d in DECODERS.values() if d.task == "detection")
)
def test_foreign_graphs_are_refused_in_plain_words(tmp_path: Path, decoder: str) -> None:
    """None of the fixtures is a detector: each loads as a graph and is refused as a model."""
    assert len(_fixtures()) == 17
    for path in _fixtures():
        size = 224 if "recognition" in path.name else 64 if "superres" in path.name else 512
        folder = tmp_path / path.stem
        folder.mkdir(exist_ok=True)
        (folder / "model.onnx").write_bytes(path.read_bytes())
        (folder / "model.yaml").write_text(
            yaml.safe_dump(
                {
                    "name": "fixture", "classes": ["a"], "decoder": {"name": decoder},
                    "input": {"size": size, "batch": 1}, "margin": 0,
                }
            )
        )  # fmt: skip
        with pytest.raises(ModelRejected) as e:
            ModelSession(folder)
        assert e.value.reason is Reason.BAD_MODEL
        assert "Traceback" not in e.value.detail
        assert "fixture" in e.value.detail


class Failing:
    """ONNX Runtime's session as one on a device whose first run fails."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def run(self, *_: Any) -> Any:
        raise RuntimeError("EPFail: no kernel image is available")


@pytest.mark.parametrize("how", ["run", "load", "left out", "nowhere"])
def test_a_provider_that_does_not_run_a_graph_leaves_the_next_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    how: str,
) -> None:
    """It may fail to load it, at its first run, or be left out by ONNX Runtime without a word: a line
    in the log says so. Where the graph cannot run anywhere, that is said, and nothing else."""
    chains: list[Sequence[str]] = []
    really = session.open_graph

    def opened(path: Path, providers: Sequence[str], **more: Any) -> Any:
        chains.append(list(providers))
        real = really(path, CPU, **more)
        there = "CUDAExecutionProvider" in providers
        if there and how == "load":
            raise bad_model("there is no device")
        return Failing(real) if how == "nowhere" or (there and how == "run") else real

    both = ["CUDAExecutionProvider", *CPU]
    monkeypatch.setattr(session.ort, "get_available_providers", lambda: both)
    monkeypatch.setattr(session, "open_graph", opened)
    folder = blob_model(tmp_path / "m")
    if how == "nowhere":
        with pytest.raises(ModelRejected, match="could not be run"):
            ModelSession(folder)
        assert (chains, caplog.messages) == ([both, CPU], [])
        return
    made = ModelSession(folder, threads=2)
    assert made.providers == tuple(CPU)
    assert chains == ([both] if how == "left out" else [both, CPU])
    why = {"run": "no kernel image", "load": "no device", "left out": "left it out"}[how]
    (line,) = caplog.messages
    assert "runs with CPUExecutionProvider; CUDAExecutionProvider was asked for" in line
    assert why in line
    # on a device that is there after all, what runs beside would give other bytes
    made.share(2)
    assert (chains[-1], chains.count(both)) == (CPU, 1)


def test_nothing_is_logged_where_the_first_provider_runs_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor of those that are not installed."""
    ModelSession(blob_model(tmp_path / "m"))
    assert caplog.messages == []


def test_each_version_has_engines_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT's engines hold weights, and ONNX Runtime tells them apart by names in the graph alone.
    ONNX Runtime does not go on by itself, either, where a provider fails: it would with other options."""
    asked: list[dict[str, Any]] = []

    def refused(path: str, options: Any, **how: Any) -> Any:
        asked.append(how)
        raise RuntimeError("no device")

    monkeypatch.setattr(
        session.ort, "get_available_providers", lambda: ["TensorrtExecutionProvider"]
    )
    monkeypatch.setattr(session.ort, "InferenceSession", refused)
    folders = [blob_model(tmp_path / "one"), blob_model(tmp_path / "two", margin=9)]
    for folder in (*folders, folders[0]):
        with pytest.raises(ModelRejected):
            session.open_graph(folder / "model.onnx", cache_dir=tmp_path / "cache")
    options = [dict(how["providers"])["TensorrtExecutionProvider"] for how in asked]
    engines = [Path(o["trt_engine_cache_path"]) for o in options]
    assert engines[0] == engines[2] != engines[1]
    assert all(e.is_dir() and (tmp_path / "cache") in e.parents for e in engines)
    assert len({o["trt_timing_cache_path"] for o in options}) == 1
    assert {how["enable_fallback"] for how in asked} == {0}
