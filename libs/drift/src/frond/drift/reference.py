"""What a model's training data looks like, from its images: run as a job would run them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from frond.contracts.drift import MOST_BANDS, PARTS
from frond.contracts.errors import ModelRejected, RasterRejected
from frond.contracts.ids import image_id
from frond.contracts.jobs import ModelRef
from frond.contracts.modelspec import ModelManifest, Reference
from frond.contracts.reasons import Reason
from frond.drift.sampling import Look, floor_of, place
from frond.drift.tally import Tally
from frond.models import folder_digest
from frond.models.session import ModelSession
from frond.raster import (
    PlanRequest,
    RasterReader,
    chunks_of,
    configure_formats,
    inspect,
    open_raster,
    plan_image,
)

SUFFIXES: Final = frozenset({".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2", ".vrt"})
OnImage = Callable[[int, int], None]
"""Told how many images are done, of how many."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Attributes:
    left_out: images that no job would take, and why.
    """

    reference: Reference
    left_out: tuple[tuple[Path, str], ...]


def images_in(places: Iterable[Path]) -> list[Path]:
    """The rasters among files and folders, each once, in order of their names.

    Raises:
        FileNotFoundError: there is no such file or folder.
    """
    found: set[Path] = set()
    for one in places:
        if one.is_dir():
            found |= {p for p in one.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()}
        elif one.is_file():
            found.add(one)
        else:
            raise FileNotFoundError(2, "There is no such file or folder", str(one))
    return sorted(found)


def measure(
    folder: Path,
    images: Sequence[Path],
    *,
    share: float = 1.0,
    threads: int = 0,
    gsd_m: float | None = None,
    on_image: OnImage | None = None,
) -> Measured:
    """The reference of a model folder over these images; the same images give the same one.

    Args:
        share: of the windows, how many are run.
        threads: of one run; 0: one for each core.
        gsd_m: ground metres a pixel of all images, in place of what they say; None: as a job, which
            estimates it where an image says none.

    Raises:
        ModelRejected: the model cannot be run, or not one image has a window to run.
    """
    configure_formats()
    session = ModelSession(folder, threads=threads)
    manifest = session.manifest
    if len(manifest.bands) > MOST_BANDS:
        raise ModelRejected(
            Reason.BAD_MODEL,
            f"Drift looks at {MOST_BANDS} bands at most; {manifest.name} takes {len(manifest.bands)}.",
        )
    ref = ModelRef(name=manifest.name, digest=folder_digest(folder))
    total, used, left_out = Tally.empty(len(manifest.bands)), 0, []
    for done, path in enumerate(images):
        try:
            seen = _image(session, ref, path, str(done), share, gsd_m)
        except RasterRejected as e:
            left_out.append((path, e.detail))
        else:
            total += seen
            used += bool(seen.windows)
        if on_image is not None:
            on_image(done + 1, len(images))
    if not total.pixels:
        why = f" {left_out[0][0]}: {left_out[0][1]}" if left_out else ""
        raise ModelRejected(
            Reason.BAD_MODEL, f"None of {len(images)} images has a window with data.{why}"
        )
    return Measured(reference_of(total, used, manifest), tuple(left_out))


def reference_of(tally: Tally, images: int, manifest: ModelManifest) -> Reference:
    """A tally as a manifest holds it."""
    found = int(tally.scores.sum())
    return Reference(
        images=images,
        windows=tally.windows,
        pixels=tally.pixels,
        found=found,
        score=floor_of(manifest),
        bands=tuple(parts(counts.tolist()) for counts in tally.bands),
        scores=parts(tally.scores.tolist()) if found else (),
        windows_with_finds=None if manifest.task == "segmentation" else tally.with_finds,
    )


def parts(counts: Sequence[int], whole: int = PARTS) -> tuple[int, ...]:
    """Counts as parts of a million that add up to one, each less than one part off."""
    exact = np.asarray(counts, np.float64) * (whole / sum(counts))
    told = np.floor(exact).astype(np.int64)
    # the largest remainders make up the sum; of equal ones the first
    order = np.argsort(told - exact, kind="stable")
    told[order[: whole - int(told.sum())]] += 1
    return tuple(told.tolist())


def _image(
    session: ModelSession, ref: ModelRef, path: Path, name: str, share: float, gsd_m: float | None
) -> Tally:
    manifest, own = session.manifest, image_id("reference", name)
    size = path.stat().st_size
    with open_raster(str(path), size=size) as dataset:
        request = PlanRequest(
            job_id="reference", image_id=own, image=path.name, name=path.name, uri=str(path),
            etag="", size=size, model=ref, manifest=manifest, gsd_m=gsd_m,
        )  # fmt: skip
        plan = plan_image(dataset, inspect(dataset, size), request, session)
    total = Tally.empty(len(manifest.bands))
    with RasterReader(plan.source, plan.grid, layout=session.layout) as reader:
        for chunk in chunks_of(plan):
            indices = tuple(i for i in chunk.windows if place(own, i).rank < share)
            if not indices:
                continue
            windows = reader.read_block(indices)
            look = Look(own, indices, share, floor_of(manifest))
            for first in range(0, len(windows), session.batch):
                batch = windows[first : first + session.batch]
                outputs = session.run([w.data for w in batch])
                for n, result in enumerate(session.decode(outputs, manifest.thresholds)):
                    look.saw(first + n, result)
            total += look.tally(windows, session.layout, len(manifest.bands))
    return total
