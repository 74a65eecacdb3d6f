"""A real graph on labelled pictures, start to end: figures, broken images, a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from evaluation_support import coco, picture
from PIL import Image
from rasterio.transform import from_origin

from frond.contracts.errors import UserError
from frond.evaluation import Options, as_text, evaluate, sentences, tables, write
from frond.models.testing import blob_model, colour_model, tile_model

PLACES = {
    "a.png": [(20, 20), (100, 60), (150, 150), (292, 100)],
    "b.png": [(40, 100), (200, 20)],
    "c.png": [],
}


@pytest.fixture(scope="module")
def blob(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return blob_model(tmp_path_factory.mktemp("m") / "blob", 128)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name, places in PLACES.items():
        picture(tmp_path / "d" / name, places)
    return coco(tmp_path / "d", PLACES)


def test_a_model_that_finds_everything(blob: Path, data: Path) -> None:
    """Several windows an image, objects on their borders: each counted once, figures of 1."""
    told = evaluate(blob, data)
    whole = told["figures"]["overall"]
    assert (whole["labels"], whole["finds"], whole["count_error"]) == (6, 6, 0)
    assert whole["ap50"] == whole["ap50_95"] == whole["centre"]["f1"] == whole["overlap"]["f1"] == 1
    assert told["figures"]["without_labels"] == {
        "images": 1, "megapixels": 0.064, "finds": 0, "finds_a_megapixel": 0,
    }  # fmt: skip
    assert told["dataset"]["images"] == 3
    assert told["left_out"] == told["notes"] == []


def test_missed_and_invented(blob: Path, data: Path) -> None:
    """Labels of nothing are missed, squares without a label are invented; a high bar misses most."""
    coco(data, {"a.png": [*PLACES["a.png"], (200, 20)], "b.png": [(40, 100)], "c.png": []})
    told = evaluate(blob, data)["figures"]
    assert (
        told["overall"]["overlap"]["recall"] == told["overall"]["overlap"]["precision"] == 0.833333
    )
    assert told["confusion"]["labels_by_finds"] == [[5, 1], [1, 0]]
    assert told["count_error_an_image"] == 0.666667
    few = evaluate(blob, data, Options(score=0.99))
    assert few["figures"]["overall"]["finds"] < 6
    # average precision is of every find, wherever the bar lies
    assert few["figures"]["overall"]["ap50"] == told["overall"]["ap50"]


def test_edges_can_be_left_out(blob: Path, data: Path) -> None:
    """The square whose centre is 20 from the edge falls into a band of 1.5 of its widths."""
    told = evaluate(blob, data, Options(edge_band=1.5))
    assert told["figures"]["overall"]["labels"] == told["figures"]["overall"]["finds"] == 5


def test_broken_images_are_listed(blob: Path, data: Path) -> None:
    """Truncated, missing, or of another size than was labelled: left out, the rest is judged."""
    (data / "a.png").write_bytes((data / "a.png").read_bytes()[:2000])
    (data / "b.png").unlink()
    picture(data / "d.png", [], (100, 80))
    coco(data, {**PLACES, "d.png": []})
    told = evaluate(blob, data)
    assert [o["image"] for o in told["left_out"]] == ["a.png", "b.png", "d.png"]
    assert "labels are for 320×200" in told["left_out"][2]["detail"]
    assert told["dataset"]["images"] == 1
    assert told["figures"]["overall"]["labels"] == 0
    assert any("3 images could not be judged" in s for s in sentences(told))
    (data / "c.png").write_bytes(b"GIF89a")
    with pytest.raises(UserError, match="None of the 4 images could be judged"):
        evaluate(blob, data)


def test_the_same_bytes_in_any_order(blob: Path, data: Path, tmp_path: Path) -> None:
    """Figures do not hang on the order in the file, nor on the day; the dataset's digest does."""
    first = write(evaluate(blob, data), tmp_path / "one")
    again = write(evaluate(blob, data), tmp_path / "two")
    assert [p.name for p in first] == ["figures.json", "report.md", "sweep.png"]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in again]
    file = data / "labels.json"
    told = json.loads(file.read_text())
    for part in ("images", "annotations"):
        told[part].reverse()
    file.write_text(json.dumps(told))
    one, other = (
        json.loads(p.read_text())
        for p in (first[0], write(evaluate(blob, data), tmp_path / "3")[0])
    )
    assert one["figures"] == other["figures"]
    assert one["dataset"].pop("digest") != other["dataset"].pop("digest")
    assert one["dataset"] == other["dataset"]


def test_progress_reaches_its_end(blob: Path, data: Path) -> None:
    """Rises through the windows of each image to the number of images."""
    said: list[tuple[float, int]] = []
    evaluate(blob, data, on_progress=lambda done, of: said.append((done, of)))
    assert said == sorted(said)
    assert said[-1] == (3, 3)
    assert any(done % 1 for done, _ in said) or len(said) > 3


def test_a_raster_of_another_resolution(tmp_path: Path) -> None:
    """Twice as fine as the model's GSD: labels and finds are in the raster's pixels."""
    model = blob_model(tmp_path / "m", 128, gsd_m=1.0)
    picture(tmp_path / "small.png", PLACES["a.png"])
    pixels = np.asarray(Image.open(tmp_path / "small.png")).repeat(2, axis=0).repeat(2, axis=1)
    (tmp_path / "d").mkdir()
    with rasterio.open(
        tmp_path / "d" / "a.tif", "w", driver="GTiff", width=640, height=400, count=3, dtype="uint8",
        crs="EPSG:32650", transform=from_origin(500_000, 100_000, 0.5, 0.5),
    ) as out:  # fmt: skip
        out.write(pixels.transpose(2, 0, 1))
    labels = [{"bbox": [2 * x, 2 * y, 32, 32]} for x, y in PLACES["a.png"]]
    whole = evaluate(model, coco(tmp_path / "d", {"a.tif": labels}, size=(640, 400)))["figures"][
        "overall"
    ]
    assert whole["centre"]["f1"] == whole["overlap"]["f1"] == whole["ap50"] == 1


def test_masks(tmp_path: Path) -> None:
    """Red and green fields over several windows: 1 where labels are right, less where they are not."""
    model = colour_model(tmp_path / "m", 64)
    pixels = np.full((150, 200, 3), 100, np.uint8)
    pixels[20:120, 10:110], pixels[40:60, 130:190] = (255, 0, 0), (0, 255, 0)
    (tmp_path / "d").mkdir()
    Image.fromarray(pixels).save(tmp_path / "d" / "a.png")

    def told(*fields: tuple[int, list[float]]) -> dict[str, Any]:
        labels = [{"category_id": k, "segmentation": [ring]} for k, ring in fields]
        names = ("red", "green")
        coco(tmp_path / "d", {"a.png": labels}, size=(200, 150), categories=names)
        return evaluate(model, tmp_path / "d")

    red, green = [10, 20, 110, 20, 110, 120, 10, 120], [130, 40, 190, 40, 190, 60, 130, 60]
    right = told((1, red), (2, green))
    assert right["figures"]["overall"] == {
        "iou": 1,
        "dice": 1,
        "pixels": 30_000,
        "pixel_accuracy": 1,
    }
    runs = {"size": [150, 201], "counts": [0, 150 * 201]}
    labels = [{"category_id": 1, "segmentation": runs}]
    coco(tmp_path / "d", {"a.png": labels}, size=(200, 150), categories=("red",))
    with pytest.raises(UserError, match="run lengths of its labels are of another size"):
        evaluate(model, tmp_path / "d")
    half = [10, 20, 60, 20, 60, 120, 10, 120]
    wrong = told((1, half), (2, green))["figures"]
    assert wrong["classes"]["red"]["iou"] == 0.5
    assert wrong["classes"]["red"]["dice"] == 0.666667
    assert wrong["classes"]["green"]["iou"] == 1
    assert wrong["confusion"]["labels_by_finds"] == [[5000, 0, 0], [0, 1200, 0], [5000, 0, 18_800]]
    assert [p.name for p in write(right, tmp_path / "r")] == ["figures.json", "report.md"]


def test_windows_as_a_whole_are_not_judged(tmp_path: Path, data: Path) -> None:
    """Said in a sentence, like numbers that are none."""
    with pytest.raises(UserError, match="whole windows"):
        evaluate(tile_model(tmp_path / "m"), data)
    for options in (Options(score=1.5), Options(iou=-0.1), Options(edge_band=-1)):
        with pytest.raises(UserError, match="is not between"):
            evaluate(tmp_path / "m", data, options)


def test_tables_name_what_they_show(blob: Path, data: Path) -> None:
    """As many cells as columns, the thresholds' best row among them, JSON that reads back."""
    told = evaluate(blob, data)
    for table in tables(told):
        assert all(len(row) == len(table.columns) for row in table.rows)
    best = told["figures"]["best"]["centre"]["score"]
    assert f"{best:g}" in [row[0] for row in tables(told)[-1].rows]
    assert json.loads(as_text(told)) == told
