"""What is made out about graphs of each family, and what is left to people."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from model_graphs import beside, end2end, heatmaps, planes, planted, queries, raw_yolo, torchvision

from frond.contracts.errors import ModelRejected
from frond.contracts.modelspec import ModelManifest
from frond.models.folder import load_manifest
from frond.models.guess import Guess, guess, write_folder
from frond.models.session import ModelSession
from frond.models.testing import blob_model, colour_model, tile_model

FIXTURES = Path(__file__).parents[4] / "shared" / "data" / "onnx_fixtures" / "dummy_model"
NAMES = {0: "palm", 1: "road", 2: "roof"}
ULTRALYTICS = {
    "names": str(NAMES), "imgsz": "[64, 64]", "stride": "32", "task": "detect",
    "license": "AGPL-3.0 License (https://ultralytics.com/license)", "batch": "1",
}  # fmt: skip


def made(tmp_path: Path, outputs: dict[str, Any], **more: Any) -> Guess:
    """The folder that comes out must load and run: that is what a guess is for."""
    found = write_folder(planted(tmp_path / "My Model.onnx", outputs, **more), tmp_path / "out")
    assert found.problem is None
    assert load_manifest(tmp_path / "out") == found.manifest
    assert found.manifest.name == "my-model"
    return found


FAMILIES: dict[str, tuple[dict[str, Any], str, dict[str, Any], int]] = {
    "yolo v8": ({"output0": raw_yolo("v8", 3)}, "yolo", {"version": "v8"}, 3),
    "yolo v8 of one class": ({"output0": raw_yolo("v8", 1)}, "yolo", {"version": "v8"}, 1),
    "yolo v5": ({"output": raw_yolo("v5", 3)}, "yolo", {"version": "v5"}, 3),
    "yolo v5 of one class": ({"output": raw_yolo("v5", 1)}, "yolo", {"version": "v5"}, 1),
    "yolo v5 beside its raw heads": (
        {"output": raw_yolo("v5", 3), "head": np.zeros((1, 3, 8, 8, 8), "f4")},
        "yolo", {"version": "v5", "outputs": {"output": "output"}}, 3,
    ),
    "yolo end to end": ({"output0": end2end()}, "yolo-end2end", {}, 3),
    "rt-detr with its best class": (
        {"output0": end2end() / np.array([64, 64, 64, 64, 1, 1], "f4")},
        "yolo-end2end", {"boxes": "centres"}, 3,
    ),
    "detr": (queries(100, 4), "detr", {"activation": "softmax"}, 3),
    "rt-detr": (queries(300, 4), "detr", {"activation": "sigmoid"}, 4),
    "detr by other names": (
        {"a": queries(300, 5)["logits"], "b": queries(300, 5)["pred_boxes"]},
        "detr", {"activation": "sigmoid", "outputs": {"logits": "a", "pred_boxes": "b"}}, 5,
    ),
    "torchvision": (torchvision(), "torchvision", {"label_offset": 1}, 1),
    "torchvision by other names": (
        {"o1": torchvision()["boxes"], "o2": torchvision()["labels"], "o3": torchvision()["scores"]},
        "torchvision",
        {"label_offset": 1, "outputs": {"boxes": "o1", "labels": "o2", "scores": "o3"}}, 1,
    ),
    "centre points": (heatmaps(), "centerpoint", {"stride": 4, "peaks_suppressed": True}, 1),
    "centre points by other names": (
        {"hm": heatmaps()["heatmap"], "wh": heatmaps()["size"], "reg": heatmaps()["offset"]},
        "centerpoint",
        {"stride": 4, "peaks_suppressed": True, "sizes": "cells",
         "outputs": {"heatmap": "hm", "size": "wh", "offset": "reg"}}, 1,
    ),
    "masks of logits": (
        {"y": planes(4, logits=True)}, "semantic", {"activation": "softmax", "background": 0}, 3,
    ),
    "masks at a quarter": (
        {"y": planes(4, 16)}, "semantic", {"activation": "none", "background": 0}, 3,
    ),
    "masks of one class": (
        {"y": planes(1, logits=True)}, "semantic", {"activation": "sigmoid"}, 1,
    ),
    "windows' classes": (
        {"y": np.array([[2.5, -1.5, 0.25]], "f4")}, "tile-classification",
        {"activation": "softmax"}, 3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", list(FAMILIES))
def test_each_family_is_recognised_and_runs(tmp_path: Path, family: str) -> None:
    """By names, shapes and values; the decoder, its parameters and the number of classes."""
    outputs, decoder, params, classes = FAMILIES[family]
    found = made(tmp_path, outputs)
    assert found.manifest.decoder.name == decoder
    assert found.manifest.decoder.params == params
    assert len(found.manifest.classes) == classes
    assert "classes" in " ".join(found.fill_in)


@pytest.mark.parametrize(
    ("outputs", "decoder", "params", "classes"),
    [
        ({"output0": end2end()}, "yolo-end2end", {}, 3),
        ({"output0": raw_yolo("v8", 3)}, "yolo", {"version": "v8"}, 3),
        ({"output0": np.random.default_rng(1).uniform(0.2, 0.4, (1, 300, 7)).astype("f4")},
         "detr", {}, 3),
    ],
)  # fmt: skip
def test_what_ultralytics_wrote_is_used(
    tmp_path: Path, outputs: dict[str, Any], decoder: str, params: dict[str, Any], classes: int
) -> None:
    """Class names, licence, and 0…1 as it gives images; nothing is left but GSD."""
    found = made(tmp_path, outputs, metadata=ULTRALYTICS)
    manifest = found.manifest
    assert manifest.decoder.name == decoder
    assert manifest.decoder.params == params
    assert manifest.classes == ("palm", "road", "roof")
    assert manifest.licence == "AGPL-3.0"
    assert manifest.normalization.scale == pytest.approx(1 / 255)
    assert [line.partition(":")[0] for line in found.fill_in] == ["gsd_m"]


def test_a_free_size_is_what_it_was_exported_for(tmp_path: Path) -> None:
    """imgsz of the metadata goes before the sizes that are tried."""
    path = planted(
        tmp_path / "m.onnx", {"output0": raw_yolo("v8", 3, 96)}, size="s",
        metadata=ULTRALYTICS | {"imgsz": "[96, 96]"},
    )  # fmt: skip
    found = guess(path)
    assert found.manifest.input.size == 96
    assert "input.size" in found.guessed
    assert guess(planted(tmp_path / "n.onnx", {"y": planes(3, 512)}, size="s")).manifest.input.size == 512  # fmt: skip


def test_deepness_metadata_are_used(tmp_path: Path) -> None:
    """Centimetres become metres; a class called background is its channel."""
    metadata = {
        "class_names": json.dumps({"0": "roof", "1": "_background"}), "resolution": "20",
        "seg_thresh": "0.3", "model_type": '"Segmentor"',
    }  # fmt: skip
    manifest = made(tmp_path, {"y": planes(2)}, metadata=metadata).manifest
    assert manifest.gsd_m == pytest.approx(0.2)
    assert manifest.classes == ("roof",)
    assert manifest.decoder.params["background"] == 1
    assert manifest.thresholds.score == 0.3


@pytest.mark.parametrize(
    "metadata",
    [
        {"names": "{0: open('x')", "task": "detect", "stride": "32"},
        {"names": "[1, 2", "task": "detect", "imgsz": "huge", "stride": "()"},
        {"class_names": "[[[[", "resolution": "-3", "model_type": "{}"},
        {"names": "{0: 'a', 1: 'a', 2: ''}", "task": "detect", "stride": "1", "imgsz": "[0]"},
    ],
)
def test_odd_metadata_do_no_harm(tmp_path: Path, metadata: dict[str, str]) -> None:
    """They are somebody else's text: what cannot be used is passed over, nothing is run."""
    manifest = made(tmp_path, {"output0": raw_yolo("v8", 3)}, metadata=metadata).manifest
    assert len(set(manifest.classes)) == 3


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        ('["a", "a", "a-1"]', ("a", "a-1-1", "a-1")),
        ('["", "class-0", "a"]', ("class-0", "class-0-1", "a")),
        ("{0: 'a\\x7fb', 1: 'c\\u202ed', 2: 'e\\nf'}", ("a b", "c d", "e f")),
        ('["\\ud83d", "\\ud83c\\udf34", "棕榈: #x"]', ("class-0", "🌴", "棕榈: #x")),
    ],
)
def test_class_names_are_each_others_and_can_be_seen(
    tmp_path: Path, names: str, classes: tuple[str, ...]
) -> None:
    """Whatever stands in the graph: no name twice, none that steers a terminal or that UTF-8 has not;
    other scripts stay as they are."""
    found = made(tmp_path, {"output0": raw_yolo("v8", 3)}, metadata=ULTRALYTICS | {"names": names})
    assert found.manifest.classes == classes


def test_names_of_the_graph_make_no_fields(tmp_path: Path) -> None:
    """A name with a newline stays in its comment, in its line and in one piece where it counts; so do
    the words of an exporter."""
    forged = "y\nmetrics: {f1: 1.0}\ntraining_data: verified\n#\x7f\x85\u2028"
    raw = queries(300, 5)
    path = planted(
        tmp_path / "My Model.onnx", {forged: raw["logits"], "b\n": raw["pred_boxes"]},
        metadata=ULTRALYTICS | {
            "names": "5", "description": f"of\ud83d {forged}".encode(errors="replace").decode(),
            "license": "A\nmetrics:\x7f",
        },
    )  # fmt: skip
    found = write_folder(path, tmp_path / "out")
    assert found.problem is None
    assert (found.manifest.metrics, found.manifest.training_data) == ({}, "")
    assert found.manifest.decoder.params["outputs"] == {"logits": forged, "pred_boxes": "b\n"}
    assert found.manifest.licence == "A\nmetrics:\x7f"
    assert all(line.isprintable() for line in found.text.split("\n"))
    assert load_manifest(tmp_path / "out") == found.manifest


def test_the_manifest_is_utf8_whatever_the_locale(tmp_path: Path) -> None:
    """It is read as such."""
    names = json.dumps(["棕榈", "🌴", "é"])
    path = planted(tmp_path / "m.onnx", {"y": planes(3)}, metadata={"names": names})
    program = (
        "import sys; from pathlib import Path; from frond.models.guess import write_folder; "
        "print(write_folder(Path(sys.argv[1]), Path(sys.argv[2])).problem)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path), str(tmp_path / "out")], capture_output=True,
        check=True, text=True,
        env={"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    )  # fmt: skip
    assert done.stdout == "None\n"
    assert load_manifest(tmp_path / "out").classes == ("棕榈", "🌴", "é")


def test_logits_that_happen_to_lie_in_0_to_1_are_seen(tmp_path: Path) -> None:
    """Of a graph that is hardly trained: they follow an input far beyond an image's, which
    probabilities do not."""
    outputs = {"y": np.array([[0.25, 0.45, 0.75]], "f4")}
    found = made(tmp_path, outputs, sway=-1e-4, limit=5.0)
    assert found.manifest.decoder.params == {"activation": "softmax"}
    found = guess(planted(tmp_path / "p.onnx", outputs))
    assert found.manifest.decoder.params == {"activation": "none"}


def test_types_layouts_and_bands_are_seen(tmp_path: Path) -> None:
    """uint8 takes no normalisation; four bands in NHWC are read as they lie."""
    found = made(
        tmp_path, heatmaps(), layout="NHWC", dtype="uint8", bands=4
    ).manifest  # fmt: skip
    assert (found.input.layout, found.input.dtype, found.bands) == ("NHWC", "uint8", (1, 2, 3, 4))
    assert found.normalization.scale == 1
    half = guess(planted(tmp_path / "h.onnx", {"y": planes(3)}, dtype="float16", bands=1)).manifest
    assert (half.input.dtype, half.bands) == ("float16", (1,))


def test_channels_last_outputs_are_seen(tmp_path: Path) -> None:
    """Masks as TensorFlow exports them, in and out."""
    outputs = {"y": planes(3, layout="NHWC", logits=True)}
    manifest = made(tmp_path, outputs, layout="NHWC").manifest
    assert manifest.decoder.params["layout"] == "NHWC"
    assert len(manifest.classes) == 2


def test_every_guess_is_marked_on_its_line(tmp_path: Path) -> None:
    """Who reads the file sees what to doubt, and what to write."""
    found = made(tmp_path, queries(100, 4))
    lines = [line.strip() for line in found.text.splitlines()]

    def marked(field: str, mark: str) -> bool:
        begin = field.split(".")[-1] + ":"
        return any(line.startswith(begin) and mark in line for line in lines)

    assert all(marked(field, "# guess: ") for field in found.guessed)
    assert all(marked(field, "# FILL IN: ") for field in ("classes", "gsd_m", "licence"))
    assert {"decoder.name", "decoder.params.activation", "margin"} <= set(found.guessed)


def test_a_model_of_boxes_is_offered_to_estimate_scales(tmp_path: Path) -> None:
    """The size of what it finds is a line to uncomment, and nothing that models of areas have."""
    text = made(tmp_path, {"output0": raw_yolo("v8", 3, 64)}, metadata=ULTRALYTICS).text
    offered = next(line for line in text.splitlines() if line.startswith("# object_px: "))
    size = offered.removeprefix("# object_px: ").split()[0]
    said = text.replace(offered, f"object_px: {size}").replace("gsd_m:  #", "gsd_m: 0.1  #")
    found = ModelManifest.model_validate(yaml.safe_load(said))
    assert (found.object_px, found.gsd_m) == (float(size), 0.1)
    (tmp_path / "areas").mkdir()
    assert "object_px" not in made(tmp_path / "areas", {"y": planes(2)}).text


@pytest.mark.parametrize(
    ("outputs", "more", "words"),
    [
        ({"y": np.zeros((1, 5, 7, 9, 11), "f4")}, {}, r"No decoder reads these outputs: y 1×5×7×9×11"),
        ({"y": planes(2, 60)}, {}, "does not lie on a window of 64×64"),
        ({"y": np.zeros((1, 64, 64), "f4")}, {}, "no axis of classes"),
        ({"y": planes(2)}, {"sides": (64, 32)}, "equal sides"),
        ({"y": planes(2)}, {"more_inputs": 1}, "takes 2 inputs"),
        ({"y": planes(2)}, {"size": 4}, "8 to 4096"),
        ({"output0": raw_yolo("v8", 35), "output1": np.zeros((1, 32, 16, 16), "f4")}, {},
         "instance masks"),
        ({"output0": raw_yolo("v8", 3)}, {"metadata": ULTRALYTICS | {"task": "pose"}}, "for 'pose'"),
    ],
)  # fmt: skip
def test_what_no_decoder_reads_is_refused_in_words(
    tmp_path: Path, outputs: dict[str, Any], more: dict[str, Any], words: str
) -> None:
    """And no folder is left behind."""
    path = planted(tmp_path / "m.onnx", outputs, **more)
    with pytest.raises(ModelRejected, match=words):
        write_folder(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_that_are_no_graph_are_refused(tmp_path: Path) -> None:
    """A sentence, no traceback."""
    (tmp_path / "m.onnx").write_bytes(b"PK\x03\x04 not a graph")
    with pytest.raises(ModelRejected, match=r"cannot load m\.onnx"):
        guess(tmp_path / "m.onnx")
    with pytest.raises(ModelRejected, match="There is no file"):
        guess(tmp_path / "none.onnx")


def test_nobodys_words_are_overwritten(tmp_path: Path) -> None:
    """A model.yaml that is there stays; a graph that lies in the folder already is taken there."""
    folder = tmp_path / "mine"
    path = planted(folder / "model.onnx", {"y": planes(3)})
    assert write_folder(path, folder).manifest.name == "mine"
    before = (folder / "model.yaml").read_text()
    with pytest.raises(ModelRejected, match="there already"):
        write_folder(path, folder)
    assert (folder / "model.yaml").read_text() == before


def test_outputs_that_nobody_reads_say_nothing_of_the_batch(tmp_path: Path) -> None:
    """The folder runs, and its batch stays free."""
    graph = beside(blob_model(tmp_path / "blob")) / "model.onnx"
    found = write_folder(graph, tmp_path / "out")
    assert found.problem is None
    assert found.manifest.decoder.name == "centerpoint"
    assert found.manifest.input.batch is None


def test_weights_beside_the_graph_come_along(tmp_path: Path) -> None:
    """torch's newer exporter keeps them in a file of their own."""
    path = planted(tmp_path / "in" / "net.onnx", {"y": planes(3)})
    onnx.save_model(
        onnx.load(str(path)), str(path), save_as_external_data=True, location="net.onnx.data",
        size_threshold=64,
    )  # fmt: skip
    found = write_folder(path, tmp_path / "out")
    assert found.problem is None
    ModelSession(tmp_path / "out")


def test_models_of_this_repository_are_recognised(tmp_path: Path) -> None:
    """Those of the tests: blob, colours and tiles, by their graphs alone."""
    for make, decoder, classes in (
        (blob_model, "centerpoint", 1), (colour_model, "semantic", 2),
        (tile_model, "tile-classification", 3),
    ):  # fmt: skip
        manifest = guess(make(tmp_path / decoder) / "model.onnx").manifest
        assert (manifest.decoder.name, len(manifest.classes)) == (decoder, classes)


@pytest.mark.skipif(not FIXTURES.is_dir(), reason="shared/data/onnx_fixtures is not here")
def test_graphs_of_strangers_are_recognised_or_refused_in_words(tmp_path: Path) -> None:
    """17 graphs of a QGIS plugin: what has scores for pixels becomes a folder that runs."""
    fitting, refused = [], {}
    for path in sorted(FIXTURES.rglob("*.onnx")):
        try:
            found = write_folder(path, tmp_path / f"{len(fitting)}-{len(refused)}")
        except ModelRejected as e:
            refused[f"{path.parent.name}/{path.name}"] = e.detail
            continue
        assert found.problem is None, path
        assert found.manifest.task == "segmentation"
        fitting.append(path.name)
    assert len(fitting) == 8
    assert all("Regress" in why or "No decoder" in why or "axis of classes" in why
               or "484×484" in why for why in refused.values()), refused  # fmt: skip
