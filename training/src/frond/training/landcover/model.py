"""The networks that are compared, all of segmentation-models-pytorch, and what is exported."""

from __future__ import annotations

from typing import Any

import segmentation_models_pytorch as smp  # type: ignore[import-untyped,unused-ignore]
import torch
from torch import Tensor, nn
from torch.nn import functional

from frond.training.config import bad
from frond.training.landcover.config import BACKGROUND, IGNORED, Settings

CHANNELS = BACKGROUND + 1


def network(config: Settings) -> nn.Module:
    """An untrained network: [n, 3, h, w] to logits [n, 5, h/stride, w/stride].

    The decoder's last blocks are left out. The one at full resolution sees no features of the
    encoder, only what is upsampled; the one at half of it costs as much as all before it.

    Raises:
        UserError: there is no such encoder, or it cannot be built with these widths.
    """
    told: dict[str, Any] = {
        "encoder_name": config.encoder, "encoder_weights": None, "in_channels": 3,
        "classes": CHANNELS, "channels": config.widths, "stem_type": "deep",
        "stem_width": config.stem,
    }  # fmt: skip
    keep = {2: 4, 4: 3}[config.stride]
    kind = {"unet": smp.Unet, "linknet": smp.Linknet, "manet": smp.MAnet}[config.architecture]
    if config.architecture == "linknet":
        # each block adds the encoder's features, and has as many channels as those
        last = {2: config.stem * 2, 4: config.widths[0]}[config.stride]
    else:
        told["decoder_channels"] = (*config.decoder, config.decoder[-1])
        last = config.decoder[keep - 1]
    try:
        net = kind(**told)
    except Exception as e:  # each package has its own for a name or an option it does not know
        raise bad(
            f"The encoder {config.encoder!r} cannot be used ({' '.join(str(e).split())[:200]}). "
            "Name one of timm's ResNets, as in tu-resnet18."
        ) from None
    del net.decoder.blocks[keep:]
    net.segmentation_head = nn.Conv2d(last, CHANNELS, 3, padding=1)
    return Net(net)


class Net(nn.Module):
    """A network that takes pixels from 0 to 255."""

    mean: Tensor
    std: Tensor

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        # rough: the training scenes' are 145 and 74; what matters is that training and export agree
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 110.0))
        self.register_buffer("std", torch.full((1, 3, 1, 1), 60.0))

    def forward(self, pixels: Tensor) -> Tensor:
        x = (pixels - self.mean) / self.std
        logits: Tensor = self.inner(x.contiguous(memory_format=torch.channels_last))
        return logits


class Deployed(nn.Module):
    """uint8 [n, h, w, 3] to probabilities [n, 5, h/stride, w/stride]."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.net(image.permute(0, 3, 1, 2).float())
        return logits.softmax(1)


def loss(logits: Tensor, labels: Tensor, weights: Tensor, dice: float) -> Tensor:
    """Cross entropy weighted by class, and Dice over the batch by class that is in it.

    Logits are brought to the labels' resolution, much as the decoder does with probabilities.
    """
    logits = functional.interpolate(logits, labels.shape[-2:], mode="bilinear", align_corners=False)
    target = labels.long()
    counts = target != IGNORED
    known = target.masked_fill(~counts, BACKGROUND)
    entropy = functional.cross_entropy(
        logits, target, weights, ignore_index=IGNORED, reduction="sum"
    )
    # a batch in which nothing counts costs nothing
    entropy = entropy / (weights[known] * counts).sum().clamp(min=1)
    p = logits.softmax(1) * counts[:, None]
    truth = functional.one_hot(known, CHANNELS).permute(0, 3, 1, 2) * counts[:, None]
    both, sums = (p * truth).sum((0, 2, 3)), (p + truth).sum((0, 2, 3))
    there = truth.sum((0, 2, 3)) > 0
    overlap = (2 * both + 1) / (sums + 1)
    missed: Tensor = ((1 - overlap) * there).sum() / there.sum().clamp(min=1)
    return entropy + dice * missed
