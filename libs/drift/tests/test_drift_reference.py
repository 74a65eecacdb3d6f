"""A reference from images, and into model.yaml."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from drift_support import manifest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rasterio.transform import from_origin

from frond.contracts.drift import PARTS
from frond.contracts.errors import ModelRejected
from frond.contracts.modelspec import Reference
from frond.drift.figures import ks
from frond.drift.manifest import as_yaml, write_reference
from frond.drift.reference import images_in, measure, parts
from frond.models import load_manifest
from frond.models.testing import MAGENTA, blob_model, colour_model


def draw(
    path: Path, *, width: int = 300, height: int = 200, grey: int = 90, hole: bool = False
) -> Path:
    """Grey noise with magenta squares; ``hole``: the left half has no data, and is bright."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(grey - 10, grey + 10, (3, height, width)).astype(np.uint8)
    for x in range(20, width - 30, 60):
        pixels[:, 40:56, x : x + 16] = np.array(MAGENTA)[:, None, None]
    if hole:
        pixels[:, :, : width // 2] = 255
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=3, dtype="uint8",
        crs="EPSG:32650", transform=from_origin(500_000, 100_000, 0.5, 0.5),
        nodata=255 if hole else None,
    ) as out:  # fmt: skip
        out.write(pixels)
    return path


@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=256).filter(sum))
def test_parts_add_up_to_a_million(counts: list[int]) -> None:
    """Whole numbers, each less than one part from its share, and none for nothing."""
    told = parts(counts)
    assert sum(told) == PARTS
    for n, count in zip(told, counts, strict=True):
        assert abs(n - count * PARTS / sum(counts)) < 1 + 1e-6
        assert count or not n


def test_what_is_measured_is_what_the_model_sees(tmp_path: Path) -> None:
    """The grey and the magenta that were drawn, in their bands; scores of what is found."""
    folder = blob_model(tmp_path / "m", size=64, margin=8)
    images = [draw(tmp_path / "a.tif"), draw(tmp_path / "b.tif")]
    told = measure(folder, images, threads=1)
    known = told.reference
    assert told.left_out == ()
    assert (known.images, len(known.bands)) == (2, 3)
    assert known.pixels == known.windows * 64**2
    for band, value in zip(known.bands, MAGENTA, strict=True):
        assert sum(band[80:100]) + band[value] == PARTS
        assert band[value] > 0
    assert known.found > 0 and known.score == 0.5
    assert known.windows_with_finds is not None
    assert 0 < known.windows_with_finds <= min(known.found, known.windows)
    assert sum(known.scores) == PARTS and not any(known.scores[:50])
    assert measure(folder, images, threads=1) == told


def test_an_image_without_a_scale_is_seen_as_a_job_sees_it(tmp_path: Path) -> None:
    """Its scale is estimated by what is found, unless whoever measures says it."""
    folder = blob_model(tmp_path / "m", size=128, margin=16, gsd_m=0.5)
    with (folder / "model.yaml").open("a") as file:
        file.write("object_px: 16\n")
    pixels = np.full((600, 800, 3), 90, np.uint8)
    for x in range(20, 760, 100):
        for y in range(20, 560, 100):
            pixels[y : y + 32, x : x + 32] = MAGENTA
    image = tmp_path / "a.png"
    Image.fromarray(pixels).save(image)
    told = measure(folder, [image], threads=1).reference
    halved = measure(folder, [image], threads=1, gsd_m=0.25).reference
    whole = measure(folder, [image], threads=1, gsd_m=0.5).reference
    assert told == halved
    assert whole.windows > 2 * told.windows


def test_a_share_of_the_windows_is_run(tmp_path: Path) -> None:
    """Some, the same ones each time, and they look like the whole."""
    folder = blob_model(tmp_path / "m", size=64, margin=8)
    image = draw(tmp_path / "a.tif", width=600, height=500)
    whole = measure(folder, [image], threads=1).reference
    some = measure(folder, [image], share=0.3, threads=1).reference
    assert 0.15 < some.windows / whole.windows < 0.45
    assert measure(folder, [image], share=0.3, threads=1).reference == some
    assert ks(some.bands[1], whole.bands[1]) < 0.05


def test_pixels_without_data_do_not_count(tmp_path: Path) -> None:
    """A half that is nodata leaves no trace, though its windows are run."""
    folder = blob_model(tmp_path / "m", size=64, margin=8)
    known = measure(folder, [draw(tmp_path / "a.tif", hole=True)], threads=1).reference
    # magenta has 255 in two bands, which nodata hides too
    assert known.bands[1][255] == 0
    assert known.pixels < known.windows * 64**2


def test_a_segmentations_scores_are_of_pixels(tmp_path: Path) -> None:
    """One for each pixel of the lattice, whatever the threshold."""
    folder = colour_model(tmp_path / "m")
    known = measure(folder, [draw(tmp_path / "a.tif")], threads=1).reference
    assert (known.found, known.score) == (known.pixels, 0.0)
    assert known.windows_with_finds is None


def test_what_is_no_image_is_left_out_and_told_of(tmp_path: Path) -> None:
    """Others are measured all the same; without any there is no reference."""
    folder = blob_model(tmp_path / "m", size=64, margin=8)
    bad = tmp_path / "bad.tif"
    bad.write_bytes(b"no image")
    told = measure(folder, [bad, draw(tmp_path / "good.tif")], threads=1)
    assert [p for p, why in told.left_out if why] == [bad]
    assert told.reference.images == 1
    with pytest.raises(ModelRejected, match="None of 1 images"):
        measure(folder, [bad], threads=1)


def test_images_are_found_in_folders_once(tmp_path: Path) -> None:
    """By their names' ends, below too; what is named and is not there is an error."""
    (tmp_path / "in").mkdir()
    for name in ("in/b.TIF", "a.png", "notes.txt"):
        (tmp_path / name).touch()
    found = images_in([tmp_path, tmp_path / "a.png"])
    assert [p.name for p in found] == ["a.png", "b.TIF"]
    with pytest.raises(FileNotFoundError):
        images_in([tmp_path / "gone"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return blob_model(tmp_path / "m", size=64, margin=8)


def reference(n: int = 1) -> Reference:
    """Of three bands."""
    known = manifest(value=n, score=60).reference
    assert known is not None
    return known.model_copy(update={"bands": known.bands * 3})


COMMENTED = """# ours
name: blob   # short
{rest}
# the end
"""


def test_comments_and_order_stay(folder: Path) -> None:
    """Everything but the section is byte for byte what it was; a second reference replaces the first."""
    path = folder / "model.yaml"
    told = yaml.safe_load(path.read_text())
    rest = yaml.safe_dump({k: v for k, v in told.items() if k != "name"}, sort_keys=False)
    before = COMMENTED.format(rest=rest)
    path.write_text(before)
    assert write_reference(folder, reference(1))
    assert path.read_text().startswith(before)
    assert load_manifest(folder).reference == reference(1)
    first = path.read_text()
    assert write_reference(folder, reference(2))
    assert load_manifest(folder).reference == reference(2)
    assert path.read_text().startswith(before)
    assert write_reference(folder, reference(1))
    assert path.read_text() == first
    assert sorted(p.name for p in folder.iterdir()) == ["model.onnx", "model.yaml"]


@pytest.mark.parametrize("where", ["end", "middle"])
def test_line_ends_stay_as_they_were(folder: Path, where: str) -> None:
    """A file written on Windows stays one: every line, the new ones too."""
    path = folder / "model.yaml"
    before = path.read_bytes().replace(b"\n", b"\r\n")
    if where == "middle":
        section = as_yaml(reference(2)).encode().replace(b"\n", b"\r\n")
        before = section + b"\r\n# after\r\n" + before
    path.write_bytes(before)
    assert write_reference(folder, reference(1))
    made = path.read_bytes()
    assert made.count(b"\n") == made.count(b"\r\n") > before.count(b"\n") / 2
    assert made.replace(b"\r\n", b"\n").count(b"reference:") == 1
    assert made.startswith(before if where == "end" else b"# after\r\n")
    assert load_manifest(folder).reference == reference(1)
    assert write_reference(folder, reference(1))
    assert path.read_bytes() == made


def test_a_section_in_the_middle_is_replaced(folder: Path) -> None:
    """What follows it stays, too."""
    path = folder / "model.yaml"
    rest = path.read_text()
    path.write_text(as_yaml(reference(1)) + "\n# after\n" + rest)
    assert write_reference(folder, reference(2))
    assert load_manifest(folder).reference == reference(2)
    assert path.read_text().lstrip().startswith("# after\n" + rest)


def test_a_file_that_cannot_be_edited_is_written_anew(folder: Path) -> None:
    """In braces, a section cannot be added by lines: the fields stay, and it is said."""
    path = folder / "model.yaml"
    before = load_manifest(folder)
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()), default_flow_style=True))
    assert not write_reference(folder, reference(1))
    assert load_manifest(folder) == before.model_copy(update={"reference": reference(1)})


def test_a_reference_of_other_bands_is_refused(folder: Path) -> None:
    """And the file stays as it was."""
    before = (folder / "model.yaml").read_bytes()
    one_band = manifest(value=1).reference
    assert one_band is not None
    with pytest.raises(ValueError, match="bands"):
        write_reference(folder, one_band)
    assert (folder / "model.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("bands", [[1] * 100] * 3),
        ("bands", [[0] * 256] * 3),
        ("bands", [[-1, *[1] * 255]] * 3),
        ("bands", [[1] * 256] * 2),
        ("scores", [1] * 99),
        ("windows", 0),
        ("windows_with_finds", 501),
    ],
)
def test_a_reference_that_means_nothing_is_refused(folder: Path, field: str, value: object) -> None:
    """With a sentence about the field."""
    path = folder / "model.yaml"
    data = yaml.safe_load(path.read_text())
    data["reference"] = reference().model_dump(mode="json") | {field: value}
    path.write_text(json.dumps(data))  # YAML, too, and without its aliases
    with pytest.raises(ModelRejected, match="reference"):
        load_manifest(folder)
