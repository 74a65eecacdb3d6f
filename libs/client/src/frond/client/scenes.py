"""Drawn aerial scenes with planted palms: input whose truth is known to the pixel.

Nothing here looks at a model. The scenes show the product at work (``make demo``) and are
a small, declared share of the palm detector's training set; figures measured on them say
nothing about real estates, which the model card reports apart.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

CROWN_M = 8.5
"""Mean crown diameter on the ground, metres."""
CROWN_SPREAD = (0.85, 1.15)
_SPRITES = 24
_CANVAS = 256
# below 1 so that neighbouring crowns may touch tips, as they do on an estate
_PACKING = 0.95

Rgb = tuple[float, float, float]


def palm_scene(
    height: int, width: int, n_palms: int, seed: int, gsd_m: float = 0.14
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Draw a scene seen from above.

    Returns the image, uint8 ``[height, width, 3]`` RGB, and the crowns' tight boxes,
    float64 ``[n, 4]`` as x0, y0, x1, y1 in pixels (corner convention: the scene spans
    0…width), sorted by y0 then x0. All crowns lie wholly inside; they overlap by less than a
    tenth of their diameter. ``n`` is ``n_palms``, or as many as there is room for.
    The same arguments give the same arrays. Raises ValueError for sizes or a GSD that
    are not positive, or a negative ``n_palms``.
    """
    if height < 1 or width < 1 or not gsd_m > 0 or n_palms < 0:
        raise ValueError("height, width and gsd_m must be positive and n_palms not negative")
    rng = np.random.default_rng([seed, 0x9A17])
    scene = _ground(height, width, rng, gsd_m)
    sun = rng.uniform(0, 2 * math.pi)
    _scatter_bushes(scene, rng, gsd_m, sun, n=max(1, n_palms // 4))

    crown = CROWN_M / gsd_m
    centres = _positions(height, width, n_palms, crown, rng)
    bank = _sprite_bank(max(4, round(crown)))
    leaf = rng.uniform((0.75, 0.85, 0.6), (1.15, 1.2, 1.1))
    crowns: list[tuple[Image.Image, int, int]] = []
    boxes: list[tuple[float, float, float, float]] = []
    for x, y in centres:
        sprite = bank[int(rng.integers(len(bank)))]
        tint = leaf * rng.uniform(0.82, 1.15) * rng.uniform(0.95, 1.05, 3)
        turned = _turned(sprite, rng.uniform(*CROWN_SPREAD) * crown, rng.uniform(0, 2 * math.pi))
        turned = _tinted(turned, (float(tint[0]), float(tint[1]), float(tint[2])))
        left, top = round(x - turned.width / 2), round(y - turned.height / 2)
        inside = turned.getchannel("A").point(lambda a: 255 if a > 60 else 0).getbbox()
        if inside is None:
            continue
        crowns.append((turned, left, top))
        boxes.append((left + inside[0], top + inside[1], left + inside[2], top + inside[3]))
    # a palm about 6 m tall under a sun at 60 degrees
    reach = 0.35 * crown
    for sprite, left, top in crowns:
        shade = sprite.getchannel("A").filter(ImageFilter.BoxBlur(max(1, crown / 40)))
        dx, dy = round(reach * math.cos(sun)), round(reach * math.sin(sun))
        scene.paste((14, 18, 16), (left + dx, top + dy), shade.point(lambda a: a * 5 // 9))
    for sprite, left, top in crowns:
        scene.paste(sprite, (left, top), sprite)

    pixels = np.asarray(scene, dtype=np.int16)
    # sensor noise, tiled from one block: a draw for each pixel would cost most of the time
    block = rng.normal(0, 4, (128, 128, 1)).astype(np.int16)
    noise = np.tile(block, (-(-height // 128), -(-width // 128), 1))[:height, :width]
    found = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    order = np.lexsort((found[:, 0], found[:, 1]))
    return np.clip(pixels + noise, 0, 255).astype(np.uint8), found[order]


def _positions(
    height: int, width: int, n: int, crown: float, rng: np.random.Generator
) -> list[tuple[float, float]]:
    """Centres on a jittered triangular grid: rows, as palms are planted, with gaps."""
    biggest = crown * CROWN_SPREAD[1]
    edge = biggest / 2 + 2
    w, h = width - 2 * edge, height - 2 * edge
    if n == 0 or w < 0 or h < 0:
        return []
    least = biggest * _PACKING
    spacing = max(least, math.sqrt((w + least) * (h + least) / (1.2 * n)))
    while True:
        cells = _grid(w, h, spacing)
        if len(cells) >= n or spacing <= least:
            break
        spacing = max(least, spacing * 0.96)
    jitter = (spacing - least) / 2
    chosen = rng.permutation(len(cells))[:n]
    places = []
    for index in sorted(chosen.tolist()):
        x, y = cells[index]
        angle, far = rng.uniform(0, 2 * math.pi), jitter * math.sqrt(rng.uniform())
        x = min(max(x + far * math.cos(angle), 0.0), w) + edge
        y = min(max(y + far * math.sin(angle), 0.0), h) + edge
        places.append((x, y))
    return places


def _grid(w: float, h: float, spacing: float) -> list[tuple[float, float]]:
    step = spacing * math.sqrt(3) / 2
    rows = int(h / step) + 1
    cells = []
    for row in range(rows):
        shift = spacing / 2 if row % 2 else 0.0
        count = int((w - shift) / spacing) + 1 if w >= shift else 0
        cells += [(shift + column * spacing, row * step) for column in range(count)]
    return cells


def _ground(height: int, width: int, rng: np.random.Generator, gsd_m: float) -> Image.Image:
    """Soil and grass, mixed by smooth noise at several scales, sometimes with a track."""
    soil = np.array([rng.uniform(105, 175), rng.uniform(85, 135), rng.uniform(60, 100)])
    grass = np.array([rng.uniform(70, 125), rng.uniform(95, 150), rng.uniform(45, 80)])
    small = (max(2, height // 2), max(2, width // 2))
    broad = _noise(small, 14 / gsd_m / 2, rng)
    mid = _noise(small, 2.5 / gsd_m / 2, rng)
    fine = _noise(small, 0.5 / gsd_m / 2, rng)
    bias = rng.uniform(-0.6, 0.6)
    cover = np.clip(0.5 + bias + 1.1 * broad + 0.7 * mid, 0, 1)[..., None]
    tone = (1 + 0.18 * fine + 0.12 * mid)[..., None]
    colour = (soil + cover * (grass - soil)) * tone
    half = Image.fromarray(np.clip(colour, 0, 255).astype(np.uint8))
    scene = half.resize((width, height), Image.Resampling.BILINEAR)
    if rng.uniform() < 0.35:
        pen = ImageDraw.Draw(scene)
        y0, y1 = rng.uniform(0, height, 2)
        track = (int(soil[0] * 1.15), int(soil[1] * 1.12), int(soil[2] * 1.1))
        pen.line([(-9, y0), (width + 9, y1)], fill=track, width=max(2, round(3.5 / gsd_m)))
    return scene


def _noise(shape: tuple[int, int], cell: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Smooth value noise of about unit range, one knot every ``cell`` pixels."""
    knots = (max(2, int(shape[0] / cell) + 2), max(2, int(shape[1] / cell) + 2))
    knots = (min(knots[0], shape[0]), min(knots[1], shape[1]))
    coarse = Image.fromarray(rng.uniform(-1, 1, knots).astype(np.float32))
    return np.asarray(coarse.resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def _scatter_bushes(
    scene: Image.Image, rng: np.random.Generator, gsd_m: float, sun: float, n: int
) -> None:
    """Round shrubs: green things that are no palms."""
    for _ in range(n):
        d = max(3, round(rng.uniform(1.0, 3.5) / gsd_m))
        blob = _noise((d, d), max(2, d / 5), rng)
        yy, xx = np.mgrid[0:d, 0:d] / max(1, d - 1) * 2 - 1
        mask = np.clip((1 - xx**2 - yy**2 + 0.5 * blob) * 4, 0, 1)
        lit = 1 - 0.3 * (xx * math.cos(sun) + yy * math.sin(sun)) + 0.25 * blob
        base = np.array([rng.uniform(45, 95), rng.uniform(75, 120), rng.uniform(35, 60)])
        rgb = np.clip(base * lit[..., None], 0, 255).astype(np.uint8)
        alpha = Image.fromarray((mask * 255).astype(np.uint8))
        x = int(rng.integers(-d, scene.width))
        y = int(rng.integers(-d, scene.height))
        far = max(1, d // 5)
        shade = alpha.point(lambda a: a // 2)
        dx, dy = round(far * math.cos(sun)), round(far * math.sin(sun))
        scene.paste((16, 20, 16), (x + dx, y + dy), shade)
        scene.paste(Image.fromarray(rgb), (x, y), alpha)


@lru_cache(maxsize=8)
def _sprite_bank(size: int) -> tuple[Image.Image, ...]:
    """Crowns seen from above, RGBA ``[size, size]``; the same for every scene of a GSD."""
    drawn = (_crown(np.random.default_rng([k, 0x0C20])) for k in range(_SPRITES))
    return tuple(im.resize((size, size), Image.Resampling.LANCZOS) for im in drawn)


def _crown(rng: np.random.Generator) -> Image.Image:
    """One palm: old fronds below and dark, young ones above and bright, a pale heart."""
    image = Image.new("RGBA", (_CANVAS, _CANVAS), (0, 0, 0, 0))
    pen = ImageDraw.Draw(image)
    middle, radius = _CANVAS / 2, _CANVAS / 2 - 4
    layers = (
        (int(rng.integers(11, 16)), 0.82, 1.0, (44.0, 70.0, 34.0)),
        (int(rng.integers(10, 14)), 0.68, 0.92, (70.0, 104.0, 48.0)),
        (int(rng.integers(6, 10)), 0.38, 0.62, (100.0, 138.0, 66.0)),
    )
    for count, shortest, longest, colour in layers:
        phase = rng.uniform(0, 2 * math.pi)
        for k in range(count):
            angle = phase + 2 * math.pi * (k + rng.uniform(-0.22, 0.22)) / count
            length = radius * rng.uniform(shortest, longest)
            shade = rng.uniform(0.85, 1.15) * (1 + 0.16 * math.cos(angle - 0.8))
            tone = (colour[0] * shade, colour[1] * shade, colour[2] * shade)
            _frond(pen, middle, angle, length, rng.uniform(-0.45, 0.45), tone)
    heart = _CANVAS * rng.uniform(0.025, 0.045)
    pen.ellipse([middle - heart, middle - heart, middle + heart, middle + heart], (136, 150, 88))
    return image


def _frond(
    pen: ImageDraw.ImageDraw, middle: float, angle: float, length: float, bend: float, tone: Rgb
) -> None:
    """A bent midrib with leaflets on both sides, one side in light, darker at the tip."""
    ribs = 18
    rib = []
    for k in range(ribs + 1):
        t = k / ribs
        # drooping: seen from above the tip is foreshortened and turned aside
        far, turn = length * (1.25 * t - 0.25 * t * t), angle + bend * t * t
        rib.append((middle + far * math.cos(turn), middle + far * math.sin(turn)))
    for k in range(2, ribs + 1):
        t = k / ribs
        (x0, y0), (x1, y1) = rib[k - 1], rib[k]
        ahead = math.atan2(y1 - y0, x1 - x0)
        reach = 0.2 * length * math.sqrt(math.sin(math.pi * min(1.0, 0.12 + 0.82 * t)))
        for side, light in ((-1, 1.12), (1, 0.8)):
            lean = ahead + side * (1.05 - 0.45 * t)
            dim = light * (1.1 - 0.35 * t)
            tip = (x1 + reach * math.cos(lean), y1 + reach * math.sin(lean))
            # leaflets end at the crown's edge, however they lean
            over = math.hypot(tip[0] - middle, tip[1] - middle) / (length * 1.02)
            if over > 1:
                tip = (middle + (tip[0] - middle) / over, middle + (tip[1] - middle) / over)
            pen.line([(x1, y1), tip], fill=_ink(tone, dim), width=4)
    pen.line(rib, fill=_ink(tone, 1.45), width=3)


def _ink(tone: Rgb, k: float) -> tuple[int, int, int, int]:
    r, g, b = (min(255, int(c * k)) for c in tone)
    return r, g, b, 255


def _turned(sprite: Image.Image, diameter: float, angle: float) -> Image.Image:
    """The sprite scaled to ``diameter`` pixels and turned about its centre."""
    side = max(3, math.ceil(diameter) + 2)
    k = sprite.width / diameter
    c, s = k * math.cos(angle), k * math.sin(angle)
    from_centre, to_centre = side / 2, sprite.width / 2
    matrix = (
        c, -s, to_centre - c * from_centre + s * from_centre,
        s, c, to_centre - s * from_centre - c * from_centre,
    )  # fmt: skip
    return sprite.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


def _tinted(sprite: Image.Image, tint: Rgb) -> Image.Image:
    table = [min(255, int(v * k)) for k in tint for v in range(256)] + list(range(256))
    return sprite.point(table)
