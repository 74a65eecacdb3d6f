"""What a reader process does: the other end of :class:`frond.raster.sandbox.Sandbox`'s pipe."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from frond.contracts.errors import StoreUnavailable, UserError
from frond.contracts.reasons import Reason
from frond.raster import overheard, parcels

_PR_SET_PDEATHSIG: Final = 1
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES: Final = 16 << 20

_asked_by: Connection | None = None


def more_time(seconds: float) -> None:
    """For a call in a child: it now knows that it needs so much longer than its caller expected.

    Outside of a sandbox nothing is waiting, and nothing happens.
    """
    if _asked_by is not None:
        parcels.pack(("more", seconds)).send(_asked_by)


def reach_only(path: str) -> None:
    """For a call in a child: of what lies behind the network, GDAL opens this path alone from now on.

    Outside of a sandbox, where others may be reading, nothing happens.
    """
    if _asked_by is not None:
        # a path that is no network's: then none
        os.environ["CPL_VSIL_CURL_ALLOWED_FILENAME"] = path


def serve(pipe: Connection, memory_mb: int, parent: int) -> None:
    """Answer calls until the pipe ends, or the parent.

    Args:
        memory_mb: that this process may have; 0: as much as there is.
        parent: its process id.
    """
    _end_with(parent)
    _keep_freed_memory()
    # where the machine has no memory left, the kernel ends a reader before the service
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    if memory_mb:
        # an allocation beyond it fails, here alone, before the kernel looks for somebody to kill
        resource.setrlimit(resource.RLIMIT_DATA, (memory_mb << 20, memory_mb << 20))
    # a signal to the whole process group is the parent's business: it finishes what is in flight
    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, signal.SIG_IGN)
    overheard.listen()
    global _asked_by
    _asked_by = pipe
    with contextlib.suppress(EOFError, OSError):
        pipe.send_bytes(b"ready")
        while True:
            _answered(pipe, memory_mb).send(pipe)


def _end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends: it may be in an endless loop."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _keep_freed_memory() -> None:
    """Have the C library keep what one call frees for the next one, up to a bound: given back and
    faulted in again, it takes a small image as long as a third of its decoding."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for threshold in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            mallopt(threshold, _KEPT_BYTES)


def _answered(pipe: Connection, memory_mb: int) -> parcels.Parcel:
    """Wait for a call, make it, and have its answer ready to be sent."""
    asked = parcels.receive(pipe)
    try:
        call, argument, new = asked.opened()
        if new:
            parcels.pack(("begins",)).send(pipe)
        return parcels.pack(("done", call(argument)))
    except UserError as e:
        return parcels.pack(("rejected", e.reason.value, e.detail))
    except StoreUnavailable as e:
        return parcels.pack(("away", str(e)))
    except MemoryError:
        return parcels.pack(("rejected", Reason.TOO_LARGE.value, _greedy(memory_mb)))
    except Exception:
        return parcels.pack(("failed", traceback.format_exc()))


def _greedy(memory_mb: int) -> str:
    had = f"one reader may have ({memory_mb} MiB)" if memory_mb else "there is"
    return (
        f"Reading the image takes more memory than {had}. "
        "Re-tile it, for example with gdal_translate -of COG."
    )
