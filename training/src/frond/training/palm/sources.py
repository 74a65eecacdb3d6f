"""Imagery and labels brought to one scale and one box convention.

A crown is about ``CROWN_PX`` pixels, which at 8.5 m is ``GSD_M`` metres a pixel. Parts are split by
region or estate, never by tile: tiles of one flight overlap.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from frond.contracts.errors import RasterRejected
from frond.evaluation import Dataset, LabelledImage, load
from frond.raster import inspect
from frond.training.config import bad
from frond.training.palm.images import Boxes, opened, rescaled, rgb
from frond.training.progress import say

GSD_M: Final = 0.14
CROWN_PX: Final = 60.0
ENLARGE_12AJ: Final = 1.25
"""12aj's boxes stop at about four fifths of the fronds' reach; others box whole crowns."""

Role = Literal["train", "background", "val", "val-background", "test-background", "drawn"]

ZOOM: Final = (0.45, 2.5)


@dataclass(frozen=True)
class Tile:
    """An image at the model's scale.

    ``boxes`` is float32 [n, 4], x0 y0 x1 y1 in pixels. ``border`` is the width of the band
    along the edge in which labels are not to be believed. ``sizes`` tells whether the boxes'
    extents may be learnt and scored, or their centres alone.
    """

    name: str
    pixels: NDArray[np.uint8]
    boxes: Boxes
    border: int = 0
    sizes: bool = True


@dataclass(frozen=True)
class Source:
    """Files of one origin, and how they are read.

    Attributes:
        weight: its share among the parts of its role.
        files: all that is read, labels of one's own first.
        factor: of labels of one's own: what every image is scaled by; None: of shared data.
    """

    role: Role
    name: str
    files: tuple[Path, ...]
    read: Callable[[], Iterable[Tile]]
    weight: float = 0.0
    zoom: tuple[float, float] = ZOOM
    factor: float | None = None


def sources(data: Path) -> list[Source]:
    """What there is to train on and to judge by.

    ``data`` is the shared data's folder; or labels of one's own: COCO files in ``data/train`` and
    ``data/val`` beside their images, whose images without labels are background.

    Raises:
        UserError: it is neither, or an image is there twice.
    """
    if (data / "palms").is_dir():
        return _shared(data)
    if (data / "train").is_dir() and (data / "val").is_dir():
        train, val = _own(data / "train", "train"), _own(data / "val", "val")
        _check_held_out(train, val)
        return [*train, *val]
    raise bad(
        f"{data} holds neither palms/ (the shared data) nor train/ and val/, each with images and "
        "a COCO file: see training/README.md."
    )


def _shared(data: Path) -> list[Source]:
    palms = data / "palms"
    lampung, kalimantan = palms / "lampung", palms / "kalimantan"
    dubai, banepa = data / "landcover" / "dubai", data / "buildings" / "banepa"
    naip, neon = data / "trees_naip", data / "trees_neon"
    scenes = sorted(p for p in dubai.iterdir() if p.is_dir())
    forest = ["OSBS_029.png", "SOAP_061.png", "2019_YELL_2_541000_4977000_image_crop.png"]
    tests = [*forest, "5b90f92da0d7280005fab355_4310.tif", "5dded5bc0140b80006d2e565_23.tif"]

    def of_dubai(folders: list[Path]) -> list[Path]:
        return [q for p in folders for q in (p / "images").glob("*.jpg")]

    def of_banepa(*columns: int) -> list[Path]:
        chips = (banepa / "train" / "oam").glob("*.tif")
        return [p for p in chips if int(p.name.split("-")[1]) in columns]

    rest = list((banepa / "predict" / "oam").glob("*.tif"))
    kluang = palms / "kluang_autolabel" / "valid"
    return [
        _yolo("train", kalimantan / "region2", 4, border=30, of=kalimantan),
        _yolo("train", lampung / "gub", 4, crown=58, unstretch=True),
        # these two box the crown's core: the factor brings it to the spacing of the palms
        _yolo("train", lampung / "blok13m", 1.5, crown=62, enlarge=1.85, border=12, sizes=False),
        _yolo(
            "train", lampung / "asli", 2, crown=62, enlarge=1.55, unstretch=True, border=12,
            sizes=False,
        ),
        _yolo("train", lampung / "misc", 0.3, crown=60, unstretch=True),
        _yolo("train", lampung / "tonga_coconut", 0.8, crown=66, border=16, sizes=False),
        _coco("train", "kluang", _labels(kluang / "_annotations.coco.json"), 1),
        _free("background", "dubai", of_dubai(scenes[:-2]), 2, zoom=(0.6, 3.0)),
        _free(
            "background", "banepa", of_banepa(386690, 386691, 386692, 386693) + rest, 4
        ),
        # from 0.6 m pixels as they are to 0.14 m, as a GSD-aware tiler would show them
        _free("background", "naip", list((naip / "train").glob("*.tif")), 3, zoom=(0.8, 4.3)),
        _yolo("val", kalimantan / "region1", border=25, of=kalimantan),
        _yolo("val", lampung / "12aj", crown=60, enlarge=ENLARGE_12AJ, unstretch=True, border=25),
        _free("val-background", "banepa 386694", of_banepa(386694)),
        _free("val-background", "dubai, two other scenes", of_dubai(scenes[-2:])),
        _free("val-background", "naip val", list((naip / "val").glob("*.tif"))),
        _free("test-background", "neon", [neon / name for name in tests], scale=0.1 / GSD_M),
    ]  # fmt: skip


def _own(folder: Path, role: Literal["train", "val"]) -> list[Source]:
    found = sorted(p for p in folder.rglob("*.json") if _is_coco(p))
    if not found:
        raise bad(f"{folder} holds no labels in COCO's format.")
    free: Role = "background" if role == "train" else "val-background"
    out = []
    named_in: dict[Path, Path] = {}
    every = [_labels(file) for file in found]
    usual = _factor(*every)
    if usual is None:
        raise bad(f"{folder} holds no labelled palm: there is nothing to tell its scale by.")
    for file, labels in zip(found, every, strict=True):
        name = role if len(found) == 1 else file.relative_to(folder).with_suffix("").as_posix()
        for image in sorted({i.path.resolve() for i in labels.images}):
            # with labels in one and without in the other, it would be background as well
            if (other := named_in.setdefault(image, file)) != file:
                raise bad(
                    f"{image} is in {other} and in {file}: every COCO file in {folder} is learnt "
                    "from. Leave one of them there."
                )
        # one for all of a flight: a job sees an image at one scale, too, with palms or without
        k = _factor(labels) or usual
        both = (
            _coco(role, name, labels, 1.0, factor=k),
            _coco(free, f"{name} without labels", labels, 1.0, labelled=False, factor=k),
        )
        out += [s for s in both if len(s.files) > 1]
    return out


def _factor(*labels: Dataset) -> float | None:
    """What brings the median crown of all these labels to 60 px; None where there is none."""
    sides = [_sides(i.labels.boxes[~i.labels.crowd]) for d in labels for i in d.images]
    every = np.concatenate([*sides, np.zeros(0)])
    return CROWN_PX / float(np.median(every)) if len(every) else None


def _sides(boxes: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)))


def ground(found: Sequence[Source]) -> dict[str, float | None]:
    """At which scale labels of one's own are learnt from.

    ``factor``: what images are scaled by; ``gsd_m``: the ground metres a pixel that they have then,
    None where no image says where it lies. Both are medians over the labelled images of ``train``.
    """
    learnt = [(p, s.factor) for s in found if s.role == "train" for p in s.files[1:] if s.factor]
    gsds = [gsd / k for path, k in learnt if (gsd := _gsd(path)) is not None]
    # digits beyond are the labellers'
    return {
        "factor": float(f"{np.median([k for _, k in learnt]):.4g}"),
        "gsd_m": float(f"{np.median(gsds):.4g}") if gsds else None,
    }


def _gsd(path: Path) -> float | None:
    """Ground metres a pixel as a job would read them; None where the image says none."""
    with opened(path) as raster:
        try:
            return inspect(raster).gsd
        except RasterRejected:
            return None


def _check_held_out(train: Sequence[Source], val: Sequence[Source]) -> None:
    """Raises UserError where an image to judge by is one to learn from, whatever its name."""

    def by_size(sources: Sequence[Source]) -> dict[int, set[Path]]:
        found: dict[int, set[Path]] = {}
        for path in {p for s in sources for p in s.files[1:] if p.is_file()}:
            found.setdefault(path.stat().st_size, set()).add(path)
        return found

    learnt, judged = by_size(train), by_size(val)
    for size in sorted(learnt.keys() & judged.keys()):
        known = {_sha256(p): p for p in sorted(learnt[size])}
        for path in sorted(judged[size]):
            if (same := known.get(_sha256(path))) is not None:
                raise bad(
                    f"{same} and {path} are the same image: figures would be of what was learnt by "
                    "heart. Leave one of them out."
                )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_coco(file: Path) -> bool:
    try:
        told = json.loads(file.read_bytes())
    except ValueError:
        return False
    return isinstance(told, dict) and {"images", "annotations"} <= told.keys()


def _labels(file: Path) -> Dataset:
    """As ``frond evaluate`` reads them; every category is a palm."""
    told = json.loads(file.read_bytes()).get("categories")
    names = [c.get("name") for c in told if isinstance(c, dict)] if isinstance(told, list) else []
    if not names:
        raise bad(f"{file} lists no categories. Export the labels in COCO's format (instances).")
    found = load(file, ("palm",), renamed={str(n): "palm" for n in names})
    for note in found.notes:
        say(f"{file}: {note}")
    return found


def _yolo(
    role: Role,
    folder: Path,
    weight: float = 0.0,
    *,
    crown: float | None = None,
    enlarge: float = 1.0,
    unstretch: bool = False,
    border: int = 10,
    sizes: bool = True,
    of: Path | None = None,
) -> Source:
    """A folder of ``images`` and ``labels`` in YOLO's format.

    Args:
        crown: rescale every image so that its median box is so large; None: leave it.
        enlarge: widen boxes about their centres (sources that box a crown's core only).
        unstretch: undo the 4:3 squeeze of images whose boxes are wider than high or the
            other way about: crowns are round on average.
        of: the folder that the part is named after too.
    """
    images = sorted((folder / "images").iterdir())
    labels = [folder / "labels" / f"{p.stem}.txt" for p in images]

    def read() -> Iterable[Tile]:
        for path, notes in zip(images, labels, strict=True):
            image = rgb(path)
            boxes = _yolo_boxes(notes, *image.size)
            sx, sy = _factors(boxes, image.size, crown, enlarge, unstretch)
            middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
            grown = np.concatenate([middle - enlarge * half, middle + enlarge * half], axis=1)
            pixels, grown = rescaled(image, grown.astype(np.float32), sx, sy, path)
            yield Tile(path.name, pixels, grown, border, sizes)

    name = folder.name if of is None else f"{of.name}/{folder.name}"
    return Source(role, name, (*images, *labels), read, weight)


def _factors(
    boxes: Boxes, size: tuple[int, int], crown: float | None, enlarge: float, unstretch: bool
) -> tuple[float, float]:
    sx = sy = 1.0
    if not len(boxes):
        return sx, sy
    whole = (boxes[:, :2] > 3).all(1) & (boxes[:, 2:] < np.array(size) - 3).all(1)
    measure = boxes[whole] if whole.sum() >= 3 else boxes
    w, h = np.median(measure[:, 2:] - measure[:, :2], axis=0)
    if unstretch and abs(math.log(w / h)) > 0.1:
        ratio = min(max(float(w / h), 3 / 4), 4 / 3)
        sx, sy = ratio**-0.5, ratio**0.5
    if crown is not None:
        k = crown / (enlarge * math.sqrt(float(w * h)))
        sx, sy = sx * k, sy * k
    return sx, sy


def _coco(
    role: Role,
    name: str,
    labels: Dataset,
    weight: float = 0.0,
    *,
    labelled: bool = True,
    factor: float | None = None,
) -> Source:
    """A COCO file: its images with labels, or those without.

    The ground of a crowd is painted black: what grows there, its label does not say.

    Args:
        factor: what every image is scaled by; None: each so that its own crowns have 60 px.
    """
    chosen = [i for i in labels.images if (len(i.labels) > 0) == labelled]

    def read() -> Iterable[Tile]:
        for entry in chosen:
            every = entry.labels.boxes.astype(np.float32)
            boxes, crowds = every[~entry.labels.crowd], every[entry.labels.crowd]
            k = factor or 1.0
            if factor is None and len(boxes):
                k = CROWN_PX / float(np.median(_sides(boxes)))
            image = rgb(entry.path)
            _check_size(image, entry)
            for box in crowds:
                x0, y0, x1, y1 = (round(float(v)) for v in box)
                image.paste((0, 0, 0), (x0, y0, max(x0, x1), max(y0, y1)))
                centre = (boxes[:, :2] + boxes[:, 2:]) / 2
                boxes = boxes[~((centre >= box[:2]) & (centre < box[2:])).all(1)]
            pixels, boxes = rescaled(image, boxes, k, k, entry.path)
            yield Tile(entry.name, pixels, boxes, 16 if labelled else 0)

    files = (labels.file, *(i.path for i in chosen))
    return Source(role, name, files, read, weight, factor=factor)


def _check_size(image: Image.Image, entry: LabelledImage) -> None:
    """As ``frond evaluate`` does. Raises UserError where it is not the image that was labelled."""
    width, height = image.size
    told = entry.width or width, entry.height or height
    if told != image.size:
        raise bad(
            f"{entry.path} has {width}×{height} pixels, and its labels are for {told[0]}×{told[1]}. "
            "Export the labels for the images as they are here."
        )


def _free(
    role: Role,
    name: str,
    paths: Sequence[Path],
    weight: float = 0.0,
    *,
    zoom: tuple[float, float] = ZOOM,
    scale: float = 1.0,
) -> Source:
    """Images without a palm."""

    def read() -> Iterable[Tile]:
        for path in sorted(paths):
            image = rgb(path)
            pixels, boxes = rescaled(image, np.zeros((0, 4), np.float32), scale, scale, path)
            yield Tile(path.name, pixels, boxes)

    return Source(role, name, tuple(sorted(paths)), read, weight, zoom)


def _yolo_boxes(path: Path, width: int, height: int) -> Boxes:
    rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
    values = np.array([[float(v) for v in row[1:5]] for row in rows], np.float32).reshape(-1, 4)
    centre, half = values[:, :2], values[:, 2:] / 2
    scale = np.array([width, height, width, height], np.float32)
    return np.concatenate([centre - half, centre + half], axis=1) * scale
