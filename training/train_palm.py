"""Train the palm detector and export it as a model folder.

    python training/train_palm.py --data ../shared/data --out models/palm-detector

See README.md beside this file for what it needs and how long it takes.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from palm_card import write_card, write_manifest
from palm_data import CROWN_PX, Part, Tile, colour_jitter, drawn_part, load_splits
from palm_eval import evaluate, onnx_predictor
from palm_export import export
from palm_model import STRIDE, Deployed, PalmNet, loss
from PIL import Image

CROP = 256
CELLS = CROP // STRIDE
NEGATIVE_SHARE, DRAWN_SHARE, MIXED_SHARE = 0.22, 0.12, 0.2


class Sampler:
    """Crops for any step: the same seed and step give the same batch, in any thread."""

    def __init__(self, palms: list[Part], negatives: list[Part], drawn: Part, seed: int) -> None:
        self.seed = seed
        self.parts = [*palms, *negatives, drawn]
        real = sum(p.weight for p in palms)
        free = sum(p.weight for p in negatives)
        share = 1 - NEGATIVE_SHARE - DRAWN_SHARE
        self.odds = np.array(
            [p.weight / real * share for p in palms]
            + [p.weight / free * NEGATIVE_SHARE for p in negatives]
            + [DRAWN_SHARE]
        )

    def batch(self, step: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """uint8 [size, CROP, CROP, 3] and float32 [size, 8, CELLS, CELLS]."""
        rng = np.random.default_rng([self.seed, step])
        pairs = [self._blend(rng) for _ in range(size)]
        return np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs])

    def _blend(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A crop, one in five with a strip of another: palms on ground that is not theirs."""
        pixels, target = self._crop(rng)
        if rng.uniform() < MIXED_SHARE:
            other, other_target = self._crop(rng)
            cut = int(rng.integers(CELLS // 4, 3 * CELLS // 4))
            edge = cut * STRIDE
            pixels = np.concatenate([pixels[:, :edge], other[:, edge:]], axis=1)
            target = np.concatenate([target[..., :cut], other_target[..., cut:]], axis=-1)
        return pixels, target

    def _crop(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        part = self.parts[int(rng.choice(len(self.parts), p=self.odds))]
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
        pixels = colour_jitter(np.asarray(image), rng)
        return _turn(pixels, target, int(rng.integers(8)))


def _start(length: int, wanted: float, rng: np.random.Generator) -> float:
    room = length - wanted
    slack = 0.06 * wanted
    return float(rng.uniform(min(room, 0) - slack, max(room, 0) + slack))


def _target(tile: Tile, x0: float, y0: float, zx: float, zy: float) -> np.ndarray:
    """Maps as ``palm_model.loss`` wants them, for the crop that starts at x0, y0."""
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
    whole = (tile.boxes[:, :2] > 2).all(1) & (
        tile.boxes[:, 2:] < np.array([width, height]) - 2
    ).all(1)
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


def _turn(pixels: np.ndarray, target: np.ndarray, kind: int) -> tuple[np.ndarray, np.ndarray]:
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


def batches(sampler: Sampler, steps: int, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches in the order of their steps, made ahead by a forked process.

    A thread would hold the interpreter's lock against the training loop. The fork shares the
    imagery and must come before torch starts threads of its own.
    """
    context = multiprocessing.get_context("fork")
    ready = context.Queue(maxsize=6)

    def work() -> None:
        for step in range(steps):
            ready.put(sampler.batch(step, size))

    context.Process(target=work, daemon=True).start()
    for _ in range(steps):
        # a maker that died would be waited for in vain
        yield ready.get(timeout=300)


def train(
    data: Path,
    steps: int,
    size: int,
    seed: int,
    rate: float,
    minutes: float = math.inf,
    start: Path | None = None,
) -> PalmNet:
    """The averaged weights after ``steps`` steps, or ``minutes`` if those are over first.

    The learning rate falls to nothing by whichever end is nearer; only an end by steps can
    be repeated to the same weights.
    """
    torch.manual_seed(seed)
    splits = load_splits(data)
    drawn = drawn_part(240, seed, DRAWN_SHARE)
    sampler = Sampler(splits.train, splits.negatives, drawn, seed)
    stream = batches(sampler, steps, size)
    net = PalmNet().to(memory_format=torch.channels_last)
    if start is not None:
        net.load_state_dict(torch.load(start, weights_only=True))
    average = copy.deepcopy(net).eval()
    plain = [p for p in net.parameters() if p.ndim > 1]
    free = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": plain, "weight_decay": 0.03}, {"params": free, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate)
    warm = min(300, steps // 5)
    began, running = time.monotonic(), {"focal": 0.0, "size": 0.0, "offset": 0.0}
    for step, (pixels, target) in enumerate(stream):
        spent = time.monotonic() - began
        done = max(step / steps, spent / (60 * minutes))
        if done >= 1:
            break
        pace = min(1.0, (step + 1) / warm) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
        for group in optimizer.param_groups:
            group["lr"] = rate * pace
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255)
        with torch.autocast("cpu", torch.bfloat16):
            raw = net(x.contiguous(memory_format=torch.channels_last))
        total, terms = loss(raw.float(), torch.from_numpy(target))
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        keep = min(0.9985, (1 + step) / (20 + step))
        with torch.no_grad():
            for mean, now in zip(
                average.state_dict().values(), net.state_dict().values(), strict=True
            ):
                if mean.dtype.is_floating_point:
                    mean.lerp_(now, 1 - keep)
                else:
                    mean.copy_(now)
        running = {k: 0.98 * v + 0.02 * terms[k] for k, v in running.items()}
        if (step + 1) % 100 == 0:
            text = " ".join(f"{k} {v:.3f}" for k, v in running.items())
            print(f"step {step + 1}/{steps} {spent:.0f} s {text}", flush=True)
    return average


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder of shared data")
    parser.add_argument("--out", type=Path, required=True, help="the model's folder, replaced")
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--minutes", type=float, default=math.inf, help="end earlier than --steps")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--version", default="1")
    parser.add_argument("--weights", type=Path, help="also keep torch's weights here")
    parser.add_argument("--start", type=Path, help="go on from weights kept so")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    began = time.monotonic()
    net = train(args.data, args.steps, args.batch, args.seed, args.rate, args.minutes, args.start)
    minutes = (time.monotonic() - began) / 60
    args.out.mkdir(parents=True, exist_ok=True)
    if args.weights is not None:
        torch.save(net.state_dict(), args.weights)
    model = Deployed(net, CROWN_PX).eval()
    difference = export(model, args.out / "model.onnx")
    print(f"trained {minutes:.1f} min; largest difference torch/onnxruntime {difference:.2e}")
    figures = evaluate(args.data, onnx_predictor(args.out / "model.onnx", args.threads), None)
    write_manifest(args.out, figures, version=args.version)
    write_card(args.out, figures)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
