"""Training crops: turned by any angle, scaled, recoloured; the same for the same seed and step."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from frond.training.landcover.config import BACKGROUND, IGNORED, Settings
from frond.training.landcover.data import Bytes, Scene
from frond.training.palm.augment import colour_jitter

_CELL: Final = 16
_SQUARE: Final = 0.5
"""Share of crops that are turned by right angles alone: streets and roofs stay as sharp as they are."""
_MIXED: Final = 0.15
"""Share of crops with a strip of another: a lake beside a town that has none."""
_ODDS: Final = (0.3, 0.35, 0.1, 0.25)
"""Which class a crop is centred on. Open water is all alike: a little of it teaches all there is."""


class Sampler:
    """Crops for any step, in any process."""

    def __init__(self, scenes: list[Scene], config: Settings) -> None:
        self._scenes, self._config = scenes, config
        # a large scene holds more to learn, but not in proportion
        areas = np.array([s.labels.size for s in scenes], np.float64) ** 0.5
        self._odds = areas / areas.sum()
        self._places = [_places(s.labels) for s in scenes]
        there = [np.array([_ODDS[k] for k in p]) for p in self._places]
        self._wanted = [o / o.sum() for o in there]

    def batch(self, seed: int, step: int) -> tuple[Bytes, Bytes]:
        """uint8 [n, crop, crop, 3] and the labels, uint8 [n, crop, crop]."""
        rng = np.random.default_rng([seed, step])
        pairs = [self._mixed(rng) for _ in range(self._config.batch)]
        return np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs])

    def _mixed(self, rng: np.random.Generator) -> tuple[Bytes, Bytes]:
        pixels, labels = self._crop(rng)
        if rng.uniform() < _MIXED:
            others, other_labels = self._crop(rng)
            side = self._config.crop
            cut = int(rng.integers(side // 4, 3 * side // 4))
            pixels = np.concatenate([pixels[:, :cut], others[:, cut:]], axis=1)
            labels = np.concatenate([labels[:, :cut], other_labels[:, cut:]], axis=1)
        return pixels, labels

    def _crop(self, rng: np.random.Generator) -> tuple[Bytes, Bytes]:
        n = int(rng.choice(len(self._scenes), p=self._odds))
        scene, side = self._scenes[n], self._config.crop
        low, high = self._config.zoom
        zoom = math.exp(rng.uniform(math.log(low), math.log(high)))
        x, y = self._centre(n, rng)
        if rng.uniform() < _SQUARE:
            angle = math.pi / 2 * int(rng.integers(4))
        else:
            angle = rng.uniform(0, 2 * math.pi)
        mirrored = bool(rng.integers(2))
        pixels, labels = cut(scene, x, y, side, zoom, angle, mirrored)
        return colour_jitter(pixels, rng), labels

    def _centre(self, n: int, rng: np.random.Generator) -> tuple[float, float]:
        places, (height, width) = self._places[n], self._scenes[n].labels.shape
        if places and rng.uniform() < self._config.rare:
            found = places[int(rng.choice(list(places), p=self._wanted[n]))]
            row, column = found[int(rng.integers(len(found)))]
            # not always in the middle
            aside = self._config.crop / 4
            x = column * _CELL + rng.uniform(-aside, aside)
            y = row * _CELL + rng.uniform(-aside, aside)
        else:
            x, y = rng.uniform(0, width), rng.uniform(0, height)
        # from well inside, so that few pixels lie beyond the scene
        edge = self._config.crop / 4
        x, y = np.clip((x, y), edge, (max(edge, width - edge), max(edge, height - edge)))
        return float(x), float(y)


def _places(labels: Bytes) -> dict[int, NDArray[np.int64]]:
    """For each class that is there, where: rows and columns of a coarse grid."""
    coarse = labels[::_CELL, ::_CELL]
    found = {k: np.argwhere(coarse == k) for k in range(BACKGROUND)}
    return {k: f for k, f in found.items() if len(f)}


def cut(
    scene: Scene, x: float, y: float, side: int, zoom: float, angle: float, mirrored: bool
) -> tuple[Bytes, Bytes]:
    """A crop of ``side`` pixels about x, y, ``zoom`` of its pixels to one of the scene.

    What lies beyond the scene is black, and ignored.
    """
    c, s = math.cos(angle) / zoom, math.sin(angle) / zoom
    reach = side / 2 * (abs(c) + abs(s)) + 2
    left, top = math.floor(x - reach), math.floor(y - reach)
    size = math.ceil(2 * reach) + 1
    pixels = _piece(scene.pixels, left, top, size, 0)
    labels = _piece(scene.labels, left, top, size, IGNORED)
    flip = -1.0 if mirrored else 1.0
    # from the middle of the crop to the place in the piece
    a, b, d, e = c * flip, -s, s * flip, c
    half = side / 2
    matrix = (
        a, b, x - left - a * half - b * half,
        d, e, y - top - d * half - e * half,
    )  # fmt: skip
    image = Image.fromarray(pixels)
    shrunk: tuple[float, ...] = matrix
    if zoom < 0.75:
        # bilinear interpolation of every second pixel would make noise of fine lines
        image = image.reduce(2)
        shrunk = tuple(v / 2 for v in matrix)
    out = image.transform(
        (side, side), Image.Transform.AFFINE, shrunk, Image.Resampling.BILINEAR, fillcolor=0
    )
    told = Image.fromarray(labels).transform(
        (side, side), Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=IGNORED
    )
    return np.array(out), np.array(told)


def _piece(array: Bytes, left: int, top: int, size: int, fill: int) -> Bytes:
    within = array[max(0, top) : max(0, top + size), max(0, left) : max(0, left + size)]
    if within.shape[:2] == (size, size):
        return np.ascontiguousarray(within)
    out = np.full((size, size, *array.shape[2:]), fill, np.uint8)
    dy, dx = max(0, -top), max(0, -left)
    out[dy : dy + within.shape[0], dx : dx + within.shape[1]] = within
    return out
