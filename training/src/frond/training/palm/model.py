"""The palm detector: a small dense convolutional network that marks crowns' centres."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

OUTPUTS = ("heatmap", "size", "offset")
MEAN = (0.39, 0.43, 0.34)
STD = (0.22, 0.21, 0.20)


def _conv(cin: int, cout: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False),
            norm=nn.BatchNorm2d(cout, momentum=0.03),
            act=nn.ReLU(inplace=True),
        )
    )


class Residual(nn.Module):
    """Two 3×3 convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _conv(width, width), _conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        told: Tensor = x + self.second(self.first(x))
        return told


class PalmNet(nn.Module):
    """float32 [N, 3, H, W] of 0…1 → heat logits, log-sizes and offsets [N, 5, H/4, W/4].

    Dense 3×3 convolutions at strides 2 to 32, brought together again at stride 4; the
    field of view (over 300 px) takes in a crown and its neighbours.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(3, 16, 2)
        self.s4 = nn.Sequential(_conv(16, 32, 2), _conv(32, 32))
        self.s8 = nn.Sequential(_conv(32, 64, 2), Residual(64))
        self.s16 = nn.Sequential(_conv(64, 96, 2), Residual(96))
        self.s32 = nn.Sequential(_conv(96, 112, 2), Residual(112))
        self.up16, self.lat16 = _conv(112, 64, kernel=1), _conv(96, 64, kernel=1)
        self.mix16 = _conv(64, 64)
        self.lat8 = _conv(64, 64, kernel=1)
        self.mix8 = _conv(64, 48)
        self.lat4 = _conv(32, 48, kernel=1)
        self.mix4 = _conv(48, 40)
        self.mean: Tensor
        self.std: Tensor
        self.head = nn.Conv2d(40, 5, 1)
        nn.init.normal_(self.head.weight, std=0.01)
        # a palm in every hundredth cell, so that the first steps are no flood
        self.head.bias = nn.Parameter(torch.tensor([-4.6, 0.0, 0.0, 0.5, 0.5]))
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem((x - self.mean) / self.std)
        c4 = self.s4(x)
        c8 = self.s8(c4)
        c16 = self.s16(c8)
        c32 = self.s32(c16)
        p16 = self.mix16(self.lat16(c16) + _double(self.up16(c32)))
        p8 = self.mix8(self.lat8(c8) + _double(p16))
        p4 = self.mix4(self.lat4(c4) + _double(p8))
        told: Tensor = self.head(p4)
        return told


def _double(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


class Deployed(nn.Module):
    """What is exported: uint8 windows in, the ``centerpoint`` decoder's three maps out.

    Input uint8 [N, H, W, 3]. Outputs, all float32 over cells of 4 px: ``heatmap`` [N, 1, h, w],
    probabilities, zero where a neighbour of the 3×3 block is higher; ``size`` [N, 2, h, w], width
    and height in pixels; ``offset`` [N, 2, h, w], so that a centre in pixels is
    ((column + dx)·4, (row + dy)·4), pixel corners being whole numbers.
    """

    def __init__(self, net: nn.Module, crown_px: float) -> None:
        super().__init__()
        self.net = net
        self.crown_px = crown_px

    def scaled(self, image: Tensor) -> Tensor:
        """Windows as the network takes them."""
        return image.permute(0, 3, 1, 2).to(torch.float32) * (1 / 255)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        raw = self.net(self.scaled(image))
        heat = torch.sigmoid(raw[:, :1])
        highest = functional.max_pool2d(heat, 3, 1, 1)
        peaks = torch.where(heat >= highest, heat, torch.zeros_like(heat))
        size = torch.exp(raw[:, 1:3].clamp(-3.0, 2.0)) * self.crown_px
        return peaks, size, raw[:, 3:5]
