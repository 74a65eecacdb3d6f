"""What a person and a service read of the model: MODEL_CARD.md's figures and model.yaml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from frond.training import card
from frond.training.palm.config import Settings
from frond.training.palm.data import CROWN_PX, GSD_M
from frond.training.palm.detect import MARGIN, NMS_IOU, STRIDE, WINDOW

_UNJUDGED: Final = 0.4


def metrics_of(figures: dict[str, Any]) -> dict[str, float]:
    """The main figures, by names that fit a manifest and a tracker."""
    metrics: dict[str, float] = {}
    for name, values in figures["palms"].items():
        metrics |= {f"f1_{_key(name)}": values["f1"], f"ap50_{_key(name)}": values["ap50"]}
    metrics["f1_drawn_scenes"] = figures["drawn scenes"]["mean_f1"]
    for name, value in figures["false per megapixel"].items():
        metrics[f"false_per_mp_{_key(name)}"] = value
    return metrics


def write_manifest(
    folder: Path, config: Settings, figures: dict[str, Any] | None, gsd_m: float | None = GSD_M
) -> None:
    """model.yaml: what the services need to know of the graph, and the main figures.

    Args:
        gsd_m: at which crowns have 60 px; None: not known.
    """
    graph: dict[str, Any] = {
        "decoder": {
            "name": "centerpoint",
            "params": {"stride": STRIDE, "peaks_suppressed": True},
        },
        "classes": ["palm"],
        "bands": [1, 2, 3],
        "input": {"size": WINDOW, "layout": "NHWC", "dtype": "uint8", "name": "image"},
        # the graph takes 0…255 as it comes
        "normalization": {"scale": 1.0, "mean": [0.0], "std": [1.0]},
        "gsd_m": gsd_m,
        # a size at gsd_m
        "object_px": None if gsd_m is None else CROWN_PX,
        "margin": MARGIN,
        "thresholds": {
            "score": _UNJUDGED if figures is None else figures["threshold"],
            "nms_iou": NMS_IOU,
            "merge_iou": NMS_IOU,
        },
        "max_detections": 1000,
    }
    metrics = {} if figures is None else metrics_of(figures)
    card.write_manifest(folder, config, "detection", graph, metrics)


def write_card(
    folder: Path, config: Settings, figures: dict[str, Any] | None, gsd_m: float | None = GSD_M
) -> None:
    """MODEL_CARD.md: its figures."""
    scale = "" if gsd_m is None else f" of about {gsd_m:g} m a pixel"
    words = (
        f"Finds palms in aerial RGB{scale} and boxes their crowns. Trained by "
        f"`frond train palm`: {config.steps} steps at most, seed {config.seed}."
    )
    card.write_card(folder, config, words, "" if figures is None else _tables(figures))


def _key(name: str) -> str:
    # MLflow takes no other signs
    return re.sub(r"[^\w.-]+", "_", name)


def _tables(figures: dict[str, Any]) -> str:
    names = ("f1", "precision", "recall", "count_error", "ap50")
    lines = [
        "",
        f"At the shipped threshold, {figures['threshold']}, chosen on the validation parts and",
        "palm-free imagery together:",
        "",
        "| imagery | centre F1 | precision | recall | count error | AP50 |",
        "| --- | --- | --- | --- | --- | --- |",
    ]

    def row(name: str, values: dict[str, float]) -> str:
        cells = [f"{values[n]:+.1%}" if n == "count_error" else f"{values[n]:.3f}" for n in names]
        return f"| {name} | {' | '.join(cells)} |"

    for group in (
        "palms",
        "palms, boxes not cut off",
        "palms, 35 px border",
        "palms, edge crowns counted",
    ):
        suffix = group.removeprefix("palms")
        lines += [row(name + suffix, values) for name, values in figures[group].items()]
    spaced = figures.get("palms, by spacing", {})
    lines += [row(f"{name}, scale and crowns by spacing", v) for name, v in spaced.items()]
    lines += [row(f"{name} (scale off)", v) for name, v in figures.get("scale off", {}).items()]
    drawn = figures["drawn scenes"]
    lines += [
        row("drawn scenes", drawn),
        "",
        f"Mean F1 over the drawn scenes: {drawn['mean_f1']:.3f}, lowest {drawn['lowest_f1']:.3f}.",
    ]
    if (raw := figures.get("ap50, 12aj as labelled")) is not None:
        lines += [
            "12aj's boxes, which stop at about four fifths of the fronds' reach, are enlarged by 1.25",
            f"before AP50 is taken; left as labelled it is {raw:.3f}.",
        ]
    lines += [
        "",
        "| palm-free imagery | false finds a megapixel |",
        "| --- | --- |",
    ]
    free = {**figures["false per megapixel"], **figures.get("false per megapixel, test", {})}
    lines += [f"| {name} | {value:.2f} |" for name, value in free.items()]
    return "\n".join([*lines, ""])
