"""``frond models shadow`` and ``frond upload --shadow`` at a real door; ``compare`` is told of in
tests/integration/test_shadow.py, where jobs run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from typer.testing import CliRunner, Result

from frond.client.cli import app
from frond.client.cli.jobs import _shadow
from frond.client.cli.shadows import _tell
from frond.models.testing import blob_model

runner = CliRunner()


def frond(*words: object, code: int = 0) -> Result:
    done = runner.invoke(app, [str(w) for w in words])
    assert done.exit_code == code, (words, done.output)
    return done


@pytest.fixture
def admin(door: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The door's first key, an admin's."""
    made = frond("keys", "create", "--store", "--name", "first", "--scope", "admin")
    monkeypatch.setenv("FROND_API_KEY", made.stdout.strip())


@pytest.mark.stack
@pytest.mark.usefixtures("admin")
def test_a_shadow_is_set_shown_and_taken_away(tmp_path: Path) -> None:
    """By alias or digest; who and why are told; a version that cannot run is not set."""
    frond("models", "push", blob_model(tmp_path / "1"))
    frond("models", "push", blob_model(tmp_path / "2", version="2"), "--alias", "staging")
    told = frond("models", "shadow", "blob", "staging", "--share", "0.25", "--why", "finds more")
    assert "0.25" in told.stdout and "frond models compare" in told.stdout
    held = json.loads(frond("models", "show", "blob", "--json").stdout)["shadow"]
    assert (held["version"], held["share"], held["why"]) == ("2", 0.25, "finds more")
    assert "finds more" in frond("models", "show", "blob").stdout
    assert "shadow 0.25" in frond("models", "list").stdout

    broken = blob_model(tmp_path / "3", version="3")
    graph = onnx.load(str(broken / "model.onnx"))
    graph.graph.output[0].name = graph.graph.node[-1].output[0] = "other"
    onnx.save(graph, str(broken / "model.onnx"))
    frond("models", "push", broken, "--untried", "--alias", "broken")
    said = frond("models", "shadow", "blob", "broken", code=2).stderr
    assert said.count("\n") == 1
    frond("models", "push", blob_model(tmp_path / "4", size=128), "--alias", "small")
    assert "128" in frond("models", "shadow", "blob", "small", code=2).stderr
    assert json.loads(frond("models", "show", "blob", "--json").stdout)["shadow"] == held

    assert "no shadow" in frond("models", "shadow", "blob", "--off", "--why", "enough").stdout
    assert json.loads(frond("models", "show", "blob", "--json").stdout)["shadow"]["digest"] is None
    for words in (("blob",), ("blob", "staging", "--off"), ("blob", "staging", "--share", "2")):
        assert frond("models", "shadow", *words, code=2)


@pytest.mark.stack
@pytest.mark.usefixtures("admin")
def test_a_job_has_a_shadow(tmp_path: Path) -> None:
    """`frond upload --shadow` and what `frond status` says of it."""
    frond("models", "push", blob_model(tmp_path / "1"))
    frond("models", "push", blob_model(tmp_path / "2", version="2"), "--alias", "staging")
    image = tmp_path / "a.tif"
    image.write_bytes(b"no raster")
    made = frond(
        "upload", image, "--job-id", "j", "--model", "blob", "--shadow", "blob@staging",
        "--shadow-share", "0.5", "--json",
    )  # fmt: skip
    assert json.loads(made.stdout)["shadow"]["share"] == 0.5
    assert "on 0.5 of the windows" in frond("status", "j").stdout


def test_what_may_be_said_of_a_share() -> None:
    """It is of a version."""
    assert _shadow(None, None) is None and _shadow("none", None) == "none"
    assert _shadow("a@b", None) == {"model": "a@b"}
    assert _shadow("a@b", 0.3) == {"model": "a@b", "share": 0.3}
    assert "--shadow" in frond("upload", "x.tif", "--shadow-share", "0.3", code=2).stderr


def told(**more: Any) -> dict[str, Any]:
    ref = {"name": "palms", "version": "2\x1b[31m", "digest": "a" * 64}
    return {
        "task": "detection", "model": ref, "shadow": {"model": ref, "share": 0.1}, "windows": 37,
        "images": 2, "status": "running", "chunks": 340, "chunks_without": 12,
        "reasons": [{"reason": "too slow\x1b[0m", "chunks": 12}],
        "classes": {"palm\x1b": {
            "both": 5, "only_production": 1, "only_shadow": 0, "other_class": 2,
            "mean_iou": None, "mean_score_difference": -0.25,
        }},
        "confusions": [{"production": "palm", "shadow": "roof", "count": 2}],
    } | more  # fmt: skip


def test_a_comparison_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """What is missing and why; what cannot be said; nothing that a terminal would obey."""
    _tell(told())
    said = capsys.readouterr().out
    assert "12 of 340 chunks have no shadow result" in said and "the job is running" in said
    assert "-0.2500" in said and "–" in said and "roof" in said
    assert "\x1b" not in said
    figures = {"both_pixels": 5, "production_pixels": 7, "shadow_pixels": 6, "iou": 0.5}
    _tell(told(task="segmentation", classes={"tree": figures}, agreement=0.9, pixels=100,
               chunks_without=0, reasons=[], status="successful"))  # fmt: skip
    said = capsys.readouterr().out
    assert "0.9000 of 100" in said and "no shadow result" not in said
