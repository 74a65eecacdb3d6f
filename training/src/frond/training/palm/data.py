"""Prepared data of the palm detector: tiles at the model's scale, and drawn scenes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from frond.client import scenes
from frond.client.scenes import palm_scene
from frond.training.config import Config, bad
from frond.training.palm.config import DESCRIPTION, Settings
from frond.training.palm.sources import CROWN_PX, GSD_M, ZOOM, Role, Source, Tile, ground, sources
from frond.training.prepared import Store, prepared
from frond.training.progress import say

__all__ = [
    "CROWN_PX", "GSD_M", "Part", "Parts", "Tile", "declared", "load", "prepare", "settings",
    "thinned",
]  # fmt: skip

# raise it when the same sources come to be read differently
_READ: Final = 4
# the same of labels of one's own
_READ_OWN: Final = 2
_MOST_PIXELS: Final = 64_000_000
SPACING: Final = 1.05
"""Palms' spacing in whole crowns, as the labels of the estate ``gub`` have it."""
_FEWEST: Final = 6


@dataclass(frozen=True)
class Part:
    """Tiles of one origin; ``weight`` is the part's share among those of its role."""

    name: str
    tiles: list[Tile]
    weight: float = 0.0
    zoom: tuple[float, float] = ZOOM


def settings(config: Config) -> Settings:
    """The config as this kind's. Raises TypeError for another's."""
    if not isinstance(config, Settings):
        raise TypeError(f"{type(config).__name__} is no config of a palm detector")
    return config


def prepare(config: Config, folder: Path) -> str:
    """Tiles of all parts in ``folder``; see :func:`frond.training.prepared.prepared`."""
    mine = settings(config)
    Image.MAX_IMAGE_PIXELS = _MOST_PIXELS
    found = sources(mine.data)
    parts: list[dict[str, Any]] = []
    own = any(s.factor is not None for s in found)

    def arrays() -> Iterator[tuple[str, NDArray[Any]]]:
        for source in [*found, _drawn(mine)]:
            tiles = []
            for n, tile in enumerate(source.read()):
                key = f"{source.role}/{source.name}/{n}"
                yield f"{key}/pixels", tile.pixels
                yield f"{key}/boxes", tile.boxes
                tiles.append({"name": tile.name, "border": tile.border, "sizes": tile.sizes})
            parts.append(
                {"role": source.role, "name": source.name, "weight": source.weight,
                 "zoom": source.zoom, "tiles": tiles}
            )  # fmt: skip

    files = [f for s in found for f in s.files]
    missing = [f for f in files if not f.is_file()]
    if missing:
        raise bad(f"{len(missing)} files are missing, {missing[0]} for one.")
    recipe = {"kind": "palm", "read": _READ, "drawn": _how_drawn(), **mine.recipe()}
    digest = prepared(
        folder, mine.data, files, recipe | ({"own": _READ_OWN} if own else {}), arrays,
        lambda: {"parts": parts} | ({"own": ground(found)} if own else {}),
    )  # fmt: skip
    if own:
        _tell(mine, folder)
    return digest


def declared(config: Settings, prepared: Path) -> tuple[Settings, float | None]:
    """What a model that learnt from these data may say of itself, and its ground metres a pixel.

    Of labels of one's own: no licence and no origins of the shared data; the GSD that the images
    have, or that the config gives them, at the scale at which they were learnt from; None where
    nobody says it.
    """
    own = Store(prepared).about.get("own")
    if own is None:
        return config, GSD_M
    gsd = own["gsd_m"]
    if gsd is None and config.gsd_m is not None:
        gsd = float(f"{config.gsd_m / own['factor']:.4g}")
    said: dict[str, Any] = {}
    if config.tells_of_the_shared_data:
        said |= {"licence": None, "training_data": None}
    if config.description == Settings.model_fields["description"].default:
        said["description"] = DESCRIPTION.format(gsd="" if gsd is None else f" of about {gsd:g} m")
    return config.model_copy(update=said), gsd


def _tell(config: Settings, prepared: Path) -> None:
    _, gsd = declared(config, prepared)
    if gsd is None:
        say(
            f"{config.name}: neither images nor the config (gsd_m) tell ground metres a pixel: the "
            "model declares none, and jobs will show it rasters at their own resolution."
        )
    else:
        say(
            f"{config.name}: with crowns of {CROWN_PX:g} px a pixel is {gsd:g} m, which it declares."
        )
    if config.tells_of_the_shared_data:
        say(
            f"{config.name}: licence and training_data of the config are of the shared data, and are "
            "left out. Write your own into a copy of it."
        )


@dataclass(frozen=True)
class Parts:
    """What is learnt from (``train``, ``background``, ``drawn``) and what is judged by."""

    train: list[Part]
    background: list[Part]
    drawn: list[Part]
    val: list[Part]
    free: list[Part]

    @classmethod
    def of(cls, folder: Path) -> Parts:
        drawn = [p for p in load(folder, "drawn") if p.tiles]
        return cls(
            load(folder, "train"), load(folder, "background"), drawn,
            load(folder, "val"), load(folder, "val-background"),
        )  # fmt: skip


def load(folder: Path, role: Role) -> list[Part]:
    """The parts of a role, their pixels mapped from the disk."""
    store = Store(folder)
    out = []
    for part in store.about["parts"]:
        if part["role"] != role:
            continue
        tiles = []
        for n, told in enumerate(part["tiles"]):
            key = f"{role}/{part['name']}/{n}"
            pixels, boxes = store.array(f"{key}/pixels"), store.array(f"{key}/boxes")
            tiles.append(Tile(told["name"], pixels, boxes, told["border"], told["sizes"]))
        out.append(Part(part["name"], tiles, part["weight"], tuple(part["zoom"])))
    return out


def judged_scenes(count: int) -> Part:
    """Drawn scenes with seeds that training never uses."""
    tiles = []
    for k in range(count):
        pixels, boxes = palm_scene(512, 640, 4 + 3 * (k % 14), 10_000 + k, GSD_M)
        tiles.append(Tile(f"scene-{k}", pixels, boxes.astype(np.float32)))
    return Part("drawn", tiles)


def rescaled(part: Part, k: float) -> Iterator[Tile]:
    """The same tiles seen at ``k`` times the scale, as with a GSD declared wrongly. One after the
    other: all of a part at twice its scale are gigabytes."""
    for t in part.tiles:
        size = (round(t.pixels.shape[1] * k), round(t.pixels.shape[0] * k))
        pixels = np.asarray(Image.fromarray(t.pixels).resize(size, Image.Resampling.LANCZOS))
        yield Tile(t.name, pixels, t.boxes * np.float32(k))


def shrunk(part: Part, k: float) -> Part:
    """The same tiles with their boxes scaled about their centres."""

    return Part(part.name, [replace(t, boxes=_widened(t.boxes, k)) for t in part.tiles])


def _widened(boxes: NDArray[np.float32], k: float) -> NDArray[np.float32]:
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * k
    return np.asarray(np.concatenate([middle - half, middle + half], axis=1), np.float32)


def spaced(part: Part) -> Iterator[Tile]:
    """The same tiles, brought to one scale and their boxes to one extent by how far the palms stand
    apart: for labels that box a crown's core in one image and its whole reach in another.

    Palms of a closed stand touch: their spacing is the median over palms of the mean way to the
    three nearest. Tiles of fewer than six palms have none, and are left out.
    """
    for t in part.tiles:
        apart = _spacing(t.boxes)
        if apart is None:
            continue
        k = CROWN_PX * SPACING / apart
        size = (round(t.pixels.shape[1] * k), round(t.pixels.shape[0] * k))
        pixels = np.asarray(Image.fromarray(t.pixels).resize(size, Image.Resampling.LANCZOS))
        boxes = t.boxes * np.float32(k)
        side = float(np.median(np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))))
        yield Tile(t.name, pixels, _widened(boxes, CROWN_PX / side))


def _spacing(boxes: NDArray[np.float32]) -> float | None:
    if len(boxes) < _FEWEST:
        return None
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    ways = np.linalg.norm(centres[:, None] - centres[None], axis=2)
    # the nearest is the palm itself
    return float(np.median(np.sort(ways, axis=1)[:, 1:4].mean(axis=1)))


def thinned(parts: Sequence[Part], megapixels: float) -> list[Part]:
    """Every nth tile of each part, so that all together have about so many pixels."""
    area = sum(t.pixels.shape[0] * t.pixels.shape[1] for p in parts for t in p.tiles) / 1e6
    every = max(1, round(area / megapixels))
    return [Part(p.name, p.tiles[::every], p.weight, p.zoom) for p in parts]


def _how_drawn() -> str:
    """A digest of the code that draws scenes: other code, other scenes of the same seeds."""
    return hashlib.sha256(Path(scenes.__file__).read_bytes()).hexdigest()


def _drawn(config: Settings) -> Source:
    def read() -> Iterator[Tile]:
        for k in range(config.scenes):
            rng = np.random.default_rng([config.seed, k])
            gsd = GSD_M * float(rng.uniform(0.8, 1.3))
            n = int(rng.integers(0, 40))
            # seeds from 1,000,000 on are kept for training
            pixels, boxes = palm_scene(448, 448, n, 1_000_000 + k, gsd)
            yield Tile(f"scene-{k}", pixels, boxes.astype(np.float32))

    return Source("drawn", "drawn", (), read, 1.0)
