"""Graphs whose outputs are boxes, each made by its own package, and its post-processing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from common import (
    AT,
    CLASSES,
    SIZE,
    Made,
    Outputs,
    drawn,
    enliven,
    export,
    joined,
    made,
    settle,
    spread,
)
from torch import Tensor, nn


@torch.no_grad()
def yolo(config: str, *, in_graph: bool = False) -> Made:
    """Ultralytics' YOLO: raw heads, end-to-end ones, or NMS in the graph."""
    from ultralytics import YOLO
    from ultralytics.nn.tasks import DetectionModel
    from ultralytics.utils.nms import non_max_suppression

    torch.manual_seed(11)
    net = DetectionModel(config, nc=CLASSES, verbose=False).eval()
    head, x = net.model[-1], drawn(1 if in_graph else 2, SIZE)
    end2end = getattr(head, "one2one_cv2", None) is not None
    head.end2end = end2end
    settle(net, lambda: net(x))
    sides = [-0.45 * k for k in range(head.reg_max)] * 4 if head.reg_max > 1 else 3.5
    boxes, classes = (head.one2one_cv2, head.one2one_cv3) if end2end else (head.cv2, head.cv3)
    layers = {b[-1]: (sides, 0.8) for b in boxes} | {c[-1]: (-2.5, 1.3) for c in classes}
    spread(lambda: net(x), layers)
    raw = net(x)[0].clone()
    nms = False if end2end else (True if in_graph else None)
    at = [{"score": 0.25, "nms_iou": 0.45}] if in_graph else AT

    def want(one: dict[str, Any], raw: Tensor) -> Sequence[Any]:
        return non_max_suppression(
            raw, one["score"], one["nms_iou"], nc=CLASSES, end2end=end2end or raw.shape[2] == 6
        )

    wrapped = YOLO(config)
    net.args, net.task = wrapped.model.args, "detect"
    wrapped.model = net
    more = {"conf": at[0]["score"], "iou": at[0]["nms_iou"]} if in_graph else {}
    path = wrapped.export(
        format="onnx", imgsz=SIZE, batch=len(x), simplify=False, opset=17, nms=nms, **more
    )
    decoder = "yolo-end2end" if end2end or in_graph else "yolo"
    return made(
        Path(path).resolve(), x, [raw], decoder, want,
        "ultralytics.utils.nms.non_max_suppression", ["ultralytics"], at=at,
    )  # fmt: skip


@torch.no_grad()
def yolov5(folder: Path) -> Made:
    """YOLOv5 of its own repository: anchors, an objectness."""
    import yolov5.models.yolo as package
    from yolov5.utils.general import non_max_suppression

    torch.manual_seed(12)
    config = Path(package.__file__).parent / "yolov5n.yaml"
    net = package.DetectionModel(str(config), ch=3, nc=CLASSES).eval()
    head, x = net.model[-1], drawn(1, SIZE)
    settle(net, lambda: net(x))
    means = ([0.0] * 4 + [-0.7] * (1 + CLASSES)) * head.na
    spread(lambda: net(x), dict.fromkeys(head.m, (means, 1.2)))
    raw = net(x)[0]

    def want(one: dict[str, Any], raw: Tensor) -> Sequence[Any]:
        return non_max_suppression(raw, one["score"], one["nms_iou"], max_det=300)

    head.export, head.inplace = True, False
    path = export(net, x, folder / "v5.onnx", ["output0"])
    return made(
        path, x, [raw], "yolo", want, "yolov5.utils.general.non_max_suppression", ["yolov5"]
    )


@torch.no_grad()
def rtdetr_ultralytics(folder: Path) -> Made:
    """RT-DETR's decoder of Ultralytics behind a few convolutions."""
    import yaml
    from ultralytics import RTDETR
    from ultralytics.models.rtdetr.predict import RTDETRPredictor

    config = {
        "nc": CLASSES,
        "backbone": [[-1, 1, "Conv", [c, 3, 2]] for c in (16, 32, 32, 48, 64)],
        "head": [[-1, 1, "AIFI", [128, 4]],
                 [[2, 3, 5], 1, "RTDETRDecoder", ["nc", 64, 60, 4, 4, 2, 128]]],
    }  # fmt: skip
    file = folder / "rtdetr-small.yaml"
    file.write_text(yaml.safe_dump(config))
    torch.manual_seed(13)
    wrapped = RTDETR(str(file))
    net, x = wrapped.model.eval(), drawn(2, SIZE)
    head = net.model[-1]
    enliven(head)
    settle(net, lambda: net(x))
    spread(lambda: net(x), {head.dec_score_head[-1]: (-2.0, 1.2)})
    spread(lambda: net(x), {head.dec_bbox_head[-1].layers[-1]: ([0, 0, -0.5, -0.5], 0.6)})
    raw = net(x)[0].clone()

    def want(one: dict[str, Any], raw: Tensor) -> Sequence[Any]:
        shim = SimpleNamespace(
            batch=[["a", "b"]], model=net,
            args=SimpleNamespace(conf=one["score"], classes=None, max_det=300),
        )  # fmt: skip
        blank = [np.zeros((SIZE, SIZE, 3), np.uint8)] * 2
        return [r.boxes.data for r in RTDETRPredictor.postprocess(shim, raw, x, blank)]

    path = wrapped.export(format="onnx", imgsz=SIZE, batch=2, simplify=False, opset=17)
    return made(
        Path(path).resolve(), x, [raw], "yolo-end2end", want,
        "ultralytics.models.rtdetr.RTDETRPredictor.postprocess", ["ultralytics"],
        params={"boxes": "centres"},
    )  # fmt: skip


@torch.no_grad()
def detr(folder: Path) -> Made:
    """transformers' DETR: softmax, the last class is none."""
    from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessor, ResNetConfig

    torch.manual_seed(14)
    backbone = ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 24, 32, 48], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage4"],
    )  # fmt: skip
    config = DetrConfig(
        backbone_config=backbone, use_timm_backbone=False, d_model=32, num_queries=100,
        encoder_layers=1, decoder_layers=1, encoder_ffn_dim=64, decoder_ffn_dim=64,
        encoder_attention_heads=4, decoder_attention_heads=4, num_labels=CLASSES,
    )  # fmt: skip
    net = DetrForObjectDetection(config).eval()
    return _queries(
        folder, net, net.class_labels_classifier, net.bbox_predictor.layers[-1], -0.5,
        DetrImageProcessor(), "softmax",
    )  # fmt: skip


@torch.no_grad()
def rtdetr(folder: Path) -> Made:
    """transformers' RT-DETR: sigmoid, the best of all queries and classes."""
    from transformers import (
        RTDetrConfig,
        RTDetrForObjectDetection,
        RTDetrImageProcessor,
        RTDetrResNetConfig,
    )

    torch.manual_seed(15)
    backbone = RTDetrResNetConfig(
        embedding_size=16, hidden_sizes=[16, 24, 32, 48], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = RTDetrConfig(
        backbone_config=backbone, encoder_in_channels=[24, 32, 48], encoder_hidden_dim=32,
        d_model=32, decoder_in_channels=[32, 32, 32], num_queries=300, decoder_layers=2,
        encoder_ffn_dim=64, decoder_ffn_dim=64, encoder_attention_heads=4,
        decoder_attention_heads=4, num_labels=CLASSES,
    )  # fmt: skip
    net = RTDetrForObjectDetection(config).eval()
    return _queries(
        folder, net, net.model.decoder.class_embed[-1],
        net.model.decoder.bbox_embed[-1].layers[-1], -1.5, RTDetrImageProcessor(), "sigmoid",
    )  # fmt: skip


def _queries(
    folder: Path, net: Any, classes: nn.Module, boxes: nn.Module, mean: float, processor: Any,
    activation: str,
) -> Made:  # fmt: skip
    x = drawn(2, SIZE)
    enliven(net)
    spread(lambda: net(x), {classes: (mean, 1.4)})
    spread(lambda: net(x), {boxes: ([0.0, 0.0, -1.0, -1.0], 0.8)})
    names = ["logits", "pred_boxes"]
    own = net(x)
    path = export(Outputs(net, names), x, folder / "queries.onnx", names)

    def want(one: dict[str, Any], logits: Tensor, pred_boxes: Tensor) -> Sequence[Any]:
        outputs = SimpleNamespace(logits=logits, pred_boxes=pred_boxes)
        found = processor.post_process_object_detection(
            outputs, one["score"], target_sizes=[(SIZE, SIZE)] * len(logits)
        )
        return [joined(f["boxes"], f["scores"], f["labels"]) for f in found]

    by = f"transformers.{type(processor).__name__}.post_process_object_detection"
    return made(
        path, x, [own.logits, own.pred_boxes], "detr", want, by, ["transformers"],
        at=({"score": 0.25}, {"score": 0.5}), params={"activation": activation},
        max_detections=own.logits.shape[1],
    )  # fmt: skip


def _small_backbone() -> nn.Module:
    steps = [(3, 16), (16, 24), (24, 32), (32, 32)]
    layers = [nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.ReLU()) for a, b in steps]
    net = nn.Sequential(*layers)
    net.out_channels = 32
    return net


@torch.no_grad()
def torchvision_detector(folder: Path, kind: str) -> Made:
    """torchvision's detectors on a backbone of four convolutions; NMS is theirs, in the graph."""
    from torchvision.models.detection import FasterRCNN, RetinaNet
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.ops import MultiScaleRoIAlign

    torch.manual_seed(16)
    anchors = AnchorGenerator(((24, 48),), ((0.5, 1.0, 2.0),))
    same: dict[str, Any] = {
        "num_classes": CLASSES + 1, "min_size": SIZE, "max_size": SIZE, "image_mean": [0.0] * 3,
        "image_std": [1.0] * 3,
    }  # fmt: skip
    x = drawn(1, SIZE)
    if kind == "fasterrcnn":
        pool = MultiScaleRoIAlign(["0"], 7, 2)
        net: Any = FasterRCNN(
            _small_backbone(), rpn_anchor_generator=anchors, box_roi_pool=pool,
            rpn_post_nms_top_n_test=150, **same,
        ).eval()  # fmt: skip
        heads = {net.rpn.head.cls_logits: (0.0, 1.0), net.rpn.head.bbox_pred: (0.0, 0.3)}
        spread(lambda: net(list(x)), heads)
        box = net.roi_heads.box_predictor
        spread(lambda: net(list(x)), {box.cls_score: (0.0, 2.0), box.bbox_pred: (0.0, 1.5)})
    else:
        net = RetinaNet(_small_backbone(), anchor_generator=anchors, **same).eval()
        head = net.head
        # label 0 is the background, which a trained RetinaNet never gives
        classes = ([-9.0] + [-1.2] * CLASSES) * head.classification_head.num_anchors
        spread(lambda: net(list(x)), {head.classification_head.cls_logits: (classes, 1.5),
                                      head.regression_head.bbox_reg: (0.0, 0.3)})  # fmt: skip
    names = ["boxes", "labels", "scores"]
    (own,) = net(list(x))
    path = export(Outputs(_First(net), names), x[0], folder / "tv.onnx", names)

    def want(one: dict[str, Any], boxes: Tensor, labels: Tensor, scores: Tensor) -> Sequence[Any]:
        keep = scores > one["score"]
        return [joined(boxes, scores, labels - 1)[keep]]

    return made(
        path, x[0], [own[n] for n in names], "torchvision", want,
        f"torchvision.models.detection, {type(net).__name__}.forward", ["torchvision"],
        at=({"score": 0.25}, {"score": 0.5}),
    )  # fmt: skip


class _First(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        out: dict[str, Tensor] = self.net([image])[0]
        return out
