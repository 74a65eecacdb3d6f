"""Records what graphs of each family give, and what their packages' own post-processing makes of it.

    pip install torch torchvision ultralytics transformers onnx onnxruntime pandas seaborn
    pip install --no-deps yolov5==7.0.14
    python libs/models/tests/parity/record.py [NAME …]

writes ``fixtures/NAME.npz``; ``test_models_parity.py`` holds the decoders against them. These
packages are no dependencies of Frond, their licences and sizes forbid it: what is kept is numbers
of random weights, and no code of theirs.

Weights are seeded. Batch normalisation is settled on drawn images, and the last layer of each head
scaled so that its outputs have a stated mean and spread there (transformers' weights drawn wider as
well): untouched random heads give equal scores everywhere. All else is the package's: model,
export, post-processing. Of boxes two things are kept: ``rows``, what the post-processing makes of
the exported graph's outputs, and ``torch``, what the package gives without any graph.

A fixture holds ``graph/OUTPUT``, ``want0/…`` and ``want1/…`` for each pair of thresholds, and
``about``: decoder, parameters, thresholds, versions, and whose post-processing it was.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ |= {"YOLO_AUTOINSTALL": "false", "YOLOv5_AUTOINSTALL": "false", "YOLO_OFFLINE": "true"}

import boxes
import maps
import numpy as np

FIXTURES = Path(__file__).parent / "fixtures"
_LARGEST = 150_000


@dataclass(frozen=True)
class Recording:
    """What a family's maker gives.

    Attributes:
        graph: the exported graph's outputs by name.
        says: decoder, params, size, classes, whose post-processing it was.
        cases: thresholds, and what the package makes of it at these.
        packages: whose versions are noted.
    """

    graph: dict[str, np.ndarray]
    says: dict[str, Any]
    cases: Sequence[tuple[dict[str, Any], dict[str, np.ndarray]]]
    packages: tuple[str, ...]


def keep(name: str, made: Recording) -> str:
    """Write the fixture; what is in it, for people."""
    arrays: dict[str, Any] = {f"graph/{k}": v for k, v in made.graph.items()}
    thresholds = []
    for n, (at, want) in enumerate(made.cases):
        thresholds.append(at)
        arrays |= {f"want{n}/{k}": v for k, v in want.items()}
    packages = ("torch", "onnxruntime", *made.packages)
    about = made.says | {
        "cases": thresholds,
        "versions": {p: version(p) for p in packages},
    }
    path = FIXTURES / f"{name}.npz"
    np.savez_compressed(path, about=np.array(json.dumps(about)), **arrays)
    size = path.stat().st_size
    if size > _LARGEST:
        raise SystemExit(f"{path} has {size} bytes, more than {_LARGEST}")
    shapes = {k: v.shape for k, v in arrays.items()}
    return f"{name}: {size} bytes, {about['versions']}, {shapes}"


MAKERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "yolov5": boxes.yolov5,
    "yolov8": lambda folder: boxes.yolo("yolov8n.yaml"),
    "yolo11": lambda folder: boxes.yolo("yolo11n.yaml"),
    "yolov8-nms": lambda folder: boxes.yolo("yolov8n.yaml", in_graph=True),
    "yolov10": lambda folder: boxes.yolo("yolov10n.yaml"),
    "yolo26": lambda folder: boxes.yolo("yolo26n.yaml"),
    "rtdetr-ultralytics": boxes.rtdetr_ultralytics,
    "detr": boxes.detr,
    "rtdetr": boxes.rtdetr,
    "fasterrcnn": lambda folder: boxes.torchvision_detector(folder, "fasterrcnn"),
    "retinanet": lambda folder: boxes.torchvision_detector(folder, "retinanet"),
    "centernet": maps.centernet,
    "palm": maps.palm,
    "lraspp": maps.lraspp,
    "segformer": maps.segformer,
    "mobilenet": maps.mobilenet,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MAKERS))
    FIXTURES.mkdir(exist_ok=True)
    for name in parser.parse_args().names or MAKERS:
        with tempfile.TemporaryDirectory() as scratch:
            here = Path.cwd()
            os.chdir(scratch)  # Ultralytics writes its graphs beside it
            try:
                sys.stdout.write(keep(name, Recording(**MAKERS[name](Path(scratch)))) + "\n")
            finally:
                os.chdir(here)


if __name__ == "__main__":
    main()
