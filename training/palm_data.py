"""Imagery and labels for the palm detector, brought to one scale and one box convention.

Everything is held as uint8 arrays in memory at the model's scale: a crown is about
``CROWN_PX`` pixels, which at 8.5 m is ``GSD_M`` metres a pixel. Parts are split by region
or estate, never by tile: tiles of one flight overlap.
"""

from __future__ import annotations

import importlib.util
import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

GSD_M = 0.14
CROWN_PX = 60.0
ENLARGE_12AJ = 1.25
"""12aj's boxes stop at about four fifths of the fronds' reach; others box whole crowns."""
Image.MAX_IMAGE_PIXELS = 64_000_000


@dataclass(frozen=True)
class Tile:
    """An image at the model's scale.

    ``boxes`` is float32 [n, 4], x0 y0 x1 y1 in pixels. ``border`` is the width of the band
    along the edge in which labels are not to be believed. ``sizes`` tells whether the boxes'
    extents may be learnt and scored, or their centres alone.
    """

    name: str
    pixels: np.ndarray
    boxes: np.ndarray
    border: int = 0
    sizes: bool = True


@dataclass(frozen=True)
class Part:
    """Tiles of one origin. ``weight`` is the part's share of the training crops."""

    name: str
    tiles: list[Tile]
    weight: float = 0.0
    zoom: tuple[float, float] = (0.5, 2.1)


@dataclass(frozen=True)
class Splits:
    train: list[Part]
    negatives: list[Part]
    val: list[Part]
    val_negatives: list[Part]
    test_negatives: list[Part] = field(default_factory=list)


def _yolo(path: Path, width: int, height: int) -> np.ndarray:
    rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
    values = np.array([[float(v) for v in row[1:5]] for row in rows], np.float32).reshape(-1, 4)
    centre, half = values[:, :2], values[:, 2:] / 2
    scale = np.array([width, height, width, height], np.float32)
    return np.concatenate([centre - half, centre + half], axis=1) * scale


def _rescaled(image: Image.Image, boxes: np.ndarray, sx: float, sy: float) -> Tile:
    size = (max(1, round(image.width * sx)), max(1, round(image.height * sy)))
    kx, ky = size[0] / image.width, size[1] / image.height
    how = Image.Resampling.LANCZOS if min(sx, sy) < 1 else Image.Resampling.BICUBIC
    out = image if size == image.size else image.resize(size, how)
    return Tile("", np.asarray(out), boxes * np.array([kx, ky, kx, ky], np.float32))


def _yolo_folder(
    folder: Path,
    *,
    crown: float | None,
    enlarge: float = 1.0,
    unstretch: bool = False,
    border: int = 10,
    sizes: bool = True,
) -> list[Tile]:
    """``crown``: rescale every image so that its median box is so large; None: leave it.

    ``enlarge`` widens boxes about their centres (sources that box a crown's core only).
    ``unstretch`` undoes the 4:3 squeeze of images whose boxes are wider than high or the
    other way about: crowns are round on average.
    """
    tiles = []
    for path in sorted((folder / "images").iterdir()):
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        boxes = _yolo(folder / "labels" / f"{path.stem}.txt", *image.size)
        whole = (boxes[:, :2] > 3).all(1) & (boxes[:, 2:] < np.array(image.size) - 3).all(1)
        measure = boxes[whole] if whole.sum() >= 3 else boxes
        sx = sy = 1.0
        if len(boxes):
            w, h = np.median(measure[:, 2:] - measure[:, :2], axis=0)
            if unstretch and abs(math.log(w / h)) > 0.1:
                ratio = min(max(float(w / h), 3 / 4), 4 / 3)
                sx, sy = ratio**-0.5, ratio**0.5
            if crown is not None:
                k = crown / (enlarge * math.sqrt(float(w * h)))
                sx, sy = sx * k, sy * k
        middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
        grown = np.concatenate([middle - enlarge * half, middle + enlarge * half], axis=1)
        tile = _rescaled(image, grown.astype(np.float32), sx, sy)
        tiles.append(Tile(path.name, tile.pixels, tile.boxes, border, sizes))
    return tiles


def _coco_folder(folder: Path, crown: float, border: int) -> list[Tile]:
    document = json.loads((folder / "_annotations.coco.json").read_text())
    by_image: dict[int, list[list[float]]] = {}
    for note in document["annotations"]:
        x, y, w, h = map(float, note["bbox"])
        by_image.setdefault(note["image_id"], []).append([x, y, x + w, y + h])
    tiles = []
    for entry in sorted(document["images"], key=lambda e: str(e["file_name"])):
        boxes = np.array(by_image.get(entry["id"], []), np.float32).reshape(-1, 4)
        if not len(boxes):
            continue
        with Image.open(folder / entry["file_name"]) as opened:
            image = opened.convert("RGB")
        k = crown / float(np.median(np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))))
        tile = _rescaled(image, boxes, k, k)
        tiles.append(Tile(entry["file_name"], tile.pixels, tile.boxes, border))
    return tiles


def _palm_free(paths: list[Path], zoom: float) -> list[Tile]:
    tiles = []
    for path in sorted(paths):
        with Image.open(path) as opened:
            # RGB + NIR files keep their first three bands
            image = (
                Image.fromarray(np.asarray(opened)[..., :3])
                if opened.mode == "RGBA"
                else (opened.convert("RGB"))
            )
        tile = _rescaled(image, np.zeros((0, 4), np.float32), zoom, zoom)
        tiles.append(Tile(path.name, tile.pixels, tile.boxes))
    return tiles


def load_splits(data: Path, *, training: bool = True) -> Splits:
    """Read what training and validation want (about 1 GB), or validation alone."""
    palms = data / "palms"
    lampung, kalimantan = palms / "lampung", palms / "kalimantan"
    train = (
        []
        if not training
        else [
            Part(
                "kalimantan/region2", _yolo_folder(kalimantan / "region2", crown=None, border=30), 4
            ),
            Part("gub", _yolo_folder(lampung / "gub", crown=58, unstretch=True), 4),
            # these two box the crown's core: the factor brings it to the spacing of the palms
            Part(
                "blok13m",
                _yolo_folder(lampung / "blok13m", crown=62, enlarge=1.85, border=12, sizes=False),
                1.5,
            ),
            Part(
                "asli",
                _yolo_folder(
                    lampung / "asli", crown=62, enlarge=1.55, unstretch=True, border=12, sizes=False
                ),
                2,
            ),
            Part("misc", _yolo_folder(lampung / "misc", crown=60, unstretch=True), 0.3),
            Part(
                "tonga_coconut",
                _yolo_folder(lampung / "tonga_coconut", crown=66, border=16, sizes=False),
                0.8,
            ),
            Part("kluang", _coco_folder(palms / "kluang_autolabel" / "valid", 60, 16), 1),
        ]
    )
    dubai, banepa = data / "landcover" / "dubai", data / "buildings" / "banepa"
    naip, neon = data / "trees_naip", data / "trees_neon"
    scenes = sorted(p for p in dubai.iterdir() if p.is_dir())

    def dubai_parts(folders: list[Path], zoom: float) -> list[Tile]:
        return _palm_free([q for p in folders for q in (p / "images").glob("*.jpg")], zoom)

    def banepa_columns(*columns: int) -> list[Path]:
        chips = (banepa / "train" / "oam").glob("*.tif")
        return [p for p in chips if int(p.name.split("-")[1]) in columns]

    banepa_rest = list((banepa / "predict" / "oam").glob("*.tif"))
    negatives = (
        []
        if not training
        else [
            Part("dubai", dubai_parts(scenes[:-2], 1.0), 2, (0.6, 3.0)),
            Part(
                "banepa",
                _palm_free(banepa_columns(386690, 386691, 386692, 386693) + banepa_rest, 1.0),
                4,
            ),
            # from 0.6 m pixels as they are to 0.14 m, as a GSD-aware tiler would show them
            Part("naip", _palm_free(list((naip / "train").glob("*.tif")), 1.0), 3, (0.8, 4.3)),
        ]
    )
    val = [
        Part("kalimantan/region1", _yolo_folder(kalimantan / "region1", crown=None, border=25)),
        Part(
            "12aj",
            _yolo_folder(
                lampung / "12aj", crown=60, enlarge=ENLARGE_12AJ, unstretch=True, border=25
            ),
        ),
    ]
    val_negatives = [
        Part("banepa 386694", _palm_free(banepa_columns(386694), 1.0)),
        Part("dubai, two other scenes", dubai_parts(scenes[-2:], 1.0)),
        Part("naip val", _palm_free(list((naip / "val").glob("*.tif")), 1.0)),
    ]
    forest = ["OSBS_029.png", "SOAP_061.png", "2019_YELL_2_541000_4977000_image_crop.png"]
    tests = [*forest, "5b90f92da0d7280005fab355_4310.tif", "5dded5bc0140b80006d2e565_23.tif"]
    test_negatives = [Part("neon", _palm_free([neon / name for name in tests], 0.1 / GSD_M))]
    return Splits(train, negatives, val, val_negatives, test_negatives)


def load_scene_drawer() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """``palm_scene`` of the client library, without installing the services' environment."""
    path = Path(__file__).parents[1] / "libs/client/src/frond/client/scenes.py"
    spec = importlib.util.spec_from_file_location("palm_scenes", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.palm_scene  # type: ignore[no-any-return]


def drawn_part(count: int, seed: int, weight: float) -> Part:
    """``count`` drawn scenes. Seeds from 1,000,000 on are kept for training."""
    draw = load_scene_drawer()
    tiles = []
    for k in range(count):
        rng = np.random.default_rng([seed, k])
        gsd = GSD_M * float(rng.uniform(0.8, 1.3))
        n = int(rng.integers(0, 40))
        pixels, boxes = draw(448, 448, n, 1_000_000 + k, gsd)
        tiles.append(Tile(f"scene-{k}", pixels, boxes.astype(np.float32)))
    return Part("drawn", tiles, weight)


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """``pixels`` after a trip through JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def colour_jitter(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light, contrast, gamma, colour cast, saturation, haze, blur, JPEG and noise."""
    table = np.arange(256, dtype=np.float32) / 255
    gains = rng.uniform(0.75, 1.3) * rng.uniform(0.88, 1.13, 3)
    gamma, lift = rng.uniform(0.7, 1.45), rng.uniform(-0.08, 0.12)
    contrast = rng.uniform(0.7, 1.35)
    lut = ((table[None] ** gamma) * gains[:, None] - 0.4) * contrast + 0.4 + lift
    lut = np.clip(lut * 255, 0, 255).astype(np.uint8)
    out = np.stack([lut[c][pixels[..., c]] for c in range(3)], axis=-1)
    if rng.uniform() < 0.5:
        grey = out.mean(axis=-1, keepdims=True)
        k = rng.uniform(0.0, 1.5) if rng.uniform() < 0.9 else 0.0
        out = np.clip(grey + k * (out - grey), 0, 255).astype(np.uint8)
    if rng.uniform() < 0.06:
        out = np.ascontiguousarray(out[..., rng.permutation(3)])
    kind = rng.uniform()
    if kind < 0.2:
        blur = ImageFilter.GaussianBlur(float(rng.uniform(0.4, 1.6)))
        out = np.asarray(Image.fromarray(out).filter(blur))
    elif kind < 0.3:
        out = np.asarray(Image.fromarray(out).filter(ImageFilter.UnsharpMask(2, 120, 2)))
    if rng.uniform() < 0.25:
        out = jpeg(out, int(rng.integers(35, 90)))
    if rng.uniform() < 0.25:
        noise = rng.normal(0, rng.uniform(2, 9), out.shape)
        out = np.clip(out + noise, 0, 255).astype(np.uint8)
    return out
