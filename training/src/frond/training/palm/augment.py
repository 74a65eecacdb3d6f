"""Light, colour, sharpness and noise as cameras and archives make them."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels = NDArray[np.uint8]


def jpeg(pixels: Pixels, quality: int) -> Pixels:
    """``pixels`` after a trip through JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def colour_jitter(pixels: Pixels, rng: np.random.Generator) -> Pixels:
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
