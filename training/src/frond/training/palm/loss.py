"""What the palm detector learns by."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def loss(raw: Tensor, target: Tensor) -> Tensor:
    """Focal loss on the heat map, L1 on log-size and offset near the centres.

    ``target`` [N, 8, h, w]: heat, believed (0 or 1), centre (0 or 1), log-size ×2, offset ×2,
    and the weight of log-size. Offsets are learnt where heat exceeds a half.
    """
    heat, believed, centre = target[:, 0], target[:, 1], target[:, 2]
    logits = raw[:, 0].float()
    p = torch.sigmoid(logits)
    hit = centre * believed * (1 - p) ** 2 * functional.logsigmoid(logits)
    miss = (1 - centre) * believed * (1 - heat) ** 4 * p**2 * functional.logsigmoid(-logits)
    n = (centre * believed).sum().clamp(min=1)
    focal = -(hit + miss).sum() / n
    near = (heat > 0.5).float() * believed * heat
    some = near.sum().clamp(min=1)
    offset = ((raw[:, 3:5] - target[:, 5:7]).abs().sum(1) * near).sum() / some
    weighted = near * target[:, 7]
    size = ((raw[:, 1:3] - target[:, 3:5]).abs().sum(1) * weighted).sum() / weighted.sum().clamp(
        min=1
    )
    return focal + 1.5 * size + 0.3 * offset
