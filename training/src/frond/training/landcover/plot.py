"""Figures of a run as a plot for its card: ``python -m frond.training.landcover.plot FIGURES OUT``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from frond.training.landcover.config import CLASSES


def draw(told: dict[str, Any], out: Path) -> None:
    """IoU by class of every scene that was judged, and at wrong scales; the same bytes each time."""
    rows = {**told["scenes"], **told["scale off"]}
    with matplotlib.rc_context({"svg.hashsalt": "landcover", "font.size": 9}):
        figure = Figure(figsize=(7, 2.8), layout="constrained")
        axes = figure.subplots()
        wide = 0.8 / len(rows)
        for n, (name, figures) in enumerate(rows.items()):
            values = [figures["classes"][c]["iou"] or 0.0 for c in CLASSES]
            values.append(figures["overall"]["iou"] or 0.0)
            at = [k + (n - (len(rows) - 1) / 2) * wide for k in range(len(values))]
            bars = axes.bar(at, values, wide, label=name)
            axes.bar_label(bars, [f"{v:.2f}" for v in values], fontsize=6, padding=1)
        axes.set_xticks(range(len(CLASSES) + 1), [*CLASSES, "mean"])
        axes.set_ylim(0, 1)
        axes.set_ylabel("IoU")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=7, ncols=len(rows), loc="upper left")
        figure.savefig(out, format="svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("figures", type=Path, help="RUN/figures.json of frond train landcover")
    parser.add_argument("out", type=Path, help="an .svg file")
    args = parser.parse_args()
    draw(json.loads(args.figures.read_text(encoding="utf-8"))["told"], args.out)


if __name__ == "__main__":
    main()
