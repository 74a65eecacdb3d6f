"""Numpy arrays as Arrow columns.

Not by ``pyarrow.array``: that imports pandas where it is installed, which takes longer than most
images do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def column(values: npt.NDArray[Any], kind: Any) -> Any:
    """A column without nulls over the array's own memory, which must be of that type."""
    data = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(kind, len(values), [None, data])
