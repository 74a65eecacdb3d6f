"""One job of rasters that lie on the map in every way, its files opened in the tools of others."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import geopandas
import numpy as np
import numpy.typing as npt
import pytest
import shapely
from pycocotools.coco import COCO
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.io import MemoryFile
from rasterio.transform import Affine
from rasterio.warp import transform as gdal_transform

from frond.bus import EventProducer, Outgoing
from frond.contracts import keys, topics
from frond.contracts.events import ImageUploaded
from frond.store import ObjectStore
from support.kafka import completed
from support.planted import BACKGROUND, MAGENTA, SIDE

pytestmark = [pytest.mark.stack, pytest.mark.slow]

CORNERS = np.array([(20, 30), (200, 60), (90, 210), (330, 250), (400, 20)])
WIDTH, HEIGHT = 450, 300


class Lies(NamedTuple):
    """How a raster lies on the map.

    Attributes:
        place: from pixels to the CRS; None for a raster that does not say.
        gcps: whether that is told by control points.
    """

    crs: str | None
    place: Affine | None
    gcps: bool = False
    bands: int = 3
    dtype: str = "uint8"
    squares: int = len(CORNERS)


NORTH = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
RASTERS = {
    "north/scene.tif": Lies("EPSG:32633", NORTH),
    "south/scene.tif": Lies("EPSG:32633", Affine(0.5, 0, 500_000, 0, 0.5, 5_000_000)),
    "Überflug 2 (neu).tif": Lies("EPSG:32633", NORTH @ Affine.rotation(33)),
    "oblong.tif": Lies("EPSG:25832", Affine(0.5, 0, 400_000, 0, -0.25, 5_600_000)),
    "degrees.tif": Lies("EPSG:4326", Affine(5e-6, 0, 13.4, 0, -4e-6, 52.5)),
    "northing-first.tif": Lies("EPSG:31467", Affine(0.2, 0, 3_500_000, 0, -0.2, 5_800_000)),
    "feet.tif": Lies("EPSG:2263", Affine(1, 0, 980_000, 0, -1, 200_000)),
    "fiji.tif": Lies("EPSG:4326", Affine(1e-5, 0, 179.9979, 0, -1e-5, -17)),
    "pole.tif": Lies("EPSG:3031", Affine(1, 0, -209.5, 0, -1, 70.5)),
    "drone.tif": Lies("EPSG:32633", Affine(0.004, 0, 500_000, 0, -0.004, 5_000_000)),
    "four.tif": Lies("EPSG:32633", NORTH, bands=4),
    "sixteen.tif": Lies("EPSG:32633", NORTH, dtype="uint16"),
    "points.tif": Lies("EPSG:32633", NORTH, gcps=True),
    "points-alone.tif": Lies(None, NORTH, gcps=True),
    "no-crs.tif": Lies(None, NORTH),
    "crs-alone.tif": Lies("EPSG:32633", None),
    "nowhere.tif": Lies(None, None),
    "bare.tif": Lies("EPSG:32633", NORTH, squares=0),
}


def written(lies: Lies) -> bytes:
    top = 257 if lies.dtype == "uint16" else 1
    image = np.zeros((lies.bands, HEIGHT, WIDTH), lies.dtype)
    image[:3] = np.array(BACKGROUND)[:, None, None] * top
    for x, y in CORNERS[: lies.squares]:
        image[:3, y : y + SIDE, x : x + SIDE] = np.array(MAGENTA)[:, None, None] * top
    # else GDAL takes a fourth band for alpha
    where: dict[str, Any] = {"crs": lies.crs, "photometric": "RGB", "alpha": "NO"}
    if lies.gcps and lies.place is not None:
        where["gcps"] = [
            GroundControlPoint(r, c, *(lies.place @ (c, r)), 0.0)
            for r in (0, HEIGHT) for c in (0, WIDTH)
        ]  # fmt: skip
        where["crs"] = lies.crs or CRS()
    elif lies.place is not None:
        where["transform"] = lies.place
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", width=WIDTH, height=HEIGHT, count=lies.bands, dtype=lies.dtype, **where
        ) as out:
            out.write(image)
        return bytes(memory.read())


def centres(lies: Lies) -> npt.NDArray[np.float64]:
    """Longitude and latitude of the squares' centres, as GDAL has them."""
    assert lies.place is not None and lies.crs is not None
    points = [lies.place @ (x + SIDE / 2, y + SIDE / 2) for x, y in CORNERS[: lies.squares]]
    x, y = np.reshape(points, (-1, 2)).T
    lon, lat = gdal_transform(lies.crs, "OGC:CRS84", x, y)
    return np.column_stack([(np.array(lon) + 180) % 360 - 180, lat])


def in_order(boxes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return boxes[np.argsort(np.rint(boxes[:, 0]))]


async def test_every_file_tells_the_same_place(
    frond: Any, store: ObjectStore, tmp_path: Path
) -> None:
    """Each square that was planted lies in GeoJSON where GDAL says, in GeoParquet at the same place,
    in COCO in its pixels; all files agree on the number, and each detection has an id of its own."""
    job, uris = "tools", {}
    files = {name: written(lies) for name, lies in RASTERS.items()} | {"broken.tif": b"II*\0 no"}
    for name, data in files.items():
        await store.put(f"{job}/{name}", data)
        uris[store.uri(f"{job}/{name}")] = name
    producer = EventProducer(
        frond.env["FROND_KAFKA_BOOTSTRAP"], frond.env["FROND_TOPIC_PREFIX"], "/test"
    )
    await producer.start()
    await producer.send([
        Outgoing(topics.UPLOADED, ImageUploaded(
            job_id=job, image=uri, name=Path(name).name, job_size=len(uris)
        )) for uri, name in uris.items()
    ])  # fmt: skip
    await producer.stop()
    event = await completed(frond.env, job)
    assert [f["name"] for f in event["failures"]] == ["broken.tif"]

    got = {n: await store.get(keys.result(job, n)) for n in (
        "coco.json", "coco-results.json", "detections.geojson", "detections.parquet", "summary.json",
    )}  # fmt: skip
    (tmp_path / "coco.json").write_bytes(got["coco.json"])
    (tmp_path / "results.json").write_bytes(got["coco-results.json"])
    coco = COCO(str(tmp_path / "coco.json"))
    images = {
        uris[i["frond"]["uri"]]: i for i in coco.loadImgs(coco.getImgIds())
    }  # fmt: skip
    geojson = json.loads(got["detections.geojson"])
    parquet = geopandas.read_parquet(io.BytesIO(got["detections.parquet"]))
    summary = {uris[i["uri"]]: i for i in json.loads(got["summary.json"])["images"]}

    found = {name: len(coco.imgToAnns[images[name]["id"]]) for name in RASTERS}
    assert found == {name: lies.squares for name, lies in RASTERS.items()}
    planted = sum(lies.squares for lies in RASTERS.values())
    assert len(coco.getAnnIds()) == len(parquet) == event["detections"]["blob"] == planted
    assert len(coco.loadRes(str(tmp_path / "results.json")).getAnnIds()) == planted
    assert parquet["id"].is_unique
    ids = Counter(f["id"] for f in geojson["features"])
    assert max(ids.values()) == 1 and set(ids) <= set(parquet["id"])
    on_map = {n for n, lies in RASTERS.items() if lies.crs and lies.place}
    elsewhere = {i["image_id"] for i in geojson["images_without_lonlat"]}
    assert elsewhere == {images[n]["frond"]["image_id"] for n in set(RASTERS) - on_map}

    for name, lies in RASTERS.items():
        image = images[name]
        image_id = image["frond"]["image_id"]
        # two of one name are told apart by where they lie
        told = (
            image["frond"]["uri"].removeprefix("s3://") if "scene.tif" in name else Path(name).name
        )
        assert image["file_name"] == told
        boxes = np.array([a["bbox"] for a in coco.imgToAnns[image["id"]]]).reshape(-1, 4)
        wanted = np.pad(CORNERS[: lies.squares], ((0, 0), (0, 2)), constant_values=SIDE)
        assert np.abs(in_order(boxes) - in_order(wanted)).max(initial=0) < 1, name
        features = [f for f in geojson["features"] if f["properties"]["image_id"] == image_id]
        rows = parquet[parquet["image_id"] == image_id]
        own = geopandas.read_parquet(
            io.BytesIO(await store.get(keys.image_artifact(job, image_id, "detections.parquet")))
        )
        item = json.loads(await store.get(keys.image_artifact(job, image_id, "stac.json")))
        assert len(own) == len(rows) == lies.squares == sum(summary[name]["detections"].values())
        if name not in on_map:
            assert not features and rows.geometry.isna().all()
            assert item["geometry"] is None and summary[name]["area_km2"] is None
            assert own.geometry.notna().all() == (lies.place is not None), name
            continue
        assert len(features) == lies.squares
        shapes = [shapely.geometry.shape(f["geometry"]) for f in features]
        outline = shapely.geometry.shape(item["geometry"])
        assert outline.is_valid and all(s.is_valid for s in shapes), name
        for point in shapely.points(centres(lies)):
            assert sum(s.covers(point) for s in shapes) == 1, name
            assert outline.covers(point), name
        assert all(a.equals_exact(b, 2e-7) for a, b in zip(shapes, rows.geometry, strict=True)), (
            name
        )
        assert own.crs == lies.crs and own.geometry.notna().all()
        sizes = shapely.area(own.geometry.to_numpy())
        assert np.allclose(sizes, SIDE**2 * abs(lies.place.determinant), rtol=0.15), name
        west, south, east, north = item["bbox"]
        assert -90 <= south < north <= 90 and min(west, east) >= -180 and max(west, east) <= 180
        assert (west > east) == (name == "fiji.tif")
