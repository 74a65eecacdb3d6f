"""The palm detector through all of Frond's services: GeoTIFFs in, COCO out, judged as its card is.

``python -m frond.training.palm.pipeline PREPARED [--model REF]`` sends the validation tiles to the
service that ``FROND_API_URL`` and ``FROND_API_KEY`` lead to, as any client's are.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin

from frond.client import Client
from frond.training.palm.data import GSD_M, Part, load
from frond.training.palm.detect import Array
from frond.training.palm.evaluate import BORDER, WIDE_BORDER, judged


def measure(
    client: Client, part: Part, folder: Path, model: str | None = None, gsd_m: float = GSD_M
) -> list[Array]:
    """What a job finds in a part's tiles, in their order: [n, 5] x0 y0 x1 y1 score, best first."""
    names = [f"{n:05d}.tif" for n in range(len(part.tiles))]
    for name, tile in zip(names, part.tiles, strict=True):
        height, width = tile.pixels.shape[:2]
        with rasterio.open(
            folder / name, "w", driver="GTiff", width=width, height=height, count=3,
            dtype="uint8", photometric="RGB", compress="deflate", crs="EPSG:32650",
            transform=from_origin(500_000, 100_000, gsd_m, gsd_m),
        ) as out:  # fmt: skip
            out.write(np.moveaxis(tile.pixels, -1, 0))
    job = client.upload([folder / name for name in names], model=model)
    client.wait(job)
    told = json.loads(client.download(job, "coco.json", folder / "coco.json").read_bytes())
    return found_in(told, names)


def found_in(coco: Mapping[str, Any], names: Sequence[str]) -> list[Array]:
    """Each image's boxes from a results file, best first; KeyError for an image that it lacks."""
    rows: dict[int, list[list[float]]] = {image["id"]: [] for image in coco["images"]}
    ids = {Path(image["file_name"]).name: image["id"] for image in coco["images"]}
    for a in coco["annotations"]:
        x, y, width, height = a["bbox"]
        rows[a["image_id"]].append([x, y, x + width, y + height, a["score"]])
    every = [np.array(rows[ids[name]], float).reshape(-1, 5) for name in names]
    return [found[np.argsort(-found[:, 4], kind="stable")] for found in every]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prepared", type=Path, help="the folder prepared of a training run")
    parser.add_argument("--model", help="NAME, NAME@ALIAS or NAME@DIGEST; else the service's own")
    parser.add_argument("--gsd", type=float, default=GSD_M, help="what the model declares")
    asked = parser.parse_args()
    print("| imagery | border | centre F1 | precision | recall | count error |")
    print("| --- | --- | --- | --- | --- | --- |")
    for part in load(asked.prepared, "val"):
        with tempfile.TemporaryDirectory(prefix="frond-pipeline-") as name, Client() as client:
            found = measure(client, part, Path(name), asked.model, asked.gsd)
        for border in (BORDER, WIDE_BORDER):
            # a job leaves out what is below the threshold
            told = judged(part, found, 0.0, border)
            cells = [f"{told[k]:.3f}" for k in ("f1", "precision", "recall")]
            line = " | ".join([part.name, f"{border} px", *cells, f"{told['count_error']:+.1%}"])
            print(f"| {line} |")


if __name__ == "__main__":
    main()
