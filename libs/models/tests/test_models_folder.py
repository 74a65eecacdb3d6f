"""Model folders: what is read, what is refused and in which words, and their digest."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import onnxruntime as ort
import pytest
from model_graphs import planes, planted

from frond.contracts.errors import ModelRejected
from frond.contracts.reasons import Reason
from frond.models.check import check
from frond.models.folder import folder_digest, load_manifest, parse_manifest
from frond.models.guess import write_folder
from frond.models.testing import blob_model

GOOD = """
name: palms
decoder: {name: yolo}
classes: [palm]
input: {size: 256}
"""


def test_a_folder_is_read(tmp_path: Path) -> None:
    """The manifest comes with its defaults filled in."""
    manifest = load_manifest(blob_model(tmp_path / "m"))
    assert manifest.name == "blob"
    assert manifest.max_detections is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: [palms", "not YAML.*line 1"),
        ("- a\n- b", "mapping of fields.*not a list"),
        ("", "mapping"),
        ("\tname: x", "not YAML"),
        ("a: &x [1]\nb: *x", "aliases"),
        (GOOD + "name: twice", "'name' is there twice"),
        (GOOD + "colour: red", "colour is no field of a model"),
        (GOOD.replace("classes: [palm]", ""), "classes is missing"),
        (GOOD.replace("palms", "Palm Trees!"), "name:"),
        (GOOD + "margin: 128", "leaves no core"),
        (GOOD + "object_px: 60", "gsd_m, which is not set"),
        (GOOD + "gsd_m: 0.1\nobject_px: 300", "more than half of a window"),
        (GOOD + "gsd_m: 0.1\nobject_px: 60\ntask: classification", "size of boxes"),
        (GOOD + "normalization: {mean: [1, 2]}", "mean has 2 numbers for 3 bands"),
        (GOOD + "normalization: {std: [0]}", "neither std nor scale 0"),
        (GOOD + "normalization: {mean: [.nan]}", "finite"),
        (GOOD.replace("[palm]", "[palm, palm]"), "a name twice"),
        (GOOD + "bands: [0, 1, 2]", "count from 1"),
        ("!!python/object/apply:os.system ['true']", "not YAML"),
        ("x: " + "[" * 5000, "not YAML"),
        ("x: \x00", "not YAML"),
        ("a" * 300_000, "300000 bytes"),
    ],
)
def test_bad_manifests_are_refused_in_plain_words(text: str, words: str) -> None:
    """BAD_MODEL, naming the field or the line; nothing else is raised."""
    with pytest.raises(ModelRejected, match=words) as e:
        parse_manifest(text.encode())
    assert e.value.reason is Reason.BAD_MODEL


def test_what_is_of_no_one_field_is_told_as_a_sentence() -> None:
    """It names the fields itself; `the whole` is none."""
    with pytest.raises(ModelRejected) as e:
        parse_manifest((GOOD + "object_px: 60").encode())
    assert ": object_px is a size at gsd_m, which is not set." in str(e.value)
    assert "whole" not in str(e.value)


def test_classes_that_no_class_raster_has_room_for_are_refused() -> None:
    """Of a segmentation: before anything is run or pushed, as masks would be at the end. Boxes may
    be of any number of classes."""
    areas = "\ntask: segmentation\n"

    def of(count: int) -> str:
        return GOOD.replace("[palm]", f"[{', '.join(f'c{n}' for n in range(count))}]")

    assert len(parse_manifest((of(254) + areas).encode()).classes) == 254
    assert len(parse_manifest(of(255).encode()).classes) == 255
    with pytest.raises(ModelRejected, match="255 classes; a class raster has room for 254") as e:
        parse_manifest((of(255) + areas).encode())
    assert e.value.reason is Reason.BAD_MODEL


def test_bytes_that_are_no_text_are_refused() -> None:
    """A binary file in model.yaml's place."""
    with pytest.raises(ModelRejected, match="not YAML"):
        parse_manifest(b"name: \x80\x81\xfe")


def test_an_incomplete_folder_says_what_is_missing(tmp_path: Path) -> None:
    """No folder, no graph, no manifest."""
    with pytest.raises(ModelRejected, match="is no folder"):
        load_manifest(tmp_path / "none")
    (tmp_path / "model.yaml").write_text(GOOD)
    with pytest.raises(ModelRejected, match=r"no model\.onnx"):
        load_manifest(tmp_path)


def test_links_are_refused(tmp_path: Path) -> None:
    """A link would put into the registry what is not in the folder."""
    folder = blob_model(tmp_path / "m")
    (folder / "secrets").symlink_to("/etc/hostname")
    with pytest.raises(ModelRejected, match="symbolic link"):
        folder_digest(folder)


@pytest.mark.parametrize("hidden", [".w.bin", ".parts/w.bin", "./.w.bin", f".{'w' * 200}"])
def test_weights_in_a_hidden_file_are_refused(tmp_path: Path, hidden: str) -> None:
    """ONNX Runtime reads them here, and the model would go without them. Other hidden files are
    nobody's concern."""
    folder = tmp_path / "m"
    write_folder(planted(tmp_path / "m.onnx", {"y": planes(3)}), folder)
    path = folder / "model.onnx"
    onnx.save_model(
        onnx.load(str(path)), str(path), save_as_external_data=True, location="w.bin",
        size_threshold=64,
    )  # fmt: skip
    (folder / ".DS_Store").write_bytes(b"w.bin")
    assert check(folder).fits
    model = onnx.load(str(path), load_external_data=False)
    (folder / hidden).parent.mkdir(exist_ok=True)
    (folder / "w.bin").rename(folder / hidden)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = entry.value.replace("w.bin", hidden)
    path.write_bytes(model.SerializeToString())
    ort.InferenceSession(str(path))
    said = [f.text for f in check(folder).findings]
    assert len(said) == 1 and "a hidden file" in said[0] and hidden.strip("./")[:20] in said[0]
    with pytest.raises(ModelRejected, match="would be lost"):
        folder_digest(folder)


def test_the_digest_is_of_names_and_contents_alone(tmp_path: Path) -> None:
    """Copies have one digest; a byte or a name more makes another; hidden files do not count."""
    folder = blob_model(tmp_path / "a")
    first = folder_digest(folder)
    assert len(first) == 64
    copy = Path(shutil.copytree(folder, tmp_path / "b"))
    (copy / ".DS_Store").write_bytes(b"x")
    assert folder_digest(copy) == first
    (copy / "MODEL_CARD.md").write_text("# card")
    second = folder_digest(copy)
    (copy / "MODEL_CARD.md").rename(copy / "CARD.md")
    assert len({first, second, folder_digest(copy)}) == 3
    assert folder_digest(blob_model(tmp_path / "c", version="2")) != first
