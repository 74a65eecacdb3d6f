"""What the makers share: images, weights that say something, exports and recordings."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

torch.set_num_threads(1)

CLASSES = 4
SIZE = 160
AT = ({"score": 0.25, "nms_iou": 0.45}, {"score": 0.45, "nms_iou": 0.7})
"""The thresholds of a recording where its maker says nothing else."""

Made = dict[str, Any]
Arrays = dict[str, np.ndarray]
Want = Callable[..., Sequence[Any]]


def outputs_of(path: Path, fed: Tensor) -> Arrays:
    """What a graph gives, by ONNX Runtime on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    values = session.run(names, {session.get_inputs()[0].name: fed.numpy()})
    return dict(zip(names, values, strict=True))


def drawn(count: int, size: int, seed: int = 7) -> Tensor:
    """Images of rectangles on clouds: float32 [n, 3, size, size], 0…1."""
    rng = np.random.default_rng(seed)
    images = rng.uniform(0, 1, (count, 3, 8, 8)).astype(np.float32).repeat(size // 8, 2)
    images = 0.6 * images.repeat(size // 8, 3) + rng.uniform(0, 0.1, (count, 3, size, size))
    for image in images:
        for x, y, w, h in rng.integers(8, size // 3, (12, 4)):
            x, y = 3 * x - 24, 3 * y - 24
            image[:, y : y + h, x : x + w] = rng.uniform(0, 1, (3, 1, 1))
    return torch.from_numpy(images.astype(np.float32))


@torch.no_grad()
def settle(net: nn.Module, run: Callable[[], Any]) -> None:
    """Give batch normalisation the statistics of one run, as a trained network has them."""
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [m.momentum for m in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    run()
    for norm, momentum in zip(norms, before, strict=True):
        norm.eval()
        norm.momentum = momentum


@torch.no_grad()
def enliven(net: nn.Module) -> None:
    """Draw weights wider: features that fade, and queries that begin alike, stay alike."""
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
        elif isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
        elif isinstance(layer, nn.Embedding):
            nn.init.normal_(layer.weight)


@torch.no_grad()
def spread(run: Callable[[], Any], layers: Mapping[nn.Module, tuple[Any, float]]) -> None:
    """Scale layers so that each channel of their outputs has a mean and a standard deviation."""
    seen: dict[nn.Module, list[Tensor]] = {layer: [] for layer in layers}
    hooks = [m.register_forward_hook(lambda m, _, out: seen[m].append(out)) for m in layers]
    run()
    for hook in hooks:
        hook.remove()
    for layer, (mean, deviation) in layers.items():
        axis = 1 if isinstance(layer, nn.Conv2d) else -1
        values = torch.cat([v.movedim(axis, -1).flatten(0, -2) for v in seen[layer]])
        gain = deviation / values.std(0).clamp(min=1e-6)
        layer.weight.mul_(gain.view(-1, *[1] * (layer.weight.ndim - 1)))
        layer.bias.copy_((layer.bias - values.mean(0)) * gain + torch.as_tensor(mean))


def rows(found: Sequence[Any]) -> np.ndarray:
    """[window, x0, y0, x1, y1, score, class] of what was found in each window."""
    parts = [
        np.concatenate([np.full((len(one), 1), n), np.asarray(one, np.float64)], axis=1)
        for n, one in enumerate(found)
    ]
    return np.concatenate(parts).astype(np.float32)


def made(
    path: Path, fed: Tensor, own: Sequence[Tensor], decoder: str, want: Want, by: str,
    packages: Sequence[str], *, at: Sequence[dict[str, Any]] = AT,
    params: dict[str, Any] | None = None, **says: Any,
) -> Made:  # fmt: skip
    """A recording of boxes.

    Args:
        own: what the model gives in torch, in the order of the graph's outputs.
        want: the package's post-processing: thresholds and outputs in, [n, 6] a window out.
    """
    graph = outputs_of(path, fed)
    given = [torch.from_numpy(v) for v in graph.values()]
    says = {
        "decoder": decoder, "params": params or {}, "task": "detection", "classes": CLASSES,
        "size": SIZE, "max_detections": 300, "by": by,
    } | says  # fmt: skip
    cases = [
        (one, {"rows": rows(want(one, *(v.clone() for v in given))),
               "torch": rows(want(one, *(v.clone() for v in own)))})
        for one in at
    ]  # fmt: skip
    return {"graph": graph, "says": says, "cases": cases, "packages": tuple(packages)}


def joined(boxes: Tensor, scores: Tensor, classes: Tensor) -> Tensor:
    """[n, 6] of its columns."""
    return torch.cat([boxes, scores[:, None], classes[:, None].to(boxes)], 1)


class Outputs(nn.Module):
    """A model of which only some outputs are wanted, as a tuple."""

    def __init__(self, net: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.net, self.names = net, names

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        out = self.net(x)
        return tuple(out[name] for name in self.names)


def export(net: nn.Module, x: Any, path: Path, outputs: Sequence[str]) -> Path:
    """By torch's exporter, the scripted one."""
    net.eval()  # the exporter puts it back into the mode it was in
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net, (x,), str(path), input_names=["images"], output_names=list(outputs),
            opset_version=17, dynamo=False,
        )  # fmt: skip
    return path
