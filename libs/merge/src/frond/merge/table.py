"""Detections as columns: the one form in which they travel and are merged.

Coordinates are kept on a lattice of 1/256 pixel and scores on one of 10⁻⁶, so that two windows
(or two machines) that mean the same value hold the same bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from frond.contracts.plan import WindowGrid

TOUCHES_BAND: Final = 1
"""Flag: the box reaches into another window's extent, where a twin may have been found."""
CUT: Final = 2
"""Flag: the box touches an edge of its window that is not the image's edge."""

SUBPIXEL: Final = 256
"""Steps a pixel that coordinates are rounded to."""
SCORE_STEPS: Final = 1_000_000
"""Steps from 0 to 1 that scores are rounded to."""

# A predicted edge this near (scaled pixels) to the window's edge counts as touching it.
_EDGE = 2.0
# A centre may lie this share of its box's side outside the core. Two boxes with IoU ≥ 1/3 have
# centres at most (w₁ + w₂)/4 apart on each axis, so of two windows' views of one object that
# overlap that well at least one is kept, whichever way their estimates of the centre err.
_TOLERANCE = 0.25
_MIN_TOLERANCE = 2.0
# A crown that an image's edge cuts and its reflection are one object to a model, centred on the edge
# but for an error of this share of its side. So near to it a box and its own reflection have
# IoU ≥ 0.6: a model's suppression has left one of the two.
_ON_THE_EDGE = 0.125

_ROWS_A_BATCH = 65_536

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Detections:
    """n detections, one array a column.

    Attributes:
        boxes: float64 [n, 4]: x0, y0, x1, y1 in full-image raster pixels, multiples of 1/256;
            (0, 0) is the upper left corner of the first pixel.
        scores: float32 [n], 0…1, multiples of 10⁻⁶.
        classes: int32 [n], index into the model's classes.
        windows: int64 [n], index in the image's window grid.
        flags: uint8 [n], sum of ``TOUCHES_BAND`` and ``CUT``.
    """

    boxes: FloatArray
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int32]
    windows: IntArray
    flags: npt.NDArray[np.uint8]

    def __post_init__(self) -> None:
        n = len(self.scores)
        if self.boxes.shape != (n, 4):
            raise ValueError(f"boxes have shape {self.boxes.shape}, not ({n}, 4)")
        for column in (self.classes, self.windows, self.flags):
            if column.shape != (n,):
                raise ValueError(f"a column has shape {column.shape}, not ({n},)")

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def of(
        cls,
        boxes: npt.ArrayLike,
        scores: npt.ArrayLike,
        classes: npt.ArrayLike,
        windows: npt.ArrayLike = 0,
        flags: npt.ArrayLike = 0,
    ) -> Detections:
        """Columns from any arrays: converted, put on the lattice; scalars are spread over rows."""
        s = np.asarray(scores, dtype=np.float64).reshape(-1)
        n = len(s)

        def spread(value: npt.ArrayLike, dtype: Any) -> npt.NDArray[Any]:
            return np.ascontiguousarray(np.broadcast_to(np.asarray(value, dtype=dtype), (n,)))

        return cls(
            boxes=on_lattice(np.asarray(boxes, dtype=np.float64).reshape(n, 4)),
            scores=(np.rint(s * SCORE_STEPS) / SCORE_STEPS + 0.0).astype(np.float32),
            classes=spread(classes, np.int32),
            windows=spread(windows, np.int64),
            flags=spread(flags, np.uint8),
        )

    @classmethod
    def empty(cls) -> Detections:
        """No detection."""
        return cls.of(np.empty((0, 4)), np.empty(0), 0)

    @classmethod
    def concat(cls, parts: Iterable[Detections]) -> Detections:
        """All rows of all parts, in their order."""
        every = list(parts)
        if not every:
            return cls.empty()
        return cls(
            boxes=np.concatenate([p.boxes for p in every]),
            scores=np.concatenate([p.scores for p in every]),
            classes=np.concatenate([p.classes for p in every]),
            windows=np.concatenate([p.windows for p in every]),
            flags=np.concatenate([p.flags for p in every]),
        )

    def take(self, which: Any) -> Detections:
        """The rows that an index array, a boolean mask or a slice chooses."""
        if not isinstance(which, slice):
            chosen = np.asarray(which)
            is_mask = chosen.dtype == bool
            which = np.flatnonzero(chosen) if is_mask else chosen.astype(np.intp, copy=False)
        return Detections(
            # several times faster than an index where rows are picked at random
            boxes=self.boxes[which] if isinstance(which, slice) else self.boxes.take(which, axis=0),
            scores=self.scores[which],
            classes=self.classes[which],
            windows=self.windows[which],
            flags=self.flags[which],
        )

    def sorted(self) -> Detections:
        """In the total order: score descending, then class, x0, y0, x1, y1, window, flags."""
        return self.take(self.order())

    def order(self, *, once: bool = False) -> IntArray:
        """The indices that put the rows into the total order.

        ``once`` leaves out the rows that repeat another in every column.
        """
        order, like_last = self._order()
        if not once or not len(like_last):
            return order
        one, last = order[like_last], order[like_last - 1]
        repeats = (self.boxes[one] == self.boxes[last]).all(axis=1)
        for column in (self.scores, self.classes, self.windows, self.flags):
            repeats &= column[one] == column[last]
        return np.delete(order, like_last[repeats]) if repeats.any() else order

    def _order(self) -> tuple[IntArray, IntArray]:
        """The total order, and where in it a row may equal the one before."""
        n = len(self)
        key, index_bits = self._packed_key(), max(n - 1, 1).bit_length()
        if key is None:
            return np.lexsort(self._order_keys()).astype(np.int64), np.arange(1, n)
        key.sort()
        same = (key[1:] ^ key[:-1]) < 1 << index_bits
        key &= (1 << index_bits) - 1
        like_last = np.flatnonzero(same) + 1
        if len(like_last):
            # only rows that tie on the packed key pay for the full comparison
            tied = np.flatnonzero(np.r_[same, False] | np.r_[False, same])
            group = np.cumsum(~np.r_[False, same][tied])
            rows = key[tied]
            x0 = np.rint(self.boxes[rows, 0] * SUBPIXEL)
            key[tied] = rows[np.lexsort((*self.take(rows)._order_keys(), x0, group))]
        return key, like_last

    def _order_keys(self) -> tuple[npt.NDArray[Any], ...]:
        # lexsort's last key is its first criterion
        b = self.boxes
        return (
            self.flags, self.windows, b[:, 3], b[:, 2], b[:, 1], b[:, 0], self.classes,
            -self.scores,
        )  # fmt: skip

    def _packed_key(self) -> IntArray | None:
        # score, class, as much of x0 as there is room for, and the row itself, in 63 bits: sorting
        # such integers in place is several times faster than sorting indices by anything, and
        # holds one array
        if not len(self):
            return None
        key = np.rint(self.scores.astype(np.float64) * SCORE_STEPS).astype(np.int64)
        if key.min() < 0 or key.max() > SCORE_STEPS:
            return None
        x0 = self.boxes[:, 0] * SUBPIXEL
        np.rint(x0, out=x0)
        top = int(self.classes.max())
        if self.classes.min() < 0 or top >= 1 << 12 or x0.min() < 0 or x0.max() >= 1 << 30:
            return None
        index_bits = max(len(self) - 1, 1).bit_length()
        x_bits = int(x0.max()).bit_length()
        room = min(63 - SCORE_STEPS.bit_length() - top.bit_length() - index_bits, x_bits)
        np.subtract(SCORE_STEPS, key, out=key)
        key <<= top.bit_length()
        key |= self.classes
        key <<= room
        key |= x0.astype(np.int64) >> (x_bits - room)
        key <<= index_bits
        key |= np.arange(len(self))
        return key


def on_lattice(boxes: FloatArray) -> FloatArray:
    """Coordinates rounded to 1/256 pixel; never a negative zero."""
    return np.rint(boxes * SUBPIXEL) / SUBPIXEL + 0.0


def own(
    boxes: npt.ArrayLike,
    scores: npt.ArrayLike,
    classes: npt.ArrayLike,
    window: int,
    grid: WindowGrid,
    *,
    width: int | None = None,
    height: int | None = None,
) -> Detections:
    """What one window contributes to its image.

    Args:
        boxes: [n, 4] x0, y0, x1, y1 in *scaled full-image* pixels, that is in the window's own
            pixels plus ``grid.window(window)``'s (x0, y0). They are clipped to the window, in an
            image smaller than that to the image.
        scores: [n], 0…1.
        classes: [n], index into the model's classes.
        window: the window's index in the grid.
        width: the image's in raster pixels, to clip to; None takes the scaled one ÷ scale.
        height: the same.

    Returns:
        Detections in raster pixels, flagged, in the order given. Kept is what has its centre in
        the window's core, or so near to it (a quarter of the box's side, at least 2 scaled
        pixels) that the neighbour might place it on this side; the merge drops the twin. What is
        not finite, has no area, or was found in the reflection that continues a small image is
        dropped.
    """
    extent, core = grid.window(window), grid.core(window)
    b = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    s = np.asarray(scores, dtype=np.float64).reshape(-1)
    finite = np.isfinite(b).all(axis=1) & np.isfinite(s)
    b = np.where(finite[:, None], b, 0.0)
    real = finite & ~_reflected(b, grid)
    b = np.clip(
        b,
        (extent.x0, extent.y0, extent.x0, extent.y0),
        (extent.x1, extent.y1, extent.x1, extent.y1),
    )
    side = b[:, 2:] - b[:, :2]
    centre = (b[:, 2:] + b[:, :2]) / 2
    slack = np.maximum(side * _TOLERANCE, _MIN_TOLERANCE)
    near = (centre >= np.array((core.x0, core.y0)) - slack) & (
        centre < np.array((core.x1, core.y1)) + slack
    )

    cut = (
        ((b[:, 0] <= extent.x0 + _EDGE) & (extent.x0 > 0))
        | ((b[:, 1] <= extent.y0 + _EDGE) & (extent.y0 > 0))
        | ((b[:, 2] >= extent.x1 - _EDGE) & (extent.x1 < grid.width))
        | ((b[:, 3] >= extent.y1 - _EDGE) & (extent.y1 < grid.height))
    )
    raster = on_lattice(b / grid.scale)
    limit_x = float(width) if width is not None else grid.width / grid.scale
    limit_y = float(height) if height is not None else grid.height / grid.scale
    raster = np.minimum(raster, on_lattice(np.array((limit_x, limit_y, limit_x, limit_y))))

    alone = _free_of_others(window, grid)
    # rounding may move an edge by half a step on either side
    step = 1.0 / SUBPIXEL
    band = (
        (raster[:, :2] < alone[:2] / grid.scale + step)
        | (raster[:, 2:] > alone[2:] / grid.scale - step)
    ).any(axis=1)

    keep = real & near.all(axis=1) & (raster[:, 2:] > raster[:, :2]).all(axis=1)
    return Detections.of(
        raster[keep],
        np.clip(s[keep], 0.0, 1.0),
        np.asarray(classes).reshape(-1)[keep],
        window,
        (band * TOUCHES_BAND + cut * CUT)[keep],
    )


def _reflected(boxes: FloatArray, grid: WindowGrid) -> npt.NDArray[np.bool_]:
    """Which boxes, not clipped yet, are of an object's reflection beyond the image's right or lower edge.

    There is one only on an axis on which the image is smaller than a window. What covers the image
    on that axis is no reflection of anything in it.
    """
    image = np.array((grid.width, grid.height))
    low, high = boxes[:, :2], boxes[:, 2:]
    slack = np.maximum((high - low) * _ON_THE_EDGE, _MIN_TOLERANCE)
    beyond = ((low + high) / 2 > image + slack) & (low > _EDGE)
    return np.asarray((beyond & (image < grid.size)).any(axis=1))


def _free_of_others(window: int, grid: WindowGrid) -> FloatArray:
    """x0, y0, x1, y1 (scaled pixels) of what no other window sees; ±inf where there is none."""
    row, col = divmod(window, grid.cols)
    return np.array(
        (
            grid.window(window - 1).x1 if col > 0 else -np.inf,
            grid.window(window - grid.cols).y1 if row > 0 else -np.inf,
            grid.window(window + 1).x0 if col < grid.cols - 1 else np.inf,
            grid.window(window + grid.cols).y0 if row < grid.rows - 1 else np.inf,
        )
    )


_FIELDS = (
    ("x0", pa.float64()), ("y0", pa.float64()), ("x1", pa.float64()), ("y1", pa.float64()),
    ("score", pa.float32()), ("class", pa.int32()), ("window", pa.int64()), ("flags", pa.uint8()),
)  # fmt: skip


def to_ipc(detections: Detections, metadata: Mapping[str, str] | None = None) -> bytes:
    """An Arrow IPC file (zstd) of the rows as they stand; the same rows give the same bytes."""
    schema = pa.schema(
        [pa.field(name, kind, nullable=False) for name, kind in _FIELDS],
        metadata={k: str(v) for k, v in sorted((metadata or {}).items())},
    )
    b = detections.boxes
    columns = (
        b[:, 0], b[:, 1], b[:, 2], b[:, 3],
        detections.scores, detections.classes, detections.windows, detections.flags,
    )  # fmt: skip
    batch = pa.record_batch(
        [
            pa.array(np.ascontiguousarray(c), type=t)
            for c, (_, t) in zip(columns, _FIELDS, strict=True)
        ],
        schema=schema,
    )
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
    with pa.ipc.new_file(sink, schema, options=options) as writer:
        for start in range(0, len(detections), _ROWS_A_BATCH):
            writer.write_batch(batch.slice(start, _ROWS_A_BATCH))
    return bytes(sink.getvalue().to_pybytes())


def from_ipc(data: bytes | memoryview) -> tuple[Detections, dict[str, str]]:
    """What :func:`to_ipc` wrote, and its metadata. Raises ValueError for anything else."""
    try:
        # of a few thousand rows threads cost more than they do
        options = pa.ipc.IpcReadOptions(use_threads=False)
        with pa.ipc.open_file(pa.BufferReader(data), options=options) as reader:
            schema = reader.schema
            table = reader.read_all()
            # what is not sound here would be read past its end below
            table.validate(full=True)
    except (pa.ArrowException, MemoryError, OSError) as e:
        raise ValueError(f"no Arrow file of detections: {e}") from e
    if [(f.name, f.type) for f in schema] != list(_FIELDS):
        raise ValueError(f"an Arrow file, but not of detections: {schema.names}")
    if any(table[name].null_count for name, _ in _FIELDS):
        raise ValueError("an Arrow file of detections, some of whose values are not there")
    column = {name: table[name].to_numpy() for name, _ in _FIELDS}
    if not all(np.isfinite(column[k]).all() for k in ("x0", "y0", "x1", "y1", "score")):
        raise ValueError("an Arrow file of detections, some of whose places are no numbers")
    metadata = {k.decode(): v.decode() for k, v in (schema.metadata or {}).items()}
    return (
        Detections(
            boxes=np.stack([column[k] for k in ("x0", "y0", "x1", "y1")], axis=1),
            scores=column["score"],
            classes=column["class"],
            windows=column["window"],
            flags=column["flags"],
        ),
        metadata,
    )


def warm_up() -> None:
    """Load what the first rows would wait for: pyarrow imports pandas where it is installed."""
    from_ipc(to_ipc(Detections.empty()))
