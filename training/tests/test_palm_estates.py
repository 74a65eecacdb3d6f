"""Each estate left out in its turn."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

import yaml
from training_support import SMALL, labelled_palms

from frond.training.palm import estates
from frond.training.palm.config import Settings
from frond.training.palm.data import Part, Parts, prepare


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three parts of labelled palms: north/1 and south to learn from, north/2 to judge by."""
    for n, name in enumerate(("north/1", "south", "north/2")):
        labelled_palms(tmp_path / "made" / name, first=10 * n)
    role = {"north/1": "train", "south": "train", "north/2": "val"}
    for name, split in role.items():
        place = tmp_path / "data" / split / name
        shutil.copytree(tmp_path / "made" / name / split, place)
        place.joinpath("labels.json").rename(place.with_suffix(".json"))
        told = json.loads(place.with_suffix(".json").read_text())
        for image in told["images"]:
            image["file_name"] = f"{place.name}/{image['file_name']}"
        place.with_suffix(".json").write_text(json.dumps(told))
    # `val` is named after its split while it has one file of labels: so it has two
    labelled_palms(tmp_path / "made" / "west", first=30)
    shutil.copytree(tmp_path / "made" / "west" / "val", tmp_path / "data" / "val" / "west")
    return tmp_path / "data"


def _names(parts: list[Part]) -> list[str]:
    return sorted(p.name for p in parts)


def test_of_an_estate_left_out_nothing_is_learnt(data: Path, tmp_path: Path) -> None:
    """Whichever role its parts have; all others are learnt from, with a weight."""
    prepare(Settings(**SMALL, data=data), tmp_path / "prepared")
    parts = Parts.of(tmp_path / "prepared")
    north = estates.without(parts, "north")
    assert _names(north.val) == ["north/1", "north/2"]
    assert _names(north.train) == ["south", "west/labels"]
    south = estates.without(parts, "south")
    assert _names(south.val) == ["south"]
    assert _names(south.train) == ["north/1", "north/2", "west/labels"]
    assert all(p.weight > 0 for p in south.train)


def test_estates_go_on_where_they_were(data: Path, tmp_path: Path) -> None:
    """One run an estate and a seed; what is in the file is not trained again, and told as it is."""
    config = Settings(**SMALL | {"steps": 1}, data=data)
    first = estates.compare(config, tmp_path / "out", [7], ["north"])
    assert list(first.runs) == ["north 7"]
    assert [p["part"] for p in first.runs["north 7"]["parts"]] == ["north/1", "north/2"]
    path = tmp_path / "out" / "comparison.json"
    told = json.loads(path.read_text())
    told["runs"]["north 7"]["parts"][0]["f1"] = 0.123
    path.write_text(json.dumps(told))
    both = estates.compare(config, tmp_path / "out", [7, 8], ["north"])
    assert list(both.runs) == ["north 7", "north 8"]
    lines = estates.table(both).splitlines()
    assert len(lines) == 6
    assert lines[2].startswith("| north/1 | 2 | 1 | 7 | ")
    assert "| 0.123 |" in lines[2]


@pytest.mark.parametrize("asked", [["--estate", "east"], []])
def test_an_estate_that_cannot_be_left_out_is_told(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    asked: list[str],
) -> None:
    """One that is not there, and the only one; before anything is trained, with exit code 2."""
    file, out = tmp_path / "config.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump({"steps": 1}))
    if not asked:
        for split, given in (("train", "north/1"), ("val", "north/2")):
            shutil.rmtree(data / split)
            for n in "ab":
                shutil.copytree(tmp_path / "made" / given / split, data / split / f"north/{n}")
    every = ["estates", "--config", file, "--data", data, "--out", out, *asked]
    monkeypatch.setattr(sys, "argv", list(map(str, every)))
    with pytest.raises(SystemExit) as ended:
        estates.main()
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert ("There is no estate east to leave out; there are north, south, west." in told) or (
        not asked and "one estate alone" in told
    )
    assert not (out / "comparison.json").exists()
