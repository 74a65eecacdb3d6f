"""How far two versions agree on the windows that both saw."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from frond.artifacts.geojson import FeatureCollection
from frond.contracts.jobs import ModelRef
from frond.contracts.plan import Georeference, ImagePlan, RasterSource, WindowGrid
from frond.evaluation.agreement import BoxAgreement, Classes, MaskAgreement
from frond.evaluation.difference import DiffGeoJson
from frond.masks import MaskFile, WindowMask
from frond.masks import to_ipc as masks_to_ipc
from frond.merge import Detections

# cores of 48: columns 0…56, 56…104, 104…160
GRID = WindowGrid(width=160, height=160, size=64, margin=8)
NAMES = Classes(("palm", "roof"), ("roof", "palm", "pool"))


def found(*rows: tuple[float, float, float, int], window: int = 0, side: float = 10) -> Detections:
    """Squares: x, y, score, class."""
    boxes = [(x, y, x + side, y + side) for x, y, _, _ in rows]
    return Detections.of(
        np.array(boxes).reshape(-1, 4), [r[2] for r in rows], [r[3] for r in rows], window
    )


def counts(total: BoxAgreement, name: str) -> tuple[int, int, int, int]:
    told = total.figures()["classes"][name]
    return told["both"], told["only_production"], told["only_shadow"], told["other_class"]


def test_what_both_found_and_what_one_alone() -> None:
    """By class, whatever index each model gives it; IoU and scores of what both found."""
    total = BoxAgreement(NAMES)
    ours = found((0, 0, 0.9, 0), (20, 0, 0.8, 0), (0, 30, 0.7, 1))
    theirs = found((1, 0, 0.6, 1), (0, 30, 0.9, 0), (40, 40, 0.5, 2))
    told = total.add(GRID, 0, ours, theirs)
    assert counts(total, "palm") == (1, 1, 0, 0)
    assert counts(total, "roof") == (1, 0, 0, 0)
    assert counts(total, "pool") == (0, 0, 1, 0)
    figures = total.figures()
    assert figures["classes"]["palm"]["mean_iou"] == pytest.approx(90 / 110)
    assert figures["classes"]["palm"]["mean_score_difference"] == pytest.approx(-0.3)
    assert figures["classes"]["roof"]["mean_score_difference"] == pytest.approx(0.2)
    assert figures["classes"]["pool"]["mean_iou"] is None
    assert figures["confusions"] == []
    assert (len(told.pairs), len(told.only_production), len(told.only_shadow)) == (2, 1, 1)


def test_the_same_thing_under_another_name() -> None:
    """Is a confusion, and neither a miss nor a find."""
    total = BoxAgreement(NAMES)
    total.add(
        GRID, 0, found((0, 0, 0.9, 0), (20, 0, 0.9, 0)), found((0, 0, 0.8, 0), (21, 0, 0.8, 1))
    )
    assert counts(total, "palm") == (1, 0, 0, 1)
    assert counts(total, "roof") == (0, 0, 0, 0)
    assert total.figures()["confusions"] == [{"production": "palm", "shadow": "roof", "count": 1}]


def test_the_best_score_chooses_first() -> None:
    """Of two finds over one object the surer one has it; too little overlap is none."""
    total = BoxAgreement(NAMES)
    told = total.add(GRID, 0, found((0, 0, 0.9, 0)), found((2, 0, 0.6, 1), (1, 0, 0.7, 1)))
    assert counts(total, "palm") == (1, 0, 1, 0)
    ((_, shadow, _),) = told.pairs
    assert told.shadow.scores[shadow] == pytest.approx(0.7)
    total = BoxAgreement(NAMES)
    total.add(GRID, 0, found((0, 0, 0.9, 0)), found((4, 0, 0.6, 1)))
    assert counts(total, "palm") == (0, 1, 1, 0)


def test_what_is_the_neighbours_counts_there_and_once() -> None:
    """Twins on a core's border, which both windows keep, on both sides; the two models put it on
    different sides of the border."""
    border = 56.0
    ours, theirs = (border - 5.5, 20, 0.9, 0), (border - 4.5, 20, 0.8, 1)
    total = BoxAgreement(NAMES)
    for window in (0, 1):
        total.add(GRID, window, found(ours, window=window), found(theirs, window=window))
    assert counts(total, "palm") == (1, 0, 0, 0)
    # alone, each counts where its own centre is
    total = BoxAgreement(NAMES)
    for window in (0, 1):
        total.add(GRID, window, found(ours, window=window), found(window=window))
        total.add(GRID, window, found(window=window), found(theirs, window=window))
    assert counts(total, "palm") == (0, 1, 1, 0)


def test_other_windows_rows_are_left_out() -> None:
    """A chunk's result holds all of its windows; the shadow's its share."""
    total = BoxAgreement(NAMES)
    chunk = Detections.concat([found((0, 0, 0.9, 0)), found((60, 0, 0.9, 0), window=1)])
    total.add(GRID, 1, chunk, found((60, 0, 0.9, 1), window=1))
    assert counts(total, "palm") == (1, 0, 0, 0)


def test_two_runs_of_one_model_agree() -> None:
    """Whatever they found: an IoU of 1, no difference of scores, nothing alone."""
    rng = np.random.default_rng(3)
    rows = [
        (*rng.uniform(0, 50, 2), *rng.uniform(0.3, 1, 1), int(rng.integers(2))) for _ in range(60)
    ]
    same = found(*rows)
    total = BoxAgreement(Classes(("a", "b"), ("a", "b")))
    told = total.add(GRID, 0, same, same)
    figures = total.figures()
    assert figures["confusions"] == [] and told.only_production == told.only_shadow == ()
    for one in figures["classes"].values():
        assert one["mean_iou"] == 1 and one["mean_score_difference"] == 0


def mask(values: np.ndarray, classes: int, window: int = 0) -> MaskFile:
    """Sure of each pixel's class (0 background, −1 nothing)."""
    planes = np.zeros((classes + 1, 64, 64), np.uint8)
    for k in range(classes):
        planes[k][values == k + 1] = 250
    planes[-1] = np.where(values < 0, 0, np.where(values == 0, 250, 1))
    return MaskFile.of(masks_to_ipc([WindowMask(window, planes)], {}))


def test_pixels() -> None:
    """Of the core alone, where both mean something; by name, the background too."""
    ours, theirs = np.zeros((64, 64), int), np.zeros((64, 64), int)
    ours[:10, :10], theirs[:10, :20] = 1, 2  # palm in both
    ours[20:30, :10], theirs[20:30, :10] = 2, 3  # roof and pool
    ours[60:, 60:] = 1  # the neighbours'
    ours[40:, :] = -1
    total = MaskAgreement(NAMES)
    with mask(ours, 2) as a, mask(theirs, 3) as b:
        disagrees = total.add(GRID, 0, a, b, (0.5, 0.5))
    told = total.figures()
    assert told["pixels"] == 40 * 56
    assert disagrees == pytest.approx((100 + 100) / (40 * 56))
    assert told["agreement"] == pytest.approx(1 - disagrees)
    assert told["classes"]["palm"] == {
        "both_pixels": 100, "production_pixels": 100, "shadow_pixels": 200, "iou": 0.5,
    }  # fmt: skip
    assert told["classes"]["roof"]["iou"] == 0
    assert {(c["production"], c["shadow"], c["count"]) for c in told["confusions"]} == {
        ("background", "palm", 100), ("roof", "pool", 100),
    }  # fmt: skip
    with mask(np.full((64, 64), -1), 2) as a, mask(theirs, 3) as b:
        assert MaskAgreement(NAMES).add(GRID, 0, a, b, (0.5, 0.5)) is None


def plan(crs: str | None = "EPSG:32650", name: str = "é.tif") -> ImagePlan:
    geo = Georeference(kind="affine", crs=crs, transform=(0.5, 0, 500_000, 0, -0.5, 100_000))
    return ImagePlan(
        job_id="j", image_id="1" * 32, image="s3://b/i.tif", name=name, grid=GRID,
        model=ModelRef(name="m", digest="a" * 64), georeference=geo, chunks=1,
        source=RasterSource(uri="s3://b/i.tif", etag="e", size=1, bands=(1, 2, 3), dtype="uint8",
                            width=160, height=160),
    )  # fmt: skip


def written(add: Any) -> dict[str, Any]:
    out = io.BytesIO()
    with DiffGeoJson(out, {"job_id": "j"}, NAMES.names) as diff:
        add(diff)
        diff.finish()
    return dict(json.loads(out.getvalue()))


def test_geojson_of_finds() -> None:
    """WGS 84, counter-clockwise; by whom each was found, with class, scores and image."""
    ours, theirs = found((0, 0, 0.9, 0), (20, 0, 0.8, 0)), found((0, 0, 0.6, 0), (40, 40, 0.5, 2))
    told = BoxAgreement(NAMES).add(GRID, 0, ours, theirs)

    def add(diff: DiffGeoJson) -> None:
        diff.image(plan())
        diff.finds(plan(), 0, told)
        nowhere = plan(None, "nowhere.tif")
        diff.image(nowhere)
        diff.finds(nowhere, 0, told)

    made = written(add)
    both, production, shadow = (f["properties"] for f in made["features"])
    where = {"window": 0, "image": "é.tif", "image_id": "1" * 32}
    assert both == {
        "found_by": "both", "class": "palm", "class_shadow": "roof", "score": 0.9,
        "score_shadow": 0.6, "iou": 1.0, **where,
    }  # fmt: skip
    assert production == {"found_by": "production", "class": "palm", "score": 0.8, **where}
    assert shadow == {"found_by": "shadow", "class": "pool", "score_shadow": 0.5, **where}
    assert made["images_without_lonlat"] == [{"image_id": "1" * 32, "image": "nowhere.tif"}]
    assert "crs" not in made and made["frond"] == {"job_id": "j"}
    (ring,) = made["features"][0]["geometry"]["coordinates"]
    assert ring[0] == ring[-1] and len(ring) == 5
    assert all(116.9 < x < 117.1 and 0.8 < y < 1 for x, y in ring)
    assert sum((b[0] - a[0]) * (b[1] + a[1]) for a, b in pairwise(ring)) < 0


def test_geojson_is_framed_as_the_artifacts_are() -> None:
    """By the one writer of collections, to the byte."""
    ours, theirs = io.BytesIO(), io.BytesIO()
    with DiffGeoJson(ours, {"job_id": "j"}, NAMES.names) as diff:
        diff.image(plan(None, "nowhere.tif"))
        diff.finish()
    with FeatureCollection(theirs, {"job_id": "j"}) as collection:
        collection.without_lonlat("1" * 32, "nowhere.tif")
        collection.finish()
    assert ours.getvalue() == theirs.getvalue()


def test_geojson_of_windows() -> None:
    """A segmentation's: cores, and the share of their pixels that disagree."""
    made = written(lambda diff: diff.window(plan(), 4, 0.25))
    (feature,) = made["features"]
    assert feature["properties"]["disagrees"] == 0.25
    assert feature["properties"]["window"] == 4
    assert feature["geometry"]["type"] == "Polygon"
    assert written(lambda diff: None)["features"] == []
