"""How well the scale of an image is estimated that does not say it, and what that is worth.

``python -m frond.training.palm.scales PREPARED MODEL`` writes tables for the model's card: each
validation tile is written without a georeference at several scales, and read as a job would read it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from frond.evaluation import Labels
from frond.evaluation.dataset import LabelledImage
from frond.evaluation.predict import Predictor
from frond.training.palm.data import GSD_M, Part, load, rescaled
from frond.training.palm.detect import Array
from frond.training.palm.evaluate import BORDER, Outline, judged_in

SCALES: Final = (0.5, 0.7, 1.0, 1.4, 2.0)
_NO_LABELS: Final = Labels(np.zeros((0, 4)), np.zeros(0, np.int32), np.zeros(0, np.bool_), ())


@dataclass(frozen=True)
class Row:
    """A part at one scale.

    Attributes:
        ratios: estimated ÷ true GSD of each image that was given an estimate.
        images: that there are.
        plain, estimated: ``judged`` at the raster's own pixels, and at the estimated scale.
    """

    name: str
    scale: float
    ratios: Sequence[float]
    images: int
    plain: dict[str, float]
    estimated: dict[str, float]


def measure(prepared: Path, model: Path, every: int = 1) -> list[Row]:
    """The validation parts at each of ``SCALES``; ``every``: nth tile alone."""
    # most tiles are one window
    estimating, plain = Predictor(model, batch=1), Predictor(model, batch=1)
    # without one of its own, nothing is estimated
    true = estimating.manifest.gsd_m or GSD_M
    plain.session.manifest = plain.manifest = plain.manifest.model_copy(update={"object_px": None})
    rows = []
    with tempfile.TemporaryDirectory(prefix="frond-scales-") as name:
        for whole in load(prepared, "val"):
            part = Part(whole.name, whole.tiles[::every], whole.weight, whole.zoom)
            for k in SCALES:
                gsds, own, told = [], [], []
                for t in rescaled(part, k):
                    found, gsd = _read(estimating, t.pixels, Path(name))
                    told.append((Outline.of(t), found))
                    own.append((Outline.of(t), _read(plain, t.pixels, Path(name))[0]))
                    gsds.append(gsd)
                bar, border = estimating.thresholds.score, round(BORDER * k)
                rows.append(
                    Row(
                        part.name,
                        k,
                        [gsd / (true / k) for gsd in gsds if gsd is not None],
                        len(told),
                        judged_in(own, bar, border),
                        judged_in(told, bar, border),
                    )
                )
    return rows


def tables(rows: Sequence[Row]) -> str:
    """In Markdown. F1's loss is against the same part at the model's own scale, told so."""
    base = {r.name: r.plain["f1"] for r in rows if r.scale == 1}
    lines = [
        "| imagery | scale | estimated | estimated ÷ true: median, least, most | F1 without | lost | F1 with | lost |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in rows:
        spread = "–"
        if r.ratios:
            middle, low, high = np.percentile(r.ratios, [50, 0, 100])
            spread = f"{middle:.2f}, {low:.2f}, {high:.2f}"
        cells = [
            f"{told['f1']:.3f} | {base[r.name] - told['f1']:+.3f}"
            for told in (r.plain, r.estimated)
        ]
        lines.append(
            f"| {r.name} | ×{r.scale:g} | {len(r.ratios)} of {r.images} | {spread} | "
            f"{' | '.join(cells)} |"
        )
    return "\n".join(lines)


def _read(predictor: Predictor, pixels: Array, folder: Path) -> tuple[Array, float | None]:
    """All finds of an image, x0 y0 x1 y1 score, and the GSD that was planned with."""
    path = folder / "tile.png"
    Image.fromarray(pixels).save(path)
    plan = predictor.plan(LabelledImage(path.name, path, None, None, _NO_LABELS))
    found = predictor.detections(plan, lambda *_: None).every
    rows: Any = np.column_stack([found.boxes, found.scores])
    return rows[np.argsort(-rows[:, 4], kind="stable")], plan.gsd_m


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prepared", type=Path, help="the folder prepared of a training run")
    parser.add_argument("model", type=Path, help="a model's folder")
    parser.add_argument("--every", type=int, default=1, help="look at every nth tile alone")
    asked = parser.parse_args()
    print(tables(measure(asked.prepared, asked.model, asked.every)))


if __name__ == "__main__":
    main()
