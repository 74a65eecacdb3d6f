"""What people meet who bring a file that ONNX Runtime cannot load, or a graph that it cannot run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from model_graphs import planes, planted
from onnx import TensorProto, helper, numpy_helper

from frond.contracts.errors import ModelRejected
from frond.models.guess import guess, write_folder


def refused(path: Path) -> str:
    with pytest.raises(ModelRejected) as e:
        guess(path)
    assert "\n" not in e.value.detail
    return e.value.detail


def altered(path: Path, change: Any) -> Path:
    model = onnx.load(str(planted(path, {"y": planes(3)})))
    change(model)
    onnx.save(model, str(path))
    return path


def convolution(folder: Path, name: str, weights: str) -> Path:
    """A graph whose weights lie in a file of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = ["n", 3, 64, 64]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])], "t",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.full((3, 3, 3, 3), 0.1, np.float32), "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(
        model, str(folder / name), save_as_external_data=True, location=weights, size_threshold=8
    )
    return folder / name


def test_an_opset_that_is_too_new_is_named(tmp_path: Path) -> None:
    """With the newest that runs, and what to export instead."""

    def newer(model: Any) -> None:
        model.opset_import[0].version = 99

    said = refused(altered(tmp_path / "m.onnx", newer))
    assert "it is of opset 99" in said
    assert "opset_version=17" in said


def test_an_ir_version_that_is_too_new_is_named(tmp_path: Path) -> None:
    """Of an onnx package that is newer than this ONNX Runtime."""

    def newer(model: Any) -> None:
        model.ir_version = 99

    said = refused(altered(tmp_path / "m.onnx", newer))
    assert "ONNX IR version 99" in said
    assert "older onnx package" in said


@pytest.mark.parametrize(
    "content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"PK\x03"]
)
def test_what_is_no_graph_is_told_as_such(tmp_path: Path, content: bytes) -> None:
    """Empty, a pointer, a checkpoint of torch: how many bytes, and what may have happened."""
    (tmp_path / "best.pt").write_bytes(content)
    said = refused(tmp_path / "best.pt")
    assert f"({len(content)} bytes)" in said
    assert "Git LFS" in said
    assert ".pt" in said


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    """As seen from the graph, both before and after the folder is made."""
    graph = convolution(tmp_path / "in", "net.onnx", "weights.bin")
    problem = write_folder(graph, tmp_path / "out").problem
    assert problem is not None
    assert "not there: weights.bin. Put that file" in problem
    assert "into the folder of model.onnx" in problem
    (tmp_path / "in" / "weights.bin").unlink()
    assert "not there: weights.bin. Put that file" in refused(graph)


@pytest.mark.parametrize("where", ["/srv/weights.bin", "../weights.bin"])
def test_weights_outside_of_the_folder_are_told_as_such(tmp_path: Path, where: str) -> None:
    """Where they have to lie, without ONNX Runtime's words for it."""
    graph = convolution(tmp_path / "in", "net.onnx", "weights.bin")
    (tmp_path / "in" / "weights.bin").rename(tmp_path / "weights.bin")
    model = onnx.load(str(graph), load_external_data=False)
    model.graph.initializer[0].external_data[0].value = where
    graph.write_bytes(model.SerializeToString())
    said = refused(graph)
    assert "in the folder of net.onnx: not at an absolute path, not through .." in said
    assert "validation" not in said


def test_weights_come_along_whatever_the_graph_is_called(tmp_path: Path) -> None:
    """Brackets in a name are brackets, not a pattern."""
    graph = convolution(tmp_path / "in", "net [1].onnx", "net [1].onnx.data")
    assert write_folder(graph, tmp_path / "out").problem is None


def test_a_folder_and_a_file_in_each_others_place(tmp_path: Path) -> None:
    """What to write instead; nothing is made."""
    (tmp_path / "models").mkdir()
    assert "is a folder. Name the graph in it" in refused(tmp_path / "models")
    graph = planted(tmp_path / "best", {"y": planes(3)})
    with pytest.raises(ModelRejected, match=r"best is a file.*--out FOLDER"):
        write_folder(graph, tmp_path / "best")


def test_an_output_of_text_is_refused(tmp_path: Path) -> None:
    """As graphs have that give the class's name beside its score."""

    def named(model: Any) -> None:
        model.graph.initializer.append(
            helper.make_tensor("cat", TensorProto.STRING, [1, 1], [b"cat"])
        )
        model.graph.node.append(helper.make_node("Identity", ["cat"], ["label"]))
        model.graph.output.append(
            helper.make_tensor_value_info("label", TensorProto.STRING, [1, 1])
        )

    assert "The output label holds text" in refused(altered(tmp_path / "m.onnx", named))
