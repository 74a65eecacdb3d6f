"""A chunk's masks as bytes: an Arrow IPC file (zstd), one record batch a window.

Each window can be read alone, so that whoever blends an image holds a few of its windows at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from frond.masks.arrow import column

KIND: Final = "masks"
_KIND_KEY: Final = "frond.kind"

Planes = npt.NDArray[np.uint8]

_SCORES: Final = "scores"
_SCHEMA: Final = pa.schema(
    [
        pa.field("window", pa.int64(), nullable=False),
        pa.field("planes", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        # one row a batch: [planes, height, width], row-major
        pa.field(_SCORES, pa.large_binary(), nullable=False),
    ]
)


@dataclass(frozen=True, eq=False)
class WindowMask:
    """What the model says of one window.

    Attributes:
        window: index in the image's window grid.
        planes: uint8 [C+1, h, w], of the part of the window that lies inside the image. Planes
            0…C-1 are the classes' probabilities × 255. The last is the ``rival``: 0 where the pixel
            means nothing (every plane is 0 there); else the background's probability × 255, at
            least 1, or 1 where the model has no background.
    """

    window: int
    planes: Planes

    def __post_init__(self) -> None:
        if self.window < 0:
            raise ValueError(f"a window has index {self.window}")
        if self.planes.ndim != 3 or len(self.planes) < 2 or not self.planes.size:
            raise ValueError(f"planes have shape {self.planes.shape}, not (classes + 1, h, w)")
        if self.planes.dtype != np.uint8:
            raise ValueError(f"planes are {self.planes.dtype}, not uint8")


def to_ipc(masks: Iterable[WindowMask], about: Mapping[str, str]) -> bytes:
    """An Arrow IPC file of the windows; the same windows give the same bytes.

    Args:
        masks: in ascending order of their windows; one is held at a time.
        about: what the file says of itself.

    Raises:
        ValueError: the windows are not in order, or one is there twice.
    """
    metadata = {**{k: str(v) for k, v in about.items()}, _KIND_KEY: KIND}
    schema = _SCHEMA.with_metadata(dict(sorted(metadata.items())))
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
    last = -1
    with pa.ipc.new_file(sink, schema, options=options) as writer:
        for mask in masks:
            if mask.window <= last:
                raise ValueError(f"window {mask.window} comes after window {last}")
            last = mask.window
            flat = pa.py_buffer(np.ascontiguousarray(mask.planes))
            ends = pa.py_buffer(np.array([0, flat.size], np.int64))
            scores = pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, flat])
            place = [
                column(np.array([v], f.type.to_pandas_dtype()), f.type)
                for f, v in zip(_SCHEMA, (mask.window, *mask.planes.shape), strict=False)
            ]
            writer.write_batch(pa.record_batch([*place, scores], schema=schema))
    return bytes(sink.getvalue().to_pybytes())


class MaskFile:
    """A file that :func:`to_ipc` made: opened by its places alone, windows are read when asked for.

    For one thread at a time.

    Attributes:
        about: what the file says of itself.
        windows: the windows it holds, ascending.

    Raises:
        ValueError: it is no such file, or it is damaged; also by :meth:`planes`.
    """

    about: dict[str, str]
    windows: list[int]

    def __init__(self, path: Path) -> None:
        self._file = pa.OSFile(str(path), "rb")
        try:
            self._open(self._file)
        except BaseException:
            self._file.close()
            raise

    @classmethod
    def of(cls, data: bytes | memoryview) -> MaskFile:
        """The same over bytes in memory."""
        self = cls.__new__(cls)
        self._file = pa.BufferReader(data)
        self._open(self._file)
        return self

    def _open(self, source: Any) -> None:
        try:
            self._reader = pa.ipc.open_file(
                source, options=pa.ipc.IpcReadOptions(use_threads=False)
            )
            schema = self._reader.schema
            meta = {k.decode(): v.decode() for k, v in (schema.metadata or {}).items()}
            if meta.pop(_KIND_KEY, None) != KIND or not schema.equals(_SCHEMA):
                raise ValueError(f"an Arrow file, but not of masks: {schema.names}")
            # a batch's places are read without its scores
            options = pa.ipc.IpcReadOptions(use_threads=False, included_fields=[0, 1, 2, 3])
            source.seek(0)
            places = pa.ipc.open_file(source, options=options)
            self._shapes: dict[int, tuple[int, tuple[int, int, int]]] = {}
            for n in range(places.num_record_batches):
                batch = places.get_batch(n)
                batch.validate(full=True)
                if batch.num_rows != 1:
                    raise ValueError(f"an Arrow file of masks with {batch.num_rows} rows a batch")
                window, *shape = (int(batch.column(k)[0].as_py()) for k in range(4))
                if window in self._shapes or min(window, *(s - 1 for s in shape)) < 0:
                    raise ValueError(f"an Arrow file of masks with window {window} of {shape}")
                self._shapes[window] = n, (shape[0], shape[1], shape[2])
        except (pa.ArrowException, MemoryError, OSError, UnicodeDecodeError, TypeError) as e:
            raise ValueError(f"no Arrow file of masks: {e}") from e
        self.about = meta
        self.windows = list(self._shapes)
        if self.windows != sorted(self.windows):
            raise ValueError("an Arrow file of masks whose windows are in disorder")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def planes(self, window: int) -> Planes:
        """A window's planes, read and decompressed now; not to be written to.

        Raises:
            KeyError: the file does not hold the window.
        """
        n, shape = self._shapes[window]
        try:
            batch = self._reader.get_batch(n)
            batch.validate(full=True)
            scores = batch.column(4)
            size = scores[0].as_buffer().size if not scores.null_count else -1
        except MemoryError as e:
            # a limit of ours is no damage, and raised here once more: what is stored and what it
            # unpacks to are less than three times the planes
            np.empty((3, *shape), np.uint8)
            raise ValueError(
                f"window {window} of an Arrow file of masks asks for more memory than it has pixels"
            ) from e
        except (pa.ArrowException, OSError) as e:
            raise ValueError(f"window {window} of an Arrow file of masks is damaged: {e}") from e
        if size != shape[0] * shape[1] * shape[2]:
            raise ValueError(f"window {window} of an Arrow file of masks has {size} bytes: {shape}")
        return np.frombuffer(scores[0].as_buffer(), np.uint8).reshape(shape)


def check(data: bytes) -> dict[str, str]:
    """What a file of masks says of itself, after every window of it was read once.

    Raises:
        ValueError: the bytes are no such file.
    """
    with MaskFile.of(data) as file:
        for window in file.windows:
            file.planes(window)
        return file.about
