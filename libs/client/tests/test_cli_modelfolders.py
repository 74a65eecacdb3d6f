"""models init, check and diff as a person meets them: words, exit codes, pictures."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from click.testing import Result
from PIL import Image
from rasterio.transform import from_origin
from typer.testing import CliRunner

from frond.client.cli import app
from frond.client.drawing import colour, picture
from frond.client.samples import raster_windows, scene_windows
from frond.client.scenes import palm_scene
from frond.contracts.colours import class_colour
from frond.contracts.errors import RasterRejected
from frond.models import WindowDetections, WindowPlanes, folder_digest, load_manifest
from frond.models.testing import MAGENTA, blob_model, colour_model, tile_model

PALMS = Path(__file__).parents[3] / "models" / "palm-detector"

runner = CliRunner()


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No installation leads anywhere: these commands need none."""
    for name in list(os.environ):
        if name.startswith("FROND_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def run(*words: object) -> Result:
    return runner.invoke(app, ["models", *map(str, words)])


def raster(path: Path, side: int = 600, gsd: float = 0.5, dtype: str = "uint8") -> Path:
    """Grey, with a magenta square in the middle."""
    pixels = np.full((3, side, side), 90, dtype)
    at = slice(side // 2, side // 2 + 16)
    pixels[:, at, at] = np.array(MAGENTA)[:, None, None]
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=3, dtype=dtype,
        crs="EPSG:32650", transform=from_origin(500_000, 100_000, gsd, gsd),
    ) as out:  # fmt: skip
        out.write(pixels)
    return path


def test_init_makes_a_folder_and_says_what_is_left(tmp_path: Path) -> None:
    """By the graph's name; who reads on knows the next command."""
    blob_model(tmp_path / "src")
    (tmp_path / "src" / "model.onnx").rename(tmp_path / "Blob Finder.onnx")
    done = run("init", "Blob Finder.onnx")
    assert done.exit_code == 0, done.output
    assert "decoder centerpoint, 1 class, windows of 256×256" in done.stdout
    for word in ("classes:", "gsd_m:", "licence:", "Guesses, marked", "frond models check"):
        assert word in done.stdout
    assert load_manifest(tmp_path / "Blob Finder").name == "blob-finder"
    again = run("init", "Blob Finder.onnx")
    assert again.exit_code == 2
    assert "is there already" in again.stderr


def test_init_of_a_model_onnx_writes_beside_it(tmp_path: Path) -> None:
    """The folder is there already; JSON holds the manifest and what is guessed."""
    folder = colour_model(tmp_path / "land-cover")
    (folder / "model.yaml").unlink()
    done = run("init", folder / "model.onnx", "--json")
    told = json.loads(done.stdout)
    assert told["manifest"]["name"] == "land-cover"
    assert told["manifest"]["decoder"]["name"] == "semantic"
    assert "decoder.params.activation" in told["guessed"]
    assert told["problem"] is None
    assert (folder / "model.yaml").is_file()


def test_init_refuses_in_one_sentence(tmp_path: Path) -> None:
    """Exit code 2, no folder."""
    (tmp_path / "x.onnx").write_bytes(b"no graph")
    for name, told in (("x.onnx", "cannot load x.onnx"), ("y.onnx", "There is no file y.onnx")):
        done = run("init", name)
        assert done.exit_code == 2
        assert told in done.stderr
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("make", [blob_model, colour_model, tile_model])
def test_check_of_a_good_folder(tmp_path: Path, make: Any) -> None:
    """Exit code 0 and a picture beside, not inside: the folder's digest stays."""
    folder = make(tmp_path / "good")
    before = sorted(p.name for p in folder.iterdir())
    done = run("check", folder)
    assert done.exit_code == 0, done.output
    assert "It loads" in done.stdout
    assert "frond models push" in done.stdout
    with Image.open(tmp_path / "good-check.png") as drawn:
        assert drawn.width > 128
    assert sorted(p.name for p in folder.iterdir()) == before


@pytest.mark.parametrize("words", [(".",), (".", "--out", "docs/seen.png"), ("../good",)])
def test_check_of_the_folder_one_stands_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """As init of ./model.onnx suggests it: the picture lies beside it, is no part of the version,
    and where it lies is told."""
    folder = blob_model(tmp_path / "good")
    (folder / "docs").mkdir()
    monkeypatch.chdir(folder)
    before = folder_digest(folder)
    done = run("check", *words)
    assert done.exit_code == 0, done.output
    picture = tmp_path / ("seen.png" if "--out" in words else "good-check.png")
    assert str(picture) in done.stdout
    assert picture.is_file()
    assert folder_digest(folder) == before
    assert sorted(p.name for p in folder.rglob("*")) == ["docs", "model.onnx", "model.yaml"]


def test_check_on_a_raster_finds_what_is_in_it(tmp_path: Path) -> None:
    """Cut and scaled as a job would; the box is drawn where the square is."""
    folder = blob_model(tmp_path / "m", gsd_m=0.5)
    done = run(
        "check", folder, "--image", raster(tmp_path / "i.tif"), "--out", "seen.png", "--json"
    )
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["fits"] is True
    assert told["picture"] == "seen.png"
    assert any("1 box in" in f["text"] or "boxes in" in f["text"] for f in told["findings"])
    with Image.open(tmp_path / "seen.png") as drawn:
        shades = {c for _, c in drawn.getcolors(1 << 20)}
    assert MAGENTA in shades
    assert colour(0) in shades


def test_check_tells_the_scale_of_an_image_that_does_not(tmp_path: Path) -> None:
    """As a job would estimate it; where it cannot, that is said too."""
    for name, palms in (("palms.png", 30), ("bare.png", 0)):
        Image.fromarray(palm_scene(320, 320, palms, 5, 0.28)[0]).save(tmp_path / name)
    done = run("check", PALMS, "--image", tmp_path / "palms.png", "--out", "seen.png")
    assert done.exit_code == 0, done.output
    told = re.search(r"palms.png does not say .* a pixel is ([\d.]+) m", done.stdout)
    assert told is not None, done.stdout
    assert float(told[1]) == pytest.approx(0.28, rel=0.2)
    done = run("check", PALMS, "--image", tmp_path / "bare.png", "--out", "seen.png")
    assert "too little is found" in done.stdout


def test_check_of_a_bad_folder(tmp_path: Path) -> None:
    """Exit code 1, the reason in words, and what follows a push is not offered."""
    folder = blob_model(tmp_path / "bad")
    manifest = yaml.safe_load((folder / "model.yaml").read_text())
    manifest["input"]["size"] = 512
    (folder / "model.yaml").write_text(yaml.safe_dump(manifest))
    done = run("check", folder)
    assert done.exit_code == 1
    assert "does not fit" in done.stdout
    assert "takes windows of 3×256×256" in done.stdout
    assert "push" not in done.stdout
    assert not (tmp_path / "bad-check.png").exists()


@pytest.mark.parametrize("name", ["none.tif", "text.tif"])
def test_check_on_what_is_no_raster(tmp_path: Path, name: str) -> None:
    """One sentence about the image, not about the model."""
    (tmp_path / "text.tif").write_text("not a raster")
    done = run("check", blob_model(tmp_path / "m"), "--image", name)
    assert done.exit_code in (1, 2)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1


def test_windows_are_those_about_the_middle(tmp_path: Path) -> None:
    """At most four, scaled to the model's GSD, and never of pixels that mean nothing."""
    manifest = load_manifest(blob_model(tmp_path / "m", gsd_m=0.5))
    found, _ = raster_windows(raster(tmp_path / "i.tif", 2000), manifest)
    assert [w.shape for w in found] == [(256, 256, 3)] * 4
    assert any((w == np.array(MAGENTA)).all(axis=2).any() for w in found)
    half, plan = raster_windows(raster(tmp_path / "c.tif", 300, gsd=0.25), manifest)
    assert len(half) == 1
    assert plan.grid.scale == pytest.approx(0.5, rel=0.01)
    with pytest.raises(RasterRejected):
        (tmp_path / "x.tif").write_bytes(b"II*\x00")
        raster_windows(tmp_path / "x.tif", manifest)


def test_drawn_samples_fit_any_bands(tmp_path: Path) -> None:
    """Scenes for three bands, shapes for others."""
    manifest = load_manifest(blob_model(tmp_path / "m"))
    assert [w.shape for w in scene_windows(manifest)] == [(256, 256, 3)] * 2
    four = manifest.model_copy(update={"bands": (1, 2, 3, 4)})
    assert [w.shape for w in scene_windows(four)] == [(256, 256, 4)] * 2


def test_large_windows_and_many_classes_are_drawn_small(tmp_path: Path) -> None:
    """A picture stays a picture: panels of 640 at most, sixteen names."""
    manifest = load_manifest(blob_model(tmp_path / "m")).model_copy(
        update={"classes": tuple(f"class {n}" for n in range(80))}
    )
    box = WindowDetections(
        np.array([[100, 100, 300, 300]], np.float32), np.ones(1, np.float32), np.array([79], np.int32)
    )  # fmt: skip
    drawn = picture([np.zeros((2048, 2048, 1), np.uint8)] * 3, [box] * 3, manifest)
    assert drawn.width < 1400
    assert drawn.height < 1800
    assert drawn.getpixel((12 + round(100 * 640 / 2048), 12 + 60)) == colour(79)


def test_masks_have_the_colours_of_the_class_raster(tmp_path: Path) -> None:
    """Whoever has looked at the picture knows them again in a GIS; the names say them, too."""
    manifest = load_manifest(colour_model(tmp_path / "m"))
    planes = np.zeros((len(manifest.classes) + 1, 64, 64), np.uint8)
    planes[1], planes[-1] = 255, 1
    drawn = picture([np.zeros((64, 64, 3), np.uint8)], [WindowPlanes(planes)], manifest)
    shades = {c for _, c in drawn.getcolors(1 << 20)}
    assert {class_colour(n) for n in range(len(manifest.classes))} <= shades
    assert drawn.getpixel((12 + 32, 12 + 32)) == tuple(int(v * 0.45) for v in class_colour(1))


def test_diff_of_folders(tmp_path: Path) -> None:
    """What differs, as a table or JSON; the same is said to be the same."""
    a, b = blob_model(tmp_path / "a"), blob_model(tmp_path / "b", score=0.6)
    assert run("diff", a, a).stdout == "They are the same.\n"
    told = json.loads(run("diff", a, b, "--json").stdout)
    assert told == [{"what": "thresholds.score", "a": "0.5", "b": "0.6"}]
    assert "thresholds.score" in run("diff", "./a", "./b").stdout
