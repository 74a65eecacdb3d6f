"""What the training data looked like, into the manifest: what drift is measured against."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from frond.drift.manifest import write_reference
from frond.drift.reference import measure
from frond.models import load_manifest


def refer(folder: Path, images: Iterable[NDArray[Any]]) -> None:
    """Run a model folder over training images, uint8 [h, w, 3] at its own scale.

    As ``frond models reference`` would; ``model.yaml`` then holds their histograms.

    Raises:
        ModelRejected: the model cannot be run, or there is nothing in the images.
    """
    with tempfile.TemporaryDirectory(prefix="frond-training-") as name:
        paths = []
        for n, pixels in enumerate(images):
            paths.append(Path(name) / f"{n:06d}.png")
            Image.fromarray(np.ascontiguousarray(pixels)).save(paths[-1], compress_level=1)
        # they lie at the model's scale, which must not be estimated
        gsd_m = load_manifest(folder).gsd_m
        write_reference(folder, measure(folder, paths, threads=1, gsd_m=gsd_m).reference)
