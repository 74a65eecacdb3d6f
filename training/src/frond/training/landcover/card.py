"""What a person and a service read of the model: MODEL_CARD.md's figures and model.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from frond.training import card
from frond.training.landcover.config import (
    BACKGROUND,
    CLASSES,
    INPUT,
    MARGIN,
    WINDOW,
    Settings,
)
from frond.training.landcover.data import GSD_M

_UNJUDGED: Final = 0.4
_MIN_AREA: Final = 32
"""Square metres: less is no house, and the labels hold little of it."""


def metrics_of(figures: dict[str, Any]) -> dict[str, float]:
    """The main figures, by names that fit a manifest and a tracker."""
    metrics: dict[str, float] = {}
    for name, told in figures["scenes"].items():
        for figure in ("iou", "dice"):
            metrics[f"{figure}_{name}"] = told["overall"][figure]
            metrics |= {f"{figure}_{c}_{name}": v[figure] for c, v in told["classes"].items()}
    # of a class that a scene has not, nothing can be said
    return {name: value for name, value in metrics.items() if value is not None}


def write_manifest(folder: Path, config: Settings, figures: dict[str, Any] | None) -> None:
    """model.yaml: what the services need to know of the graph, and the main figures."""
    graph: dict[str, Any] = {
        "decoder": {
            "name": "semantic",
            "params": {"background": BACKGROUND, "min_area": _MIN_AREA},
        },
        "classes": list(CLASSES),
        "bands": [1, 2, 3],
        "input": {"size": WINDOW, "layout": "NHWC", "dtype": "uint8", "name": INPUT},
        # the graph takes 0…255 as it comes
        "normalization": {"scale": 1.0, "mean": [0.0], "std": [1.0]},
        "gsd_m": GSD_M,
        "margin": MARGIN,
        "thresholds": {"score": _UNJUDGED if figures is None else figures["threshold"]},
    }
    metrics = {} if figures is None else metrics_of(figures)
    card.write_manifest(folder, config, "segmentation", graph, metrics)


def write_card(folder: Path, config: Settings, figures: dict[str, Any] | None) -> None:
    """MODEL_CARD.md: its figures."""
    words = (
        f"{config.description} Trained by `frond train landcover`: {config.architecture}, "
        f"{config.steps} steps at most, seed {config.seed}."
    )
    card.write_card(folder, config, words, "" if figures is None else tables(config, figures))


def tables(config: Settings, figures: dict[str, Any]) -> str:
    """The figures by scene and class, as Markdown."""
    chosen = "validation scenes alone chose" if config.validation else "nothing chose"
    lines = [
        "",
        f"At the shipped threshold, {figures['threshold']:g}, which {chosen}.",
        "",
        f"| scene | figure | {' | '.join(CLASSES)} | mean | pixels right |",
        f"| --- | --- |{' --- |' * (len(CLASSES) + 2)}",
    ]
    parts = config.parts
    for name, told in figures["scenes"].items():
        lines += _rows(f"{name} ({parts.get(name, 'scale off')})", told)
    for name, told in figures["scale off"].items():
        lines += _rows(f"{name} (scale off)", told)
    for name, told in figures["scenes"].items():
        confusion = told["confusion"]
        lines += [
            "",
            f"Where the pixels of {name} go, in per cent of each label's:",
            "",
            f"| labelled | {' | '.join(confusion['names'])} |",
            f"| --- |{' --- |' * len(confusion['names'])}",
        ]
        for label, counts in zip(confusion["names"], confusion["labels_by_finds"], strict=True):
            whole = sum(counts)
            cells = [f"{100 * n / whole:.1f}" if whole else "-" for n in counts]
            lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _rows(name: str, told: dict[str, Any]) -> list[str]:
    rows = []
    for figure, words in (("iou", "IoU"), ("dice", "Dice")):
        values = [told["classes"][c][figure] for c in CLASSES] + [told["overall"][figure]]
        cells = [f"{v:.3f}" if v is not None else "-" for v in values]
        right = f"{told['overall']['pixel_accuracy']:.3f}" if figure == "iou" else ""
        rows.append(f"| {name} | {words} | {' | '.join(cells)} | {right} |")
    return rows
