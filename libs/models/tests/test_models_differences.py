"""What differs between two folders, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from frond.contracts.errors import ModelRejected
from frond.models.differences import differences
from frond.models.testing import blob_model, colour_model


def test_the_same_folder_twice_has_no_difference(tmp_path: Path) -> None:
    """Where it lies does not matter."""
    assert differences(blob_model(tmp_path / "a"), blob_model(tmp_path / "b")) == []


def test_fields_and_files_that_differ_are_named(tmp_path: Path) -> None:
    """A threshold and the version: two fields, one file; inputs and outputs are alike."""
    a = blob_model(tmp_path / "a")
    b = blob_model(tmp_path / "b", version="2", score=0.6, gsd_m=0.5)
    (b / "MODEL_CARD.md").write_text("better")
    found = {d.what: (d.a, d.b) for d in differences(a, b)}
    assert found["version"] == ("1", "2")
    assert found["thresholds.score"] == ("0.5", "0.6")
    assert found["gsd_m"] == ("", "0.5")
    assert found["MODEL_CARD.md"][0] == ""
    assert found["model.onnx"][0].startswith("sha256 ")
    assert set(found) == {"version", "thresholds.score", "gsd_m", "MODEL_CARD.md", "model.onnx"}


def test_graphs_inputs_and_outputs_are_compared(tmp_path: Path) -> None:
    """Two models of different kinds: shapes as people read them."""
    found = {
        d.what: (d.a, d.b)
        for d in differences(blob_model(tmp_path / "a"), colour_model(tmp_path / "b"))
    }
    assert found["graph input 0"] == (
        "input ?×3×256×256 tensor(float)", "input ?×3×64×64 tensor(float)",
    )  # fmt: skip
    assert found["graph output 2"] == ("offset ?×2×64×64 tensor(float)", "")
    assert found["classes"] == ('["blob"]', '["red", "green"]')


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    """By the sentence of its fault."""
    with pytest.raises(ModelRejected, match="no folder"):
        differences(blob_model(tmp_path / "a"), tmp_path / "none")
