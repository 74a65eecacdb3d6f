"""What all artifact writers share: their input, their sinks, JSON text.

A writer takes a job's images one after the other, in the order of (name, image id), and holds one
slice of one image at a time.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from types import TracebackType
from typing import Any, Final, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt

from frond.contracts.jobs import Contract, ImageOutcome, ImageStatus, ModelRef, Thresholds
from frond.contracts.modelspec import ModelManifest
from frond.contracts.plan import ImagePlan
from frond.contracts.provenance import GENERATOR
from frond.masks.table import Polygons
from frond.merge import Detections
from frond.merge.table import SCORE_STEPS

SLICE: Final = 16_384
"""Detections formatted at a time."""

SLICE_POINTS: Final = 262_144
"""Points of regions formatted at a time, or one region."""

COG_TYPE: Final = "image/tiff; application=geotiff; profile=cloud-optimized"


class Part(NamedTuple):
    """Neighbouring detections of an image.

    Attributes:
        first: the number (from 1) of the first.
        regions: the same rows as regions; None where the model finds boxes.
    """

    first: int
    detections: Detections
    regions: Polygons | None


@dataclass(frozen=True)
class ImageResult:
    """One image, as the writers see it.

    Attributes:
        outcome: how it ended.
        plan: None where it was rejected before it had one.
        detections: merged, in their total order; none where the image failed.
        polygons: the detections as regions, row by row; None where the model finds boxes.
    """

    outcome: ImageOutcome
    plan: ImagePlan | None = None
    detections: Detections = field(default_factory=Detections.empty)
    polygons: Polygons | None = None

    @property
    def completed(self) -> bool:
        return self.outcome.status is ImageStatus.COMPLETED

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in raster pixels; (0, 0) if it was never read."""
        if self.plan is not None:
            return self.plan.source.width, self.plan.source.height
        return self.outcome.width, self.outcome.height

    @cached_property
    def traced(self) -> dict[str, str | None]:
        """What came in, and what was done with it: the same members wherever a file tells of an image."""
        plan_digest = self.plan.plan_digest if self.plan is not None else None
        return {"image_checksum": self.outcome.checksum, "plan_digest": plan_digest}

    def slices(self) -> Iterator[Part]:
        """The detections in parts of at most ``SLICE``."""
        regions, start = self.polygons, 0
        while start < len(self.detections):
            stop = min(start + SLICE, len(self.detections))
            if regions is not None:
                points = regions.rings[regions.polygons]
                reach = np.searchsorted(points, points[start] + SLICE_POINTS, side="right") - 1
                stop = min(stop, max(start + 1, int(reach)))
            rows = slice(start, stop)
            taken = regions.take(rows) if regions is not None else None
            yield Part(start + 1, self.detections.take(rows), taken)
            start = stop


class Legend(Contract):
    """What of a manifest a job's finds cannot be read without: kept beside them.

    Attributes:
        task: the model's: with ``segmentation`` the finds are regions.
        classes: what their classes are called.
    """

    task: str
    classes: tuple[str, ...]


@dataclass(frozen=True)
class JobInfo:
    """What the artifacts say of the job: nothing in here may differ between two runs of it.

    Attributes:
        manifest: the model's; of a whole job its legend does, and is all that may be left.
    """

    job_id: str
    model: ModelRef | None = None
    manifest: ModelManifest | Legend | None = None
    thresholds: Thresholds = field(default_factory=Thresholds)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.manifest.classes if self.manifest else ()

    def class_name(self, index: int) -> str:
        """A class's name, also for an index that the model did not declare."""
        return self.classes[index] if 0 <= index < len(self.classes) else f"class {index}"

    def describe(self, image: ImageResult | None = None) -> dict[str, Any]:
        """The job and its model, for a file's head.

        Args:
            image: the one that the file is of: it may have no detection to tell of it.
        """
        model = self.model.model_dump() if self.model else None
        of_image = {"image_id": image.outcome.image_id, **image.traced} if image else {}
        return {"generator": GENERATOR, "job_id": self.job_id, "model": model, **of_image}


class Sink(Protocol):
    """Where bytes go."""

    def write(self, data: bytes, /) -> Any: ...


class OpenSink(Protocol):
    """Opens the sink of one file: it appears whole when the block ends, or not at all."""

    def __call__(self, name: str, media_type: str) -> AbstractContextManager[Sink]: ...


class CountingSink:
    """Passes bytes on, and knows their number and SHA-256. Enough of a file for pyarrow."""

    closed = False

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._sha = hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> str:
        return self._sha.hexdigest()

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._sink.write(bytes(view))
        self._sha.update(view)
        self.size += len(view)
        return len(view)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        """Bytes are passed on at once."""

    def close(self) -> None:
        """Whoever opened the sink closes it."""

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


class Spool:
    """Bytes that belong further down in a file: on disk once they are many."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=1 << 20)  # noqa: SIM115 (closed on exit)

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def copy_to(self, sink: Sink) -> None:
        """All that was written, in its order."""
        self._file.seek(0)
        while part := self._file.read(1 << 20):
            sink.write(part)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


class JsonList:
    """The items of a JSON list, written one after the other."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._any = False

    def add(self, items: list[str]) -> None:
        """Append items, each a JSON text."""
        if not items:
            return
        self._sink.write(encoded((",\n" if self._any else "\n") + ",\n".join(items)))
        self._any = True


def blocks(points: npt.NDArray[np.float64]) -> Iterator[npt.NDArray[np.float64]]:
    """Points [n, 2] in parts, each few enough to be held as Python numbers."""
    step = SLICE_POINTS // 4
    return (points[start : start + step] for start in range(0, len(points), step))


def text(value: Any) -> str:
    """A value's JSON text: members in their order, other scripts as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def encoded(json_text: str) -> bytes:
    """UTF-8; a lone surrogate (file names may hold some) becomes its JSON escape."""
    return json_text.encode("utf-8", "backslashreplace")


def scores_of(detections: Detections) -> npt.NDArray[np.float64]:
    """Scores as the shortest decimals: 0.9, not float32's 0.899999976."""
    return np.rint(detections.scores.astype(np.float64) * SCORE_STEPS) / SCORE_STEPS


def detection_ids(image_id: str, first: int, count: int) -> list[str]:
    """The ids by which a detection is known in every artifact: ``<image id>/<number from 1>``."""
    return [f"{image_id}/{n}" for n in range(first, first + count)]
