"""Training crops and the maps to learn from them, a function of the seed and the step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from frond.training.palm.augment import Pixels, colour_jitter
from frond.training.palm.data import CROWN_PX, Part, Tile
from frond.training.palm.detect import STRIDE
from frond.training.palm.lattices import ironwork

CROP: Final = 256
CELLS: Final = CROP // STRIDE

Maps = NDArray[np.float32]


class Sampler:
    """Crops for any step: the same seed and step give the same batch, in any process.

    Args:
        background: share of crops of imagery without a palm.
        drawn: share of crops of drawn scenes.
        mixed: share of crops with a strip of another: palms on ground that is not theirs.
        ironwork: share of the background's crops with bars drawn over them.
    """

    def __init__(
        self,
        palms: Sequence[Part],
        free: Sequence[Part],
        scenes: Sequence[Part],
        *,
        background: float,
        drawn: float,
        mixed: float,
        ironwork: float,
    ) -> None:
        self._parts = [*palms, *free, *scenes]
        self._free = range(len(palms), len(palms) + len(free))
        self._mixed = mixed
        self._ironwork = ironwork
        odds = [
            *_shares(palms, 1 - background - drawn),
            *_shares(free, background),
            *_shares(scenes, drawn),
        ]
        # what is not there leaves its share to the rest
        self._odds = np.array(odds) if len(free) and len(scenes) else np.array(odds) / sum(odds)

    def batch(self, seed: int, step: int, size: int) -> tuple[Pixels, Maps]:
        """uint8 [size, CROP, CROP, 3] and float32 [size, 8, CELLS, CELLS]."""
        rng = np.random.default_rng([seed, step])
        pairs = [self._blend(rng) for _ in range(size)]
        return np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs])

    def _blend(self, rng: np.random.Generator) -> tuple[Pixels, Maps]:
        pixels, target = self._crop(rng)
        if rng.uniform() < self._mixed:
            other, other_target = self._crop(rng)
            cut = int(rng.integers(CELLS // 4, 3 * CELLS // 4))
            edge = cut * STRIDE
            pixels = np.concatenate([pixels[:, :edge], other[:, edge:]], axis=1)
            target = np.concatenate([target[..., :cut], other_target[..., cut:]], axis=-1)
        return pixels, target

    def _crop(self, rng: np.random.Generator) -> tuple[Pixels, Maps]:
        chosen = int(rng.choice(len(self._parts), p=self._odds))
        part = self._parts[chosen]
        tile = part.tiles[int(rng.integers(len(part.tiles)))]
        zoom = math.exp(rng.uniform(math.log(part.zoom[0]), math.log(part.zoom[1])))
        aspect = math.exp(rng.uniform(-0.09, 0.09))
        zx, zy = zoom * aspect, zoom / aspect
        height, width = tile.pixels.shape[:2]
        w, h = CROP / zx, CROP / zy
        x0, y0 = _start(width, w, rng), _start(height, h, rng)
        # the whole pixels around the wanted rectangle; what lies beyond the tile is padding
        left, top = math.floor(x0), math.floor(y0)
        right, bottom = math.ceil(x0 + w), math.ceil(y0 + h)
        piece = tile.pixels[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
        if piece.shape[:2] != (bottom - top, right - left):
            fill = 0 if rng.uniform() < 0.6 else int(rng.integers(256))
            canvas = np.full((bottom - top, right - left, 3), fill, np.uint8)
            dy, dx = max(0, -top), max(0, -left)
            canvas[dy : dy + piece.shape[0], dx : dx + piece.shape[1]] = piece
            piece = canvas
        area = (x0 - left, y0 - top, x0 - left + w, y0 - top + h)
        image = Image.fromarray(piece).resize((CROP, CROP), Image.Resampling.BILINEAR, box=area)
        target = _target(tile, x0, y0, zx, zy)
        pixels = np.asarray(image)
        if chosen in self._free and rng.uniform() < self._ironwork:
            pixels = ironwork(pixels, rng)
        pixels = colour_jitter(pixels, rng)
        return _turn(pixels, target, int(rng.integers(8)))


def _shares(parts: Sequence[Part], whole: float) -> list[float]:
    every = sum(p.weight for p in parts)
    return [p.weight / every * whole for p in parts]


def _start(length: int, wanted: float, rng: np.random.Generator) -> float:
    room = length - wanted
    slack = 0.06 * wanted
    return float(rng.uniform(min(room, 0) - slack, max(room, 0) + slack))


def _target(tile: Tile, x0: float, y0: float, zx: float, zy: float) -> Maps:
    """Maps as ``frond.training.palm.loss`` wants them, for the crop that starts at x0, y0."""
    target = np.zeros((8, CELLS, CELLS), np.float32)
    scale, shift = np.array([zx, zy, zx, zy]), np.array([x0, y0, x0, y0])
    height, width = tile.pixels.shape[:2]
    middle = np.arange(CELLS) * STRIDE + STRIDE / 2
    px, py = middle / zx + x0, middle / zy + y0
    within = ((py >= 0) & (py < height))[:, None] & ((px >= 0) & (px < width))[None]
    b = tile.border
    core = ((py >= b) & (py < height - b))[:, None] & ((px >= b) & (px < width - b))[None]
    # beyond the tile there is padding, which holds no palm; in its border band, who knows
    target[1] = ~within | core
    far = np.array([width, height]) - 2
    kept = (tile.boxes[:, :2] > 2) & (tile.boxes[:, 2:] < far)
    whole = [bool(row.all()) for row in kept]
    boxes = (tile.boxes - shift) * scale
    grid = np.arange(CELLS)
    for k in range(len(boxes)):
        cx, cy = (boxes[k, :2] + boxes[k, 2:]) / 2 / STRIDE
        w, h = boxes[k, 2:] - boxes[k, :2]
        ix, iy = math.floor(cx), math.floor(cy)
        if not (0 <= ix < CELLS and 0 <= iy < CELLS) or min(w, h) < 2:
            continue
        sigma = max(0.9, 0.09 * math.sqrt(w * h) / STRIDE)
        reach = math.ceil(3 * sigma)
        xs = slice(max(0, ix - reach), ix + reach + 1)
        ys = slice(max(0, iy - reach), iy + reach + 1)
        gx = np.exp(-((grid[xs] - ix) ** 2) / (2 * sigma**2))
        gy = np.exp(-((grid[ys] - iy) ** 2) / (2 * sigma**2))
        bell = (gy[:, None] * gx[None]).astype(np.float32)
        nearer = bell > target[0, ys, xs]
        values = (
            bell,
            None,
            None,
            math.log(w / CROWN_PX),
            math.log(h / CROWN_PX),
            np.broadcast_to(cx - grid[xs][None], bell.shape),
            np.broadcast_to(cy - grid[ys][:, None], bell.shape),
            float(tile.sizes and whole[k]),
        )
        for channel, value in enumerate(values):
            if value is not None:
                patch = target[channel, ys, xs]
                patch[nearer] = value[nearer] if isinstance(value, np.ndarray) else value
        target[2, iy, ix] = 1
    return target


def _turn(pixels: Pixels, target: Maps, kind: int) -> tuple[Pixels, Maps]:
    """One of the eight symmetries of the square; sizes and offsets follow."""
    target = target.copy()
    if kind & 4:
        pixels, target = pixels.transpose(1, 0, 2), target.transpose(0, 2, 1)
        target = target[[0, 1, 2, 4, 3, 6, 5, 7]]
    # the offset counts from a cell's low corner: seen from the other side it is 1 − offset
    if kind & 1:
        pixels, target = pixels[:, ::-1], target[:, :, ::-1].copy()
        target[5] = 1 - target[5]
    if kind & 2:
        pixels, target = pixels[::-1], target[:, ::-1].copy()
        target[6] = 1 - target[6]
    return np.ascontiguousarray(pixels), np.ascontiguousarray(target)
