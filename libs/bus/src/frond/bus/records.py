"""Records whose headers have any bytes for a name.

Kafka takes them, and aiokafka decodes names strictly: one such message would end every consumer
that comes to it, after each restart again, and with it its partition. :func:`read_on` lets them
pass: in such a name each byte that is no UTF-8 is written as ``\\xNN``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

_LENGTH: Final = struct.Struct(">i")
_LENGTH_AT: Final = 8
_OVERHEAD: Final = 12
_MAGIC_AT: Final = 16


class TolerantRecords:
    """What a fetch brought, batch by batch, as aiokafka's own ``MemoryRecords`` gives it."""

    def __init__(self, data: bytes) -> None:
        self._records = MemoryRecords(data)
        self._data = data
        self._at = 0

    def size_in_bytes(self) -> int:
        return int(self._records.size_in_bytes())

    def has_next(self) -> bool:
        return bool(self._records.has_next())

    def next_batch(self) -> Any:
        batch = self._records.next_batch()
        if batch is None:
            return None
        (length,) = _LENGTH.unpack_from(self._data, self._at + _LENGTH_AT)
        raw = memoryview(self._data)[self._at : self._at + _OVERHEAD + length]
        self._at += len(raw)
        # older formats have no headers
        return _Batch(batch, raw) if raw[_MAGIC_AT] >= 2 else batch


class _Batch:
    def __init__(self, batch: Any, raw: memoryview) -> None:
        self._batch = batch
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        read = 0
        try:
            for record in self._batch:
                yield record
                read += 1
        except (UnicodeDecodeError, CorruptRecordException) as e:
            # aiokafka without its C extension wraps it
            if not isinstance(e, UnicodeDecodeError) and not isinstance(
                e.__cause__, UnicodeDecodeError
            ):
                raise
            yield from islice(_NamedByAnyBytes(self._raw), read, None)


class _NamedByAnyBytes(_DefaultRecordBatchPy):  # type: ignore[misc] # aiokafka calls it final
    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer: bytearray = _Text(self._buffer)


class _Text(bytearray):
    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        return _Text(found) if isinstance(key, slice) else found

    def decode(self, encoding: str = "utf-8", _: str = "strict") -> str:
        return bytes(self).decode(encoding, "backslashreplace")


def read_on() -> None:
    """From now on this process's aiokafka consumers, Faust's too, read any name of a header."""
    fetcher.MemoryRecords = TolerantRecords
