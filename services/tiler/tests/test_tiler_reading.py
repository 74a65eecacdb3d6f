from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio

from frond.client.scenes import palm_scene
from frond.contracts.errors import RasterRejected, StoreUnavailable
from frond.contracts.jobs import ModelRef
from frond.contracts.modelspec import DecoderSpec, InputSpec, ModelManifest
from frond.contracts.plan import ImagePlan
from frond.contracts.reasons import Reason
from frond.models import load_manifest
from frond.raster import PlanRequest, inspect, open_raster
from frond.raster.slow import free_bytes, total_bytes
from frond.tiler import reading
from frond.tiler.reading import Copied, ModelNeeded, Task, _need_room, plan_raster

PALMS = Path(__file__).parents[3] / "models" / "palm-detector"


def task(path: Path, copy_to: Path | None, bands: tuple[int, ...] = (1, 2, 3)) -> Task:
    manifest = ModelManifest(
        name="m",
        decoder=DecoderSpec(name="x"),
        classes=("a",),
        input=InputSpec(size=512),
        bands=bands,
    )
    request = PlanRequest(
        job_id="j", image_id="1" * 32, image="s3://b/k", name="k", uri="s3://b/k", etag="e",
        size=path.stat().st_size, model=ModelRef(name="m", digest="0" * 64), manifest=manifest,
    )  # fmt: skip
    return Task(request, str(path), path.read_bytes()[:512], copy_to)


def test_a_large_picture_is_copied_first(tmp_path: Path) -> None:
    """It decodes from the top each time; the copy is planned, and is not copied again."""
    path, copy = tmp_path / "x.jpg", tmp_path / "copy.tif"
    row = np.arange(4200, dtype=np.uint8)[None, None, :].repeat(3, 0)
    with rasterio.open(
        path, "w", driver="JPEG", width=4200, height=4200, count=3, dtype="uint8"
    ) as out:
        out.write(row.repeat(4200, 1))
    made = plan_raster(task(path, copy))
    assert made == Copied(copy)
    plan = plan_raster(task(copy, None))
    assert isinstance(plan, ImagePlan)
    assert (plan.source.width, plan.source.height) == (4200, 4200)
    with pytest.raises(RasterRejected) as e:
        plan_raster(task(path, tmp_path / "other.tif", bands=(1, 2, 5)))
    assert e.value.reason is Reason.MISSING_BANDS
    assert not (tmp_path / "other.tif").exists()


def test_a_small_picture_is_not(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    with rasterio.open(path, "w", driver="PNG", width=40, height=30, count=3, dtype="uint8") as out:
        out.write(np.ones((3, 30, 40), np.uint8))
    plan = plan_raster(task(path, tmp_path / "copy.tif"))
    assert isinstance(plan, ImagePlan)
    assert plan.source.uri == "s3://b/k"


def test_a_picture_without_a_scale_is_planned_with_its_model(tmp_path: Path) -> None:
    """The model is asked for, and only then: half as fine as it was trained on, seen twice as large."""
    path = tmp_path / "x.png"
    pixels = palm_scene(320, 320, 30, 5, 0.28)[0]
    with rasterio.open(
        path, "w", driver="PNG", width=320, height=320, count=3, dtype="uint8"
    ) as out:
        out.write(pixels.transpose(2, 0, 1))
    asked = task(path, None)
    asked = replace(asked, request=replace(asked.request, manifest=load_manifest(PALMS)))
    assert plan_raster(asked) == ModelNeeded()
    plan = plan_raster(replace(asked, model=PALMS))
    assert isinstance(plan, ImagePlan)
    assert plan.gsd_source == "estimated"
    assert plan.grid.scale == pytest.approx(2, rel=0.2)
    assert plan_raster(replace(asked, model=PALMS)) == plan


def test_a_model_that_cannot_be_loaded_leaves_the_pixels_as_they_are(tmp_path: Path) -> None:
    """Inference tells what is wrong with it; the plan says that it was not asked."""
    broken = tmp_path / "model"
    broken.mkdir()
    (broken / "model.onnx").write_bytes(b"no graph")
    (broken / "model.yaml").write_bytes((PALMS / "model.yaml").read_bytes())
    asked = task(_picture(tmp_path), None)
    request = replace(asked.request, manifest=load_manifest(broken))
    plan = plan_raster(replace(asked, request=request, model=broken))
    assert isinstance(plan, ImagePlan)
    assert (plan.grid.scale, plan.gsd_source) == (1.0, None)
    assert any("could not be asked" in n for n in plan.notes)


def test_why_the_model_is_not_asked_is_told(tmp_path: Path) -> None:
    """Whoever knows that it cannot be says so, and the pixels are taken as they are."""
    asked = task(_picture(tmp_path), None)
    request = replace(asked.request, manifest=load_manifest(PALMS))
    plan = plan_raster(replace(asked, request=request, model=PALMS, not_asked="too-large"))
    assert isinstance(plan, ImagePlan)
    assert (plan.grid.scale, plan.gsd_source) == (1.0, None)
    assert any("could not be asked for the scale: too-large" in n for n in plan.notes)


def test_a_model_takes_no_memory_from_other_rasters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is kept while rasters need it, and let go before one that does not is read. To load it is
    given time of its own."""
    more: list[float] = []
    monkeypatch.setattr(reading, "more_time", more.append)
    plain = task(_picture(tmp_path), None)
    asked = replace(plain, request=replace(plain.request, manifest=load_manifest(PALMS)))
    for _ in range(2):
        plan_raster(replace(asked, model=PALMS))
        assert reading._session.cache_info().currsize == 1
    assert more.count(reading._LOAD_S) == 1
    plan_raster(plain)
    assert reading._session.cache_info().currsize == 0


def test_room_for_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full just now is waited for; one that would never do is the image's fate."""
    with open_raster(str(_picture(tmp_path))) as ds:
        info = inspect(ds)
    assert 0 < free_bytes(tmp_path) <= total_bytes(tmp_path)
    _need_room(info, tmp_path)
    with pytest.raises(RasterRejected) as e:
        _need_room(replace(info, width=1 << 40, height=1 << 20), tmp_path)
    assert e.value.reason is Reason.TOO_LARGE
    monkeypatch.setattr(reading, "free_bytes", lambda _: 0)
    with pytest.raises(StoreUnavailable):
        _need_room(info, tmp_path)


def _picture(folder: Path) -> Path:
    path = folder / "small.png"
    with rasterio.open(path, "w", driver="PNG", width=40, height=30, count=3, dtype="uint8") as out:
        out.write(np.ones((3, 30, 40), np.uint8))
    return path
