"""A segmentation model through the whole installation: every pixel's class, and its outlines."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import geopandas
import httpx
import numpy as np
import numpy.typing as npt
import pytest
import rasterio.features
from confluent_kafka import Producer
from pycocotools.coco import COCO
from rasterio.io import MemoryFile
from rasterio.transform import Affine

from frond.contracts import keys
from frond.contracts.ids import image_id
from frond.models.registry import Registry
from frond.models.testing import colour_model
from frond.store import ObjectStore
from support.kafka import completed
from support.waiting import until

pytestmark = [pytest.mark.stack, pytest.mark.slow]

Classes = npt.NDArray[np.uint8]
HEIGHT, WIDTH, BLOCK = 210, 300, 6
NODATA = 7
TRANSFORM = Affine(0.5, 0.0, 480_000.0, 0.0, -0.5, 80_000.0)
# background, red, green, nodata: the values of the class raster
COLOURS = {0: (0, 0, 0), 1: (255, 0, 0), 2: (0, 255, 0), 255: (NODATA,) * 3}


def truth() -> Classes:
    """Ragged regions of two classes, some with holes, across all windows' borders; a corner of
    nodata that holds whole windows, and a patch of it in the middle of others."""
    rng = np.random.default_rng(5)
    coarse = rng.choice([0, 1, 2], (HEIGHT // BLOCK, WIDTH // BLOCK), p=[0.3, 0.5, 0.2])
    classes = np.kron(coarse, np.ones((BLOCK, BLOCK))).astype(np.uint8)
    classes[120:, :132] = 255
    classes[30:54, 180:216] = 255
    return classes


def scene(classes: Classes) -> bytes:
    image = np.zeros((3, HEIGHT, WIDTH), np.uint8)
    for value, colour in COLOURS.items():
        image[:, classes == value] = np.array(colour)[:, None]
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", width=WIDTH, height=HEIGHT, count=3, dtype="uint8", crs="EPSG:32650",
            transform=TRANSFORM, nodata=NODATA, compress="deflate", tiled=True,
            blockxsize=128, blockysize=128,
        ) as out:  # fmt: skip
            out.write(image)
        return bytes(memory.read())


def submit(env: dict[str, str], job: str, uri: str) -> None:
    producer = Producer({"bootstrap.servers": env["FROND_KAFKA_BOOTSTRAP"]})
    event = {"job_id": job, "image": uri, "job_size": 1, "model": "colours"}
    producer.produce(env["FROND_TOPIC_PREFIX"] + "frond.uploaded.v1", json.dumps(event))
    assert producer.flush(30) == 0


@pytest.fixture
async def uri(frond: Any, store: ObjectStore, tmp_path: Path) -> str:
    """The scene, where the model that tells its colours is known."""
    await Registry(store).push(colour_model(tmp_path / "colours"), alias="production")
    await store.put("in/scene.tif", scene(truth()), "image/tiff")
    return store.uri("in/scene.tif")


async def test_every_pixel_and_every_region(frond: Any, store: ObjectStore, uri: str) -> None:
    """The class raster is the truth over all windows' overlaps, in its place; COCO, GeoParquet and
    GeoJSON hold exactly its regions; another job of the same raster gives the same bytes."""
    classes = truth()
    rasters, annotations = [], []
    for job in ("masks-a", "masks-b"):
        submit(frond.env, job, uri)
        event = await completed(frond.env, job)
        assert event["outcome"] == "completed", event
        assert event["windows"]["skipped"] > 0
        rasters.append(await store.get(keys.image_classes(job, image_id(job, uri))))
        coco = json.loads(await store.get(keys.result(job, "coco.json")))
        annotations.append(coco["annotations"])
        counted = {c["name"]: 0 for c in coco["categories"]}
        for annotation in coco["annotations"]:
            counted[coco["categories"][annotation["category_id"] - 1]["name"]] += 1
        assert event["detections"] == counted
    assert rasters[0] == rasters[1]
    assert annotations[0] == annotations[1]

    check_raster(rasters[0], classes)
    check_coco(coco, classes)
    await check_places(store, "masks-a", classes)
    await check_listing(frond, "masks-a", rasters[0])


async def test_a_kill_while_masks_are_made(frond: Any, store: ObjectStore, uri: str) -> None:
    """SIGKILL with an image's chunks on disk: whoever starts next makes it all the same, and clears
    away what was left."""
    cache = Path(frond.env["FROND_CACHE_DIR"])
    # a fresh process has no child yet: making one takes long enough to be seen
    await restarted(frond)
    submit(frond.env, "masks-killed", uri)
    (left,) = await asyncio.to_thread(
        until, lambda: {p.parent for p in cache.glob("masks-*/*.arrow")}, 60, every=0.01
    )
    await restarted(frond)
    event = await completed(frond.env, "masks-killed")
    assert event["outcome"] == "completed", event
    key = keys.image_classes("masks-killed", image_id("masks-killed", uri))
    check_raster(await store.get(key), truth())
    assert not list(cache.glob(f"{left.name}*"))


async def restarted(frond: Any) -> None:
    frond.kill("aggregator")
    frond.start("aggregator")
    await frond.ready("aggregator")


def check_raster(data: bytes, classes: Classes) -> None:
    with MemoryFile(data) as memory, memory.open() as raster:
        assert np.array_equal(raster.read(1), classes)
        assert (raster.nodata, str(raster.crs)) == (255, "EPSG:32650")
        assert raster.transform == TRANSFORM
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert raster.colormap(1)[1] != raster.colormap(1)[2]


def check_coco(dataset: dict[str, Any], classes: Classes) -> None:
    coco = COCO()
    coco.dataset = dataset
    coco.createIndex()
    seen = np.zeros_like(classes)
    for annotation in coco.loadAnns(coco.getAnnIds()):
        mask = coco.annToMask(annotation).astype(bool)
        assert annotation["area"] == mask.sum() and annotation["score"] > 0.9
        assert not seen[mask].any()
        seen[mask] = annotation["category_id"]
    assert np.array_equal(seen, np.where(classes == 255, 0, classes))
    assert {type(a["segmentation"]) for a in dataset["annotations"]} == {list, dict}
    shapes = rasterio.features.shapes(classes, mask=np.isin(classes, (1, 2)), connectivity=4)
    assert len(dataset["annotations"]) == sum(1 for _ in shapes)


async def check_places(store: ObjectStore, job: str, classes: Classes) -> None:
    parquet = geopandas.read_parquet(
        io.BytesIO(await store.get(keys.result(job, "detections.parquet")))
    )
    geojson = geopandas.read_file(
        io.BytesIO(await store.get(keys.result(job, "detections.geojson")))
    )
    assert parquet.crs == "EPSG:32650"
    for frame in (parquet, geojson.to_crs("EPSG:32650")):
        assert frame.geometry.is_valid.all()
        burnt = rasterio.features.rasterize(
            zip(frame.geometry, frame["class"].map({"red": 1, "green": 2}), strict=True),
            out_shape=classes.shape, transform=TRANSFORM, dtype="uint8",
        )  # fmt: skip
        assert np.array_equal(burnt, np.where(classes == 255, 0, classes))


async def check_listing(frond: Any, job: str, raster: bytes) -> None:
    """The class raster is among the image's files, and served as what it is."""
    headers = {"Authorization": f"Bearer {frond.env['FROND_API_KEY']}"}
    async with httpx.AsyncClient(base_url=frond.url("ingest"), headers=headers) as http:
        images = f"/jobs/{job}/results/images/scene.tif/"
        files = (await http.get(images)).raise_for_status().json()["files"]
        assert {f["name"] for f in files} >= {"classes.tif", "polygons.arrow", "coco.json"}
        answer = (await http.get(images + "classes.tif")).raise_for_status()
        assert answer.content == raster
        assert "cloud-optimized" in answer.headers["content-type"]
