"""Objects from one process to another; large arrays lie in memory that both see.

They are written into an anonymous file in memory (memfd), whose descriptor goes over the pipe. It
has no name, so that nothing is left behind by a process that is killed, on either side: the kernel
frees it with its last descriptor and its last mapping.
"""

from __future__ import annotations

import fcntl
import io
import mmap
import os
import pickle
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

# smaller arrays are quicker through the pipe than by a system call each for file, size and mapping
_LARGE: Final = 64 << 10
_ALIGNED: Final = 64
_COUNT: Final = struct.Struct("<I")
# whoever maps a file that is cut off under it dies of SIGBUS
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


@dataclass(slots=True)
class Parcel:
    """An object ready to be sent, once.

    Attributes:
        body: the pickled object, and before it where its arrays lie.
        fd: the file in memory with its large arrays, if it has any.
    """

    body: bytes
    fd: int | None = None

    def send(self, pipe: Connection) -> None:
        """Hand it over.

        Raises:
            OSError: nobody holds the pipe's other end.
        """
        try:
            pipe.send_bytes(self.body)
            if self.fd is not None:
                send_handle(pipe, self.fd, None)
        finally:
            self.close()

    def close(self) -> None:
        """Give back what was not sent."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None


def pack(value: Any) -> Parcel:
    """An object as a parcel; it must pickle.

    Raises:
        OSError: there is no memory for its arrays.
    """
    large: list[memoryview] = []

    def goes_in_the_body(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes >= _LARGE:
            large.append(raw)
        return raw.nbytes < _LARGE

    pickled = io.BytesIO()
    _Pickler(pickled, protocol=5, buffer_callback=goes_in_the_body).dump(value)
    sizes = [raw.nbytes for raw in large]
    head = _COUNT.pack(len(sizes)) + struct.pack(f"<{len(sizes)}Q", *sizes)
    return Parcel(head + pickled.getbuffer(), _stored(large) if large else None)


@dataclass(frozen=True, slots=True)
class Received:
    """A parcel that has come, not opened yet."""

    pickled: memoryview
    buffers: Sequence[memoryview]

    def opened(self) -> Any:
        """The object. Its large arrays cannot be written to, and their memory is given back with
        the last of them. Raises whatever unpickling raises."""
        return pickle.loads(self.pickled, buffers=self.buffers)  # noqa: S301 # our own process's


def receive(pipe: Connection) -> Received:
    """Wait for a parcel.

    Raises:
        EOFError, OSError: whoever should send it is no more.
    """
    body = memoryview(pipe.recv_bytes())
    (count,) = _COUNT.unpack_from(body)
    sizes = struct.unpack_from(f"<{count}Q", body, _COUNT.size)
    buffers: list[memoryview] = []
    if count:
        try:
            fd = recv_handle(pipe)
        except RuntimeError as e:
            raise EOFError from e
        try:
            buffers = _mapped(fd, sizes)
        finally:
            os.close(fd)
    return Received(body[_COUNT.size + 8 * count :], buffers)


class _Pickler(pickle.Pickler):
    """Arrays that are views of a common one are sent as that one and where in it they lie."""

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, np.ndarray) or obj.flags.c_contiguous or obj.nbytes < _LARGE:
            return NotImplemented
        owner = obj
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        plain = owner.flags.c_contiguous and not obj.dtype.hasobject
        if owner is obj or not plain or min(obj.strides) < 0:
            return NotImplemented
        return _view, (owner, _start(obj) - _start(owner), obj.shape, obj.strides, obj.dtype)


def _start(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


def _view(
    owner: NDArray[Any],
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    dtype: np.dtype[Any],
) -> NDArray[Any]:
    # refuses whatever would reach beyond its owner
    return np.ndarray(shape, dtype, owner, offset, strides)


def _stored(buffers: Sequence[memoryview]) -> int:
    fd = os.memfd_create("frond-parcel", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        at = 0
        for buffer in buffers:
            done = 0
            while done < buffer.nbytes:
                done += os.pwrite(fd, buffer[done:], at + done)
            at += _padded(buffer.nbytes)
        os.ftruncate(fd, at)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _mapped(fd: int, sizes: Sequence[int]) -> list[memoryview]:
    total = sum(map(_padded, sizes))
    if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS != _SEALS or os.fstat(fd).st_size < total:
        raise OSError("a parcel's memory may be cut off")
    whole = memoryview(mmap.mmap(fd, total, mmap.MAP_SHARED | mmap.MAP_POPULATE, mmap.PROT_READ))
    buffers, at = [], 0
    for size in sizes:
        buffers.append(whole[at : at + size])
        at += _padded(size)
    return buffers


def _padded(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED
