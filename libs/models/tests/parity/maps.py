"""Graphs without boxes or with centres: the centre points, masks, classes of whole windows."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import (
    CLASSES,
    Made,
    drawn,
    enliven,
    export,
    joined,
    made,
    outputs_of,
    settle,
    spread,
)
from torch import Tensor, nn
from torch.nn import functional

TRAINING = Path(__file__).parents[4] / "training"


class _CentreNet(nn.Module):
    """CenterNet's three heads on four convolutions: heatmap after its sigmoid, wh and reg in cells."""

    def __init__(self) -> None:
        super().__init__()
        steps = [(3, 16, 2), (16, 24, 2), (24, 24, 1), (24, 24, 1)]
        layers = [nn.Sequential(nn.Conv2d(a, b, 3, s, 1), nn.ReLU()) for a, b, s in steps]
        self.body = nn.Sequential(*layers)
        self.hm, self.wh, self.reg = (nn.Conv2d(24, n, 1) for n in (3, 2, 2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.body(x)
        return self.hm(x).sigmoid(), self.wh(x), self.reg(x)


def ctdet(heat: Tensor, wh: Tensor, reg: Tensor, most: int = 100) -> list[Tensor]:
    """Decoding as Objects as Points (2019) has it: cells that are the maximum of their 3×3 block,
    the best of all classes, their sizes and offsets; boxes in cells, times 4."""
    heat = heat * (functional.max_pool2d(heat, 3, 1, 1) == heat)
    n, _, h, w = heat.shape
    found = []
    for k in range(n):
        scores, at = heat[k].flatten().topk(most)
        classes, y, x = at // (h * w), at % (h * w) // w, at % w
        centre = torch.stack([x + reg[k, 0, y, x], y + reg[k, 1, y, x]], 1)
        half = torch.stack([wh[k, 0, y, x], wh[k, 1, y, x]], 1) / 2
        found.append(joined(torch.cat([centre - half, centre + half], 1) * 4, scores, classes))
    return found


@torch.no_grad()
def centernet(folder: Path) -> Made:
    """CenterNet as published: no NMS but its peaks."""
    torch.manual_seed(17)
    net, x = _CentreNet().eval(), drawn(2, 96)
    # no cells alike: of equal neighbours Frond takes one, CenterNet all
    x += 0.02 * torch.rand_like(x)
    enliven(net)
    heads = {net.hm: (-1.5, 1.0), net.wh: (4.0, 1.0), net.reg: (0.5, 0.2)}
    spread(lambda: net(x), heads)
    path = export(net, x, folder / "centernet.onnx", ["hm", "wh", "reg"])

    def want(one: dict[str, Any], *maps: Tensor) -> Sequence[Any]:
        return [f[f[:, 4] > one["score"]] for f in ctdet(*maps)]

    return made(
        path, x, net(x), "centerpoint", want,
        "decoding of Objects as Points (arXiv 1904.07850), written out in parity/maps.py", [],
        at=({"score": 0.2, "nms_iou": 1.0}, {"score": 0.4, "nms_iou": 1.0}), classes=3, size=96,
        params={"sizes": "cells", "outputs": {"heatmap": "hm", "size": "wh", "offset": "reg"}},
        max_detections=100,
    )  # fmt: skip


@torch.no_grad()
def palm(folder: Path) -> Made:
    """The detector that Frond ships, untrained, and the decoding that its figures come from."""
    sys.path.insert(0, str(TRAINING / "src"))
    from frond.training.palm.detect import LOWEST, NMS_IOU, decode, nms
    from frond.training.palm.model import Deployed, PalmNet

    torch.manual_seed(18)
    net, x = PalmNet().eval(), drawn(2, 128)
    settle(net, lambda: net(x))
    spread(lambda: net(x), {net.head: ([-1.5, 0.0, 0.0, 0.5, 0.5], 0.6)})
    shipped = Deployed(net, 18.0).eval()
    fed = (x.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).contiguous()
    names = ["heatmap", "size", "offset"]
    path = export(shipped, fed, folder / "palm.onnx", names)

    def want(one: dict[str, Any], *maps: Tensor) -> Sequence[Any]:
        found = []
        for window in zip(*(m.numpy() for m in maps), strict=True):
            kept = nms(decode(*window))
            found.append(np.column_stack([kept, np.zeros(len(kept))]))
        return found

    return made(
        path, fed, shipped(fed), "centerpoint", want, "frond.training.palm.detect: decode, nms", [],
        at=({"score": LOWEST, "nms_iou": NMS_IOU},), classes=1, size=128,
        params={"stride": 4, "peaks_suppressed": True},
    )  # fmt: skip


def _masks(
    path: Path, fed: Tensor, scores: Tensor, labels: Tensor, by: str, packages: Sequence[str],
    **says: Any,
) -> Made:  # fmt: skip
    """A recording of masks: labels as the package gives them, and its probabilities."""
    wanted = {
        "labels": labels.numpy().astype(np.uint8),
        "probabilities": scores.numpy().astype(np.float16),
    }
    says = {
        "decoder": "semantic", "task": "segmentation", "classes": CLASSES, "size": fed.shape[-1],
        "by": by,
    } | says  # fmt: skip
    return {
        "graph": outputs_of(path, fed), "says": says, "cases": [({"score": 0.5}, wanted)],
        "packages": tuple(packages),
    }  # fmt: skip


class _Output(nn.Module):
    def __init__(self, net: nn.Module, name: str) -> None:
        super().__init__()
        self.net, self.name = net, name

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)[self.name]
        return out


@torch.no_grad()
def lraspp(folder: Path) -> Made:
    """torchvision's segmentation: logits of the window's size, the first channel no class."""
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    torch.manual_seed(19)
    net = lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=CLASSES + 1
    ).eval()
    x = drawn(1, 64)
    enliven(net)
    settle(net, lambda: net(x))
    head = net.classifier
    spread(lambda: net(x), {head.low_classifier: (0.0, 1.5), head.high_classifier: (0.0, 1.0)})
    path = export(_Output(net, "out"), x, folder / "lraspp.onnx", ["out"])
    out = net(x)["out"]
    return _masks(
        path, x, out.softmax(1), out.argmax(1),
        "torchvision LRASPP.forward, argmax and softmax over dim 1", ["torchvision"],
        params={"activation": "softmax", "background": 0},
    )  # fmt: skip


@torch.no_grad()
def segformer(folder: Path) -> Made:
    """transformers' SegFormer: logits of a quarter of the window's side, scaled up afterwards."""
    from transformers import (
        SegformerConfig,
        SegformerForSemanticSegmentation,
        SegformerImageProcessor,
    )

    torch.manual_seed(20)
    config = SegformerConfig(
        num_labels=CLASSES, hidden_sizes=[8, 16, 24, 32], decoder_hidden_size=32,
        depths=[1, 1, 1, 1],
    )  # fmt: skip
    net, x = SegformerForSemanticSegmentation(config).eval(), drawn(2, 96)
    enliven(net)
    settle(net, lambda: net(x))
    spread(lambda: net(x), {net.decode_head.classifier: (0.0, 2.0)})
    out = net(x)
    path = export(_Output(net, "logits"), x, folder / "segformer.onnx", ["logits"])
    labels = SegformerImageProcessor().post_process_semantic_segmentation(out, [(96, 96)] * 2)
    full = functional.interpolate(out.logits, (96, 96), mode="bilinear", align_corners=False)
    return _masks(
        path, x, full.softmax(1)[:1], torch.stack(labels),
        "transformers SegformerImageProcessor.post_process_semantic_segmentation",
        ["transformers"], params={"activation": "softmax"},
    )  # fmt: skip


@torch.no_grad()
def mobilenet(folder: Path) -> Made:
    """torchvision's classifier: logits, softmax and the best class outside the graph."""
    from torchvision.models import mobilenet_v3_small

    torch.manual_seed(21)
    net = mobilenet_v3_small(weights=None, num_classes=7).eval()
    x = torch.cat([drawn(8, 64, seed) for seed in (7, 8)])
    enliven(net)
    settle(net, lambda: net(x))
    spread(lambda: net(x), {net.classifier[-1]: (0.0, 1.5)})
    path = export(net, x, folder / "mobilenet.onnx", ["logits"])

    def want(one: dict[str, Any], logits: Tensor) -> Sequence[Any]:
        scores, classes = logits.softmax(1).max(1)
        boxes = torch.tensor([[0.0, 0.0, 64.0, 64.0]]).expand(len(x), 4)
        return [r[r[:, 4] > one["score"]] for r in joined(boxes, scores, classes)[:, None]]

    return made(
        path, x, [net(x)], "tile-classification", want,
        "torchvision mobilenet_v3_small.forward, softmax(1).max(1)", ["torchvision"],
        at=({"score": 0.25}, {"score": 0.5}), classes=7, size=64, task="classification",
        params={"activation": "softmax"},
    )  # fmt: skip
