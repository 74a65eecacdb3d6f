"""frond evaluate as a person meets it: tables, JSON, a report, sentences for what cannot be."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from frond.client.cli import app
from frond.models.testing import MAGENTA, blob_model

runner = CliRunner()


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No installation leads anywhere: a folder needs none."""
    for name in list(os.environ):
        if name.startswith("FROND_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    blob_model(tmp_path / "m", 128)
    pixels = np.full((100, 128, 3), 90, np.uint8)
    for x in (20, 80):
        pixels[40:56, x : x + 16] = MAGENTA
    (tmp_path / "d").mkdir()
    Image.fromarray(pixels).save(tmp_path / "d" / "a.png")
    told = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "gone.png"}],
        "categories": [{"id": 7, "name": "palm"}],
        "annotations": [{"image_id": 1, "category_id": 7, "bbox": [20, 40, 16, 16]}],
    }
    (tmp_path / "d" / "labels.json").write_text(json.dumps(told))
    return tmp_path / "d"


def run(*words: object) -> Result:
    return runner.invoke(app, ["evaluate", *map(str, words)])


def test_tables_line_up(data: Path) -> None:
    """What was judged, what was left out, and columns under their names."""
    said = run("./m", data, "--map", "palm=blob", "--report", "r")
    assert said.exit_code == 0, said.output
    assert "1 image could not be judged" in said.stdout
    assert "gone.png" in said.stdout
    lines = said.stdout.splitlines()
    head = next(n for n, line in enumerate(lines) if "AP50:95" in line)
    assert lines[head + 2].split() == ["blob", "1", "2", "+100.0%", "1.000", "1.000"]
    # the report's files are named, and there
    assert sorted(p.name for p in Path("r").iterdir()) == ["figures.json", "report.md", "sweep.png"]
    assert "Written: r/sweep.png" in said.stdout
    assert len({len(line) for line in lines[head : head + 3]}) == 1


def test_json(data: Path) -> None:
    """One document, the same bytes twice, and those of the report."""
    words = ("./m", data / "labels.json", "--map", "palm=blob", "--threshold", "0.3", "--json")
    said = run(*words, "--report", "r")
    assert said.stdout == run(*words).stdout == Path("r/figures.json").read_text()
    told = json.loads(said.stdout)
    assert told["settings"]["score"] == 0.3
    assert told["figures"]["overall"]["centre"] == {"f1": 0.666667, "precision": 0.5, "recall": 1}


@pytest.mark.parametrize("where", ["file", "file/r"])
def test_a_report_that_has_no_room_is_refused_before_the_work(
    data: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is judged; and a command that fails leaves no folder behind."""
    Path("file").write_text("")
    monkeypatch.setattr("frond.evaluation.evaluate", lambda *_, **__: pytest.fail("it was judged"))
    said = run("./m", data, "--map", "palm=blob", "--report", where)
    assert said.exit_code == 2, said.output
    assert "file is no folder" in said.output
    monkeypatch.undo()
    assert run("./m", data, "--report", "r").exit_code == 2
    assert not Path("r").exists()


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_figures_are_shown_where_the_report_fails(
    data: Path, more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full, say: what was worked out is there, and then the reason."""

    def full(*_: object) -> list[Path]:
        raise OSError(errno.ENOSPC, "No space left on device", "r/figures.json")

    monkeypatch.setattr("frond.evaluation.write", full)
    said = run("./m", data, "--map", "palm=blob", "--report", "r", *more)
    assert said.exit_code == 1
    assert "blob" in said.stdout
    assert "r/figures.json: No space left on device" in said.output


def test_what_cannot_be_is_said_in_a_sentence(data: Path) -> None:
    """Exit code 2, no traceback: nothing in common, no such labels, no such model, a bad option."""
    for words, told in (
        (("./m", data), "--map CATEGORY=CLASS"),
        (("./m", "nowhere"), "There is no nowhere"),
        (("./nowhere", data), "is no folder"),
        (("./m", data, "--map", "palm"), "is not CATEGORY=CLASS"),
        (("./m", data, "--map", "palm=blob", "--threshold", "7"), "is not between 0 and 1"),
    ):
        said = run(*words)
        assert said.exit_code == 2, said.output
        assert told in said.output
        assert "Traceback" not in said.output
