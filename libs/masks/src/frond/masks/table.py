"""Polygons as columns: the regions of one image's class raster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from frond.contracts.plan import WindowGrid
from frond.masks.arrow import column

SUBPIXEL: Final = 256
"""Steps a raster pixel that coordinates are rounded to."""

_ROWS_A_BATCH: Final = 65_536

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Polygons:
    """n polygons with holes, in a ragged layout; one array a column.

    Attributes:
        points: float64 [m, 2]: x, y in full-image raster pixels, multiples of 1/256; (0, 0) is the
            upper left corner of the first pixel.
        rings: int64 [r+1], offsets into ``points``. Each ring is closed: its last point is its
            first.
        polygons: int64 [n+1], offsets into ``rings``. The first ring of each is the exterior
            (clockwise as seen with y downwards), the others are holes (the other way round). The
            exterior starts at the upper left corner of the region's first pixel, by rows.
        classes: int32 [n], index into the model's classes.
        scores: float32 [n], 0…1, multiples of 10⁻⁶: the mean confidence.
        areas: float64 [n], raster pixels².
    """

    points: FloatArray
    rings: IntArray
    polygons: IntArray
    classes: npt.NDArray[np.int32]
    scores: npt.NDArray[np.float32]
    areas: FloatArray

    def __post_init__(self) -> None:
        n = len(self.classes)
        if self.points.ndim != 2 or self.points.shape[1] != 2:
            raise ValueError(f"points have shape {self.points.shape}, not (m, 2)")
        for name, offsets, into in (
            ("rings", self.rings, len(self.points)),
            ("polygons", self.polygons, len(self.rings) - 1),
        ):
            sound = offsets.ndim == 1 and len(offsets) and offsets[0] == 0 and offsets[-1] == into
            if not sound:
                raise ValueError(f"the offsets of {name} do not reach from 0 to {into}")
        if len(self.polygons) != n + 1 or self.scores.shape != (n,) or self.areas.shape != (n,):
            raise ValueError(f"columns are not of {n} rows")

    def __len__(self) -> int:
        return len(self.classes)

    @classmethod
    def empty(cls) -> Polygons:
        """No polygon."""
        return cls(
            points=np.empty((0, 2)),
            rings=np.zeros(1, np.int64),
            polygons=np.zeros(1, np.int64),
            classes=np.empty(0, np.int32),
            scores=np.empty(0, np.float32),
            areas=np.empty(0),
        )

    @property
    def boxes(self) -> FloatArray:
        """float64 [n, 4]: x0, y0, x1, y1 of each."""
        if not len(self):
            return np.empty((0, 4))
        # holes lie inside, and the rings of one polygon one after the other
        starts = self.rings[self.polygons[:-1]]
        return np.concatenate(
            [np.minimum.reduceat(self.points, starts), np.maximum.reduceat(self.points, starts)],
            axis=1,
        )

    def exterior(self, n: int) -> FloatArray:
        """The n-th polygon's exterior, closed."""
        return self.ring(int(self.polygons[n]))

    def holes(self, n: int) -> list[FloatArray]:
        """The n-th polygon's holes, each closed."""
        return [self.ring(r) for r in range(int(self.polygons[n]) + 1, int(self.polygons[n + 1]))]

    def ring(self, r: int) -> FloatArray:
        """One ring's points, closed."""
        return self.points[self.rings[r] : self.rings[r + 1]]

    @property
    def has_holes(self) -> npt.NDArray[np.bool_]:
        """Which polygons have a hole."""
        return np.diff(self.polygons) > 1

    def windows(self, grid: WindowGrid) -> IntArray:
        """int64 [n]: the window whose core holds each region's first pixel, by rows."""
        first = self.points[self.rings[self.polygons[:-1]]] * grid.scale
        # the middle of the pixel: its corner may be off by the rounding to the lattice
        col = _place(first[:, 0] + 0.5, grid.cols, grid.width, grid)
        row = _place(first[:, 1] + 0.5, grid.rows, grid.height, grid)
        return row * grid.cols + col

    def where(self, keep: npt.NDArray[np.bool_]) -> Polygons:
        """Those rows; the points are copied unless it is all of them."""
        if keep.all():
            return self
        rings, points = np.diff(self.polygons), np.diff(self.rings)
        of_rings = np.repeat(keep, rings)
        return Polygons(
            points=self.points[np.repeat(of_rings, points)],
            rings=np.append(0, np.cumsum(points[of_rings])),
            polygons=np.append(0, np.cumsum(rings[keep])),
            classes=self.classes[keep],
            scores=self.scores[keep],
            areas=self.areas[keep],
        )

    def take(self, which: slice) -> Polygons:
        """Consecutive rows; the points are not copied."""
        start, stop, step = which.indices(len(self))
        if step != 1:
            raise ValueError("rows are taken one after the other")
        stop = max(start, stop)
        polygons = self.polygons[start : stop + 1]
        rings = self.rings[polygons[0] : polygons[-1] + 1]
        return Polygons(
            points=self.points[rings[0] : rings[-1]],
            rings=rings - rings[0],
            polygons=polygons - polygons[0],
            classes=self.classes[start:stop],
            scores=self.scores[start:stop],
            areas=self.areas[start:stop],
        )


def _place(at: FloatArray, count: int, length: int, grid: WindowGrid) -> IntArray:
    if length <= grid.size:
        return np.zeros(len(at), np.int64)
    found = np.floor((at - grid.margin) / grid.stride)
    return np.clip(found, 0, count - 1).astype(np.int64)


_POINT: Final = pa.list_(pa.field("xy", pa.float64(), nullable=False), 2)
_RING: Final = pa.large_list(pa.field("points", _POINT, nullable=False))
_SHAPE: Final = pa.large_list(pa.field("rings", _RING, nullable=False))
_FIELDS: Final = (
    ("geometry", _SHAPE), ("class", pa.int32()), ("score", pa.float32()), ("area", pa.float64()),
)  # fmt: skip


def to_ipc(polygons: Polygons, about: Mapping[str, str] | None = None) -> bytes:
    """An Arrow IPC file (zstd) of the rows as they stand; the same rows give the same bytes."""
    sink = pa.BufferOutputStream()
    write(sink, [polygons], about)
    return bytes(sink.getvalue().to_pybytes())


def write(sink: Any, parts: Iterable[Polygons], about: Mapping[str, str] | None = None) -> int:
    """The same into an open Arrow stream, some rows at a time; returns how many there were."""
    written = 0
    schema = pa.schema(
        [pa.field(name, kind, nullable=False) for name, kind in _FIELDS],
        metadata={k: str(v) for k, v in sorted((about or {}).items())},
    )
    options = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
    with pa.ipc.new_file(sink, schema, options=options) as writer:
        for polygons in parts:
            for start in range(0, len(polygons), _ROWS_A_BATCH):
                rows = polygons.take(slice(start, start + _ROWS_A_BATCH))
                writer.write_batch(_batch(rows, schema))
            written += len(polygons)
    return written


def _batch(rows: Polygons, schema: Any) -> Any:
    points = pa.FixedSizeListArray.from_arrays(
        column(rows.points.reshape(-1), pa.float64()), type=_POINT
    )
    rings = pa.LargeListArray.from_arrays(column(rows.rings, pa.int64()), points, type=_RING)
    shapes = pa.LargeListArray.from_arrays(column(rows.polygons, pa.int64()), rings, type=_SHAPE)
    columns = [
        column(rows.classes, pa.int32()),
        column(rows.scores, pa.float32()),
        column(rows.areas, pa.float64()),
    ]
    return pa.record_batch([shapes, *columns], schema=schema)


def from_ipc(data: bytes | memoryview) -> tuple[Polygons, dict[str, str]]:
    """What :func:`to_ipc` wrote, and what it says of itself. Raises ValueError for anything else."""
    try:
        with pa.ipc.open_file(pa.BufferReader(data)) as reader:
            schema = reader.schema
            table = reader.read_all()
            # what is not sound here would be read past its end below
            table.validate(full=True)
        if [(f.name, f.type) for f in schema] != list(_FIELDS):
            raise ValueError(f"an Arrow file, but not of polygons: {schema.names}")
        about = {k.decode(): v.decode() for k, v in (schema.metadata or {}).items()}
        polygons = _rows(table)
    except (pa.ArrowException, MemoryError, OSError, UnicodeDecodeError) as e:
        raise ValueError(f"no Arrow file of polygons: {e}") from e
    return polygons, about


def _rows(table: Any) -> Polygons:
    shapes = table["geometry"].combine_chunks()
    rings = shapes.flatten()
    points = rings.flatten()
    values = points.flatten()
    columns = [table[k] for k in ("class", "score", "area")]
    if any(c.null_count for c in (shapes, rings, points, values, *columns)):
        raise ValueError("an Arrow file of polygons, some of whose values are not there")
    found = Polygons(
        points=values.to_numpy().reshape(-1, 2),
        rings=_offsets(rings),
        polygons=_offsets(shapes),
        classes=columns[0].to_numpy(),
        scores=columns[1].to_numpy(),
        areas=columns[2].to_numpy(),
    )
    if len(found) and (np.diff(found.polygons).min() < 1 or np.diff(found.rings).min() < 4):
        raise ValueError("an Arrow file of polygons, one of which has no ring, or too short a one")
    if not all(np.isfinite(c).all() for c in (found.points, found.scores, found.areas)):
        raise ValueError("an Arrow file of polygons, some of whose places are no numbers")
    if (found.points[found.rings[:-1]] != found.points[found.rings[1:] - 1]).any():
        raise ValueError("an Arrow file of polygons, one of whose rings is not closed")
    return found


def _offsets(lists: Any) -> IntArray:
    # an array without rows may come without offsets
    if not len(lists):
        return np.zeros(1, np.int64)
    offsets = lists.offsets.to_numpy()
    return np.asarray(offsets - offsets[0], np.int64)
