"""What a person and a service read of the model: MODEL_CARD.md's figures and model.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from palm_data import GSD_M

STRIDE, WINDOW, MARGIN, NMS_IOU = 4, 512, 64, 0.4
BEGIN, END = "<!-- figures: written by training/palm_eval.py -->", "<!-- /figures -->"
LICENCE = "CC-BY-4.0"
TRAINING_DATA = (
    "Oil palm tree R2 (Roboflow esqbs, CC BY 4.0); oil-palm-tree-gjjx1 (Roboflow, Universitas "
    "Lampung, CC BY 4.0: gub, blok13m, asli, misc, tonga_coconut); final-project-zq2sz "
    "(Roboflow e-yzfwp, CC0, machine-labelled); palm-free: fAIr Banepa (OpenAerialMap, CC BY "
    "4.0), Dubai semantic segmentation (Humans in the Loop, CC0), urban trees California "
    "(Ventura et al. 2024, CC BY 4.0); 12 % drawn scenes. See MODEL_CARD.md."
)


def write_manifest(folder: Path, figures: dict[str, Any], version: str) -> None:
    """model.yaml: what the services need to know of the graph, and the main figures."""
    metrics = {}
    for name, values in figures["palms"].items():
        key = name.replace("/", "_")
        metrics |= {f"f1_{key}": values["f1"], f"ap50_{key}": values["ap50"]}
    metrics["f1_drawn_scenes"] = figures["drawn scenes"]["mean_f1"]
    for name, value in figures["false per megapixel"].items():
        metrics["false_per_mp_" + name.replace(",", "").replace(" ", "_")] = value
    manifest = {
        "name": "palm-detector",
        "version": version,
        "task": "detection",
        "description": "Oil and coconut palms in aerial RGB of about 0.14 m; boxes of the crown.",
        "decoder": {
            "name": "centerpoint",
            "params": {"stride": STRIDE, "peaks_suppressed": True},
        },
        "classes": ["palm"],
        "bands": [1, 2, 3],
        "input": {"size": WINDOW, "layout": "NHWC", "dtype": "uint8", "name": "image"},
        # the graph takes 0…255 as it comes
        "normalization": {"scale": 1.0, "mean": [0.0], "std": [1.0]},
        "gsd_m": GSD_M,
        "margin": MARGIN,
        "thresholds": {
            "score": figures["threshold"],
            "nms_iou": NMS_IOU,
            "merge_iou": NMS_IOU,
        },
        "max_detections": 1000,
        "licence": LICENCE,
        "metrics": metrics,
        "training_data": TRAINING_DATA,
    }
    text = yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True, width=96)
    (folder / "model.yaml").write_text(text, encoding="utf-8")


def write_card(folder: Path, figures: dict[str, Any]) -> None:
    """Put the figures between the card's two marks; the words around them stay."""
    path = folder / "MODEL_CARD.md"
    text = path.read_text(encoding="utf-8") if path.exists() else f"{BEGIN}\n{END}\n"
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    path.write_text(f"{head}{BEGIN}\n{_tables(figures)}\n{END}{tail}", encoding="utf-8")


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

    for group in ("palms", "palms, 35 px border", "palms, edge crowns counted"):
        suffix = group.removeprefix("palms")
        lines += [row(name + suffix, values) for name, values in figures[group].items()]
    lines += [row(f"{name} (scale off)", v) for name, v in figures.get("scale off", {}).items()]
    drawn = figures["drawn scenes"]
    raw = figures["ap50, 12aj as labelled"]
    lines += [
        row("drawn scenes", drawn),
        "",
        f"Mean F1 over the drawn scenes: {drawn['mean_f1']:.3f}, lowest {drawn['lowest_f1']:.3f}.",
        "12aj's boxes, which stop at about four fifths of the fronds' reach, are enlarged by 1.25",
        f"before AP50 is taken; left as labelled it is {raw:.3f}.",
        "",
        "| palm-free imagery | false finds a megapixel |",
        "| --- | --- |",
    ]
    free = {**figures["false per megapixel"], **figures.get("false per megapixel, test", {})}
    lines += [f"| {name} | {value:.2f} |" for name, value in free.items()]
    if "milliseconds a window" in figures:
        ms = figures["milliseconds a window"]
        lines += [
            "",
            f"Time: {ms:.1f} ms for a 512² window at best, ONNX Runtime, two threads of a CPU.",
        ]
    return "\n".join([*lines, ""])
