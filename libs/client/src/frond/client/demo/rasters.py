"""The demo's scenes on disk: GeoTIFFs as different as people's are, and what is planted in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
import rasterio.warp
from numpy.typing import NDArray
from rasterio.transform import Affine

from frond.client.scenes import palm_scene

# far from the seeds of the detector's training scenes
SEED: Final = 770_000
METRES_A_DEGREE: Final = 111_320.0


@dataclass(frozen=True)
class Scene:
    """How one scene is made.

    Attributes:
        site: longitude, latitude of its upper left corner.
        gsd: ground metres a pixel.
        edge: what lies outside the flown area: ``nodata``, ``alpha``, ``mask``, ``nan``; or nothing.
        rotation: of the geotransform, degrees counter-clockwise.
    """

    name: str
    crs: str
    site: tuple[float, float]
    gsd: float = 0.14
    width: int = 1200
    height: int = 1000
    palms: int = 80
    dtype: str = "uint8"
    edge: str = ""
    rotation: float = 0.0
    infrared: bool = False
    options: tuple[tuple[str, str], ...] = (("compress", "deflate"), ("tiled", "yes"))


@dataclass(frozen=True)
class Planted:
    """One scene on disk and its truth.

    Attributes:
        boxes: float64 [n, 4], x0, y0, x1, y1 in pixels: crowns that are wholly inside.
        ignored: crowns that the edge of the flown area cuts: neither asked for nor held against.
        centres: float64 [n, 2], longitude and latitude of the boxes' centres.
    """

    path: Path
    scene: Scene
    boxes: NDArray[np.float64]
    ignored: NDArray[np.float64]
    centres: NDArray[np.float64]


_STRIPS: Final = (("compress", "lzw"), ("tiled", "no"))
_PLAIN: Final = (("tiled", "no"),)
_BLOCKS: Final = (
    ("compress", "zstd"),
    ("tiled", "yes"),
    ("blockxsize", "256"),
    ("blockysize", "256"),
)
_BORNEO, _JAVA, _PENINSULA = (113.42, 0.61), (106.83, -6.71), (103.12, 3.35)
_CAMEROON, _UCAYALI, _BENIN = (9.37, 4.12), (-74.62, -8.31), (2.41, 6.62)
_HONDURAS, _BAHIA, _SABAH = (-87.41, 15.52), (-39.11, -13.42), (117.93, 5.31)

SCENES: Final[tuple[Scene, ...]] = (
    Scene("01-borneo.tif", "EPSG:32649", _BORNEO, palms=110),
    Scene("02-borneo-nodata.tif", "EPSG:32649", _BORNEO, width=1800, height=1400,
          edge="nodata", palms=160),
    Scene("03-java-south.tif", "EPSG:32748", _JAVA),
    Scene("04-java-16-bit.tif", "EPSG:32748", _JAVA, dtype="uint16", palms=90),
    Scene("05-java-rotated.tif", "EPSG:32748", _JAVA, rotation=23.5, palms=90),
    Scene("06-peninsula-10-cm.tif", "EPSG:32648", _PENINSULA, gsd=0.10, width=1500, height=1200),
    Scene("07-peninsula-20-cm.tif", "EPSG:32648", _PENINSULA, gsd=0.20, width=900, height=800),
    Scene("08-cameroon-strips.tif", "EPSG:32632", _CAMEROON, options=_STRIPS),
    Scene("09-cameroon-alpha.tif", "EPSG:32632", _CAMEROON, edge="alpha", palms=100),
    Scene("10-ucayali-float.tif", "EPSG:32718", _UCAYALI, dtype="float32"),
    Scene("11-ucayali-nan.tif", "EPSG:32718", _UCAYALI, dtype="float32", edge="nan", palms=100),
    Scene("12-benin-web-mercator.tif", "EPSG:3857", _BENIN),
    Scene("13-benin-web-mercator-20-cm.tif", "EPSG:3857", _BENIN, gsd=0.20, width=900, height=900),
    Scene("14-honduras-degrees.tif", "EPSG:4326", _HONDURAS),
    Scene("15-honduras-degrees-16-bit.tif", "EPSG:4326", _HONDURAS, dtype="uint16"),
    Scene("16-bahia-four-bands.tif", "EPSG:32724", _BAHIA, dtype="uint16", infrared=True),
    Scene("17-bahia-mask.tif", "EPSG:32724", _BAHIA, edge="mask", palms=100),
    Scene("18-sabah-large.tif", "EPSG:32650", _SABAH, width=2400, height=1800, palms=340),
    Scene("19-sabah-blocks.tif", "EPSG:32650", _SABAH, options=_BLOCKS),
    Scene("20-sabah-small.tif", "EPSG:32650", _SABAH, width=420, height=380, palms=10),
    Scene("21-sabah-one-row.tif", "EPSG:32650", _SABAH, width=1500, height=420, palms=40,
          options=_PLAIN),
    Scene("22-sabah-bare.tif", "EPSG:32650", _SABAH, palms=0),
)  # fmt: skip
NOT_A_RASTER: Final = "23-notes.tif"
TRUNCATED: Final = "24-cut-off.tif"


def make_scenes(folder: Path, tell: Any = None) -> tuple[list[Planted], list[Path]]:
    """Write all 24 files.

    Args:
        tell: called with each file's path when it is written.

    Returns:
        What is planted in the 22 good ones, and the paths of the 2 bad ones. The same at each call.
    """
    folder.mkdir(parents=True, exist_ok=True)
    planted = []
    for number, scene in enumerate(SCENES):
        planted.append(_write(folder / scene.name, scene, SEED + number))
        if tell is not None:
            tell(planted[-1].path)
    notes, cut = folder / NOT_A_RASTER, folder / TRUNCATED
    notes.write_text("Field notes: drone landed early, battery 3 swollen. Not an image.\n" * 40)
    whole = planted[0].path.read_bytes()
    cut.write_bytes(whole[: len(whole) * 3 // 5])
    if tell is not None:
        tell(notes)
        tell(cut)
    return planted, [notes, cut]


def _write(path: Path, scene: Scene, seed: int) -> Planted:
    rgb, boxes = palm_scene(scene.height, scene.width, scene.palms, seed, scene.gsd)
    flown = _flown(scene, seed)
    samples, nodata = _samples(rgb, scene, flown, seed)
    transform = geotransform(scene)
    profile: dict[str, Any] = {
        "driver": "GTiff", "width": scene.width, "height": scene.height, "count": len(samples),
        "dtype": samples.dtype, "crs": scene.crs, "transform": transform, "nodata": nodata,
        "photometric": "RGB", **dict(scene.options),
    }  # fmt: skip
    if scene.edge == "alpha":
        profile["alpha"] = "yes"
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **profile) as out:
        out.write(samples)
        if scene.edge == "mask":
            out.write_mask(flown)
    share = np.array([_share(flown, b) for b in boxes])
    whole = boxes[share >= 1] if len(boxes) else boxes
    cut = boxes[(share > 0) & (share < 1)] if len(boxes) else boxes
    return Planted(path, scene, whole, cut, _lonlat(scene, transform, whole))


def _flown(scene: Scene, seed: int) -> NDArray[np.bool_]:
    """Where the aircraft was: all of it, or a field with slanted edges as of a mosaic."""
    if not scene.edge:
        return np.ones((scene.height, scene.width), dtype=bool)
    rng = np.random.default_rng([seed, 1])
    y, x = np.mgrid[0 : scene.height, 0 : scene.width]
    u, v = x / scene.width, y / scene.height
    a, b, c, d = rng.uniform(0.05, 0.3, 4)
    if scene.edge == "nodata":
        a = 0.62  # so much that whole windows have no data
    ragged = 0.012 * np.sin(u * 37 + a * 90) + 0.01 * np.sin(v * 29 + b * 90)
    inside = (u + ragged > a * v) & (1 - u + ragged > b * (1 - v))
    return np.asarray(inside & (v + ragged > c * (1 - u)) & (1 - v + ragged > d * u))


def _samples(
    rgb: NDArray[np.uint8], scene: Scene, flown: NDArray[np.bool_], seed: int
) -> tuple[NDArray[Any], float | None]:
    """The bands [bands, rows, columns] in the scene's dtype, and the nodata value."""
    bands = np.moveaxis(rgb, 2, 0)
    if scene.infrared:
        bands = np.concatenate([bands, 255 - bands[:1] // 2])
    if scene.dtype == "uint16":
        noise = np.random.default_rng([seed, 2]).integers(0, 11, bands.shape, dtype=np.uint16)
        out: NDArray[Any] = bands.astype(np.uint16) * 11 + noise + 240
    elif scene.dtype == "float32":
        out = bands.astype(np.float32) / np.float32(255) * np.float32(0.45) + np.float32(0.01)
    else:
        out = bands
    if scene.edge == "nodata":
        return np.where(flown, np.maximum(out, 1), 0).astype(out.dtype), 0
    if scene.edge == "nan":
        return np.where(flown, out, np.float32("nan")), None
    if scene.edge == "alpha":
        alpha = np.where(flown, 255, 0).astype(np.uint8)[None]
        return np.concatenate([np.where(flown, out, 0).astype(np.uint8), alpha]), None
    return out, None


def geotransform(scene: Scene) -> Affine:
    """Pixel corners to the scene's CRS, its pixels as large on the ground as its GSD says."""
    lon, lat = scene.site
    if scene.crs == "EPSG:4326":
        high = scene.gsd / 110_574.0
        wide = scene.gsd / (METRES_A_DEGREE * math.cos(math.radians(lat)))
        return Affine(wide, 0, lon, 0, -high, lat)
    xs, ys = rasterio.warp.transform("EPSG:4326", scene.crs, [lon], [lat])
    pixel = scene.gsd
    if scene.crs == "EPSG:3857":
        # Web Mercator's metres are longer than the ground's
        pixel /= math.cos(math.radians(lat))
    # rotation and scale multiplied out: how affines multiply differs between its releases
    turn = math.radians(scene.rotation)
    c, s = math.cos(turn) * pixel, math.sin(turn) * pixel
    return Affine(c, s, round(xs[0], 2), s, -c, round(ys[0], 2))


def _share(flown: NDArray[np.bool_], box: NDArray[np.float64]) -> float:
    x0, y0, x1, y1 = (int(v) for v in box)
    return float(flown[y0:y1, x0:x1].mean())


def _lonlat(scene: Scene, transform: Affine, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    if not len(boxes):
        return np.empty((0, 2))
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    a = transform
    east, north = a.a * x + a.b * y + a.c, a.d * x + a.e * y + a.f
    lon, lat = rasterio.warp.transform(scene.crs, "EPSG:4326", east.tolist(), north.tolist())
    return np.column_stack([lon, lat])


def paths_of(planted: Sequence[Planted], bad: Sequence[Path]) -> list[Path]:
    """Everything to upload, by name."""
    return sorted([*(p.path for p in planted), *bad])
