"""Weights that an ONNX graph keeps in files beside it, found without a library that reads graphs."""

from __future__ import annotations

import mmap
import posixpath
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

# of a protobuf entry: its first field, "location", and the tag of its second, the file's name
_LOCATION: Final = b"\x0a\x08location\x12"


def hidden_weights(graph: Path, hidden: Collection[str]) -> str | None:
    """Why a graph whose folder has these hidden files would not run without them; None: it would.

    Hidden files are no part of a model, and ONNX Runtime reads weights from them all the same.

    Args:
        hidden: names within the graph's folder, as POSIX paths.
    """
    # most folders have none, and a graph may have gigabytes
    named = sorted(set(hidden).intersection(_locations(graph))) if hidden else []
    if not named:
        return None
    return (
        f"{graph.name} keeps weights in {named[0]!r}, a hidden file, which is no part of a model and "
        "would be lost. Export it with another name for its weights."
    )


def _locations(graph: Path) -> Iterator[str]:
    """The names of files in a graph's tensors, and hardly anything else that looks like one."""
    if not graph.stat().st_size:
        return
    with graph.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = data.find(_LOCATION)
        while at >= 0:
            at += len(_LOCATION)
            # a length of seven bits a byte, of which two bytes hold any name
            low, high = (*data[at : at + 2], 0, 0)[:2]
            length, start = (low, at + 1) if low < 128 else (low & 127 | high << 7, at + 2)
            yield posixpath.normpath(data[start : start + length].decode(errors="replace"))
            at = data.find(_LOCATION, at)
