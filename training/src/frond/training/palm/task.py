"""The palm detector as the loop trains it."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from frond.training.config import Config, bad
from frond.training.export import export, largest_difference
from frond.training.loop import Arrays
from frond.training.palm.card import write_card, write_manifest
from frond.training.palm.config import Settings
from frond.training.palm.crops import Sampler
from frond.training.palm.data import CROWN_PX, GSD_M, Parts, declared, settings, thinned
from frond.training.palm.detect import WINDOW, Array, Maps, Predict, detect
from frond.training.palm.evaluate import chosen_threshold
from frond.training.palm.loss import loss
from frond.training.palm.model import OUTPUTS, Deployed, PalmNet

_TIE = 1e-4


def make(config: Config, prepared: Path) -> PalmTask:
    """The task on prepared data.

    Raises:
        UserError: there is nothing to learn or to judge by.
    """
    mine, gsd_m = declared(settings(config), prepared)
    return PalmTask(mine, Parts.of(prepared), gsd_m)


class PalmTask:
    """A :class:`frond.training.loop.Task`."""

    name = "palm"

    def __init__(self, config: Settings, parts: Parts, gsd_m: float | None = GSD_M) -> None:
        self._config, self._gsd_m = config, gsd_m
        if not parts.train or not any(len(t.boxes) for p in parts.val for t in p.tiles):
            raise bad("There are no labelled palms to train on, or none to judge by.")
        self._judged = [*parts.val, *parts.free]
        self._sampler = Sampler(
            parts.train, parts.background, parts.drawn,
            background=config.background, drawn=config.drawn, mixed=config.mixed,
            ironwork=config.ironwork,
        )  # fmt: skip

    def batch(self, seed: int, step: int) -> Arrays:
        return self._sampler.batch(seed, step, self._config.batch)

    def model(self) -> nn.Module:
        return cast(nn.Module, PalmNet().to(memory_format=torch.channels_last))

    def loss(self, model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        pixels, target = batch
        x = pixels.permute(0, 3, 1, 2).float().div_(255)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._config.bfloat16):
            raw = model(x.contiguous(memory_format=torch.channels_last))
        return loss(raw.float(), target)

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Centre-match F1 at its best threshold, palm-free imagery counted, on a share of it all."""
        predict = predictor(model)
        some = thinned(self._judged, self._config.validation_megapixels)
        found = [(p, [detect(predict, t.pixels) for t in p.tiles]) for p in some]
        bar, f1 = chosen_threshold(found)
        return {"score": f1, "threshold": bar}

    def export(self, model: nn.Module, folder: Path) -> None:
        rng = np.random.default_rng(0)
        example = torch.from_numpy(rng.integers(0, 256, (2, WINDOW, WINDOW, 3), dtype=np.uint8))
        deployed = Deployed(model, CROWN_PX).eval()
        with torch.no_grad():
            heat = torch.sigmoid(model(deployed.scaled(example))[:, :1]).numpy()

        def differ(got: list[Array], want: list[Array]) -> float:
            # which of two neighbours is the peak may hang on the last digit
            tied = ((got[0] > 0) != (want[0] > 0)) & (_around(heat) - heat < _TIE)
            peaks = [np.where(tied, 0, a[0]) for a in (got, want)]
            return largest_difference([peaks[0], *got[1:]], [peaks[1], *want[1:]])

        export(deployed, example, folder / "model.onnx", "image", OUTPUTS, differ)
        write_manifest(folder, self._config, None, self._gsd_m)
        write_card(folder, self._config, None, self._gsd_m)


def predictor(model: nn.Module) -> Predict:
    """The network as it is exported, read by torch."""
    deployed = Deployed(model, CROWN_PX).eval()

    def predict(batch: Array) -> Maps:
        with torch.no_grad():
            heat, size, offset = deployed(torch.from_numpy(batch))
        return heat.numpy(), size.numpy(), offset.numpy()

    return predict


def _around(heat: Array) -> Array:
    """The highest of each 3×3 block."""
    padded = np.pad(heat, ((0, 0), (0, 0), (1, 1), (1, 1)))
    blocks = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return np.asarray(blocks.max(axis=(-2, -1)))
