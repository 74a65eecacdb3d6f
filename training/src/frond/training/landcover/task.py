"""The land cover model as the training loop wants it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from frond.training.config import Config
from frond.training.export import export
from frond.training.landcover.card import write_card, write_manifest
from frond.training.landcover.config import INPUT, MARGIN, OUTPUT, WINDOW, Settings, settings
from frond.training.landcover.crops import Sampler
from frond.training.landcover.data import Bytes, scenes, split
from frond.training.landcover.figures import shares, table
from frond.training.landcover.model import Deployed, loss, network
from frond.training.prepared import Store

_EXAMPLE: Final = 2


class LandcoverTask:
    """A :class:`frond.training.loop.Task` on prepared data."""

    name = "landcover"

    def __init__(self, config: Settings, prepared: Path) -> None:
        self._config = config
        learnt, self._validation = split(config, scenes(Store(prepared)))
        self._sampler = Sampler(learnt, config)
        self._weights = torch.tensor(config.weights)

    def batch(self, seed: int, step: int) -> tuple[NDArray[np.uint8], ...]:
        return self._sampler.batch(seed, step)

    def model(self) -> nn.Module:
        return network(self._config).to(memory_format=torch.channels_last)

    def loss(self, model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        pixels, labels = batch
        # every second label says as much at a quarter of the cost; always the same ones would move
        # what is found by half a pixel
        top, left = torch.randint(0, 2, (2,)).tolist()
        labels = labels[:, top::2, left::2]
        x = pixels.permute(0, 3, 1, 2).float()
        with torch.autocast("cpu", torch.bfloat16, enabled=self._config.bfloat16):
            logits = model(x)
        return loss(logits.float(), labels, self._weights, self._config.dice)

    def validate(self, model: nn.Module) -> dict[str, float]:
        def classify(windows: Bytes) -> Bytes:
            x = torch.from_numpy(windows).permute(0, 3, 1, 2).float()
            p = model(x).float().softmax(1)
            p = functional.interpolate(p, x.shape[-2:], mode="bilinear", align_corners=False)
            found: Bytes = p.argmax(1).to(torch.uint8).numpy()
            return found

        told = shares(table(self._validation, classify, WINDOW, MARGIN))
        return {"score": told["iou"], **told}

    def export(self, model: nn.Module, folder: Path) -> None:
        rng = np.random.default_rng(0)
        example = rng.integers(0, 256, (_EXAMPLE, WINDOW, WINDOW, 3), dtype=np.uint8)
        path = folder / "model.onnx"
        export(Deployed(model), torch.from_numpy(example), path, INPUT, [OUTPUT])
        write_manifest(folder, self._config, None)
        write_card(folder, self._config, None)


def make(config: Config, prepared: Path) -> LandcoverTask:
    """The task on prepared data.

    Raises:
        UserError: a scene that is to be held out is not there, or none is left to learn from.
    """
    return LandcoverTask(settings(config), prepared)
