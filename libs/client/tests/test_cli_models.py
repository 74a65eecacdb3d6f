"""``frond models`` at a real door: pushed, moved, told, fetched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from typer.testing import CliRunner, Result

from frond.client.cli import app
from frond.models.testing import blob_model

pytestmark = pytest.mark.stack
runner = CliRunner()


def frond(*words: object, code: int = 0) -> Result:
    done = runner.invoke(app, [str(w) for w in words])
    assert done.exit_code == code, (words, done.output)
    return done


@pytest.fixture(autouse=True)
def admin(door: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The door's first key, an admin's."""
    made = frond("keys", "create", "--store", "--name", "first", "--scope", "admin")
    monkeypatch.setenv("FROND_API_KEY", made.stdout.strip())


def shown(ref: str = "blob") -> Any:
    return json.loads(frond("models", "show", ref, "--json").stdout)


def test_models_are_pushed_promoted_and_rolled_back(tmp_path: Path) -> None:
    """Each move changes what the name means, and `show` tells; a digest's beginning is enough."""
    frond("models", "push", blob_model(tmp_path / "one", version="1"))
    one = shown()
    assert one["manifest"]["version"] == "1"
    said = frond("models", "push", blob_model(tmp_path / "two", version="2"), "--alias", "staging")
    digest = said.stdout.split()[2]
    assert said.stdout.split() == ["blob", "2", digest, "@staging"]
    assert shown()["digest"] == one["digest"] != digest
    moved = frond("models", "promote", "blob", digest[:8], "--why", "finds more")
    assert digest[:12] in moved.stdout
    assert shown()["digest"] == digest
    back = frond("models", "rollback", "blob", "--why", "finds too much")
    assert one["digest"][:12] in back.stdout
    assert shown()["digest"] == one["digest"]
    assert {a: w["digest"] for a, w in shown()["aliases"].items()} == {
        "production": one["digest"], "staging": digest,
    }  # fmt: skip
    told = frond("models", "show", "blob@staging").stdout
    assert "finds more" in told and "finds too much" in told
    assert "never pointed" in frond("models", "rollback", "blob", code=2).stderr
    for version in ("staging", "blob@staging"):
        assert digest[:12] in frond("models", "promote", "blob", version).stdout
    assert shown()["digest"] == digest


def test_a_model_that_cannot_run_is_not_pushed(tmp_path: Path) -> None:
    """It is run here first; the registry has nothing of it. --untried is whoever's own risk."""
    broken = blob_model(tmp_path / "m")
    graph = onnx.load(str(broken / "model.onnx"))
    graph.graph.output[0].name = graph.graph.node[-1].output[0] = "other"
    onnx.save(graph, str(broken / "model.onnx"))
    told = frond("models", "push", broken, code=2).stderr
    assert told.count("\n") == 1
    assert json.loads(frond("models", "list", "--json").stdout)["models"] == []
    frond("models", "push", broken, "--untried")
    assert [m["name"] for m in json.loads(frond("models", "list", "--json").stdout)["models"]]


def test_diff_of_versions(tmp_path: Path) -> None:
    """Two versions of the registry, and one beside a folder."""
    first, second = blob_model(tmp_path / "a"), blob_model(tmp_path / "b", version="2")
    frond("models", "push", first)
    frond("models", "push", second, "--alias", "staging")
    told = json.loads(frond("models", "diff", "blob", "blob@staging", "--json").stdout)
    assert {d["what"] for d in told} == {"version", "model.onnx"}
    assert frond("models", "diff", "blob@staging", second).stdout == "They are the same.\n"
    assert "There is no model" in frond("models", "diff", "blob", "blob@canary", code=2).stderr
