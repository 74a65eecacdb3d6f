"""Prepared data: arrays in one file, read by mapping it, and what they were made of.

``manifest.json``  the arrays' names, places and SHA-256, what was told of them (``about``), the
                   SHA-256 of each source and of the manifest's own making (``recipe``)
``arrays.bin``     the arrays, one after the other

The folder appears whole, by a rename; and is made anew when a source, the recipe or the settings
differ. So DVC and the loop see a change of data in one digest.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from frond.training.config import bad
from frond.training.files import replaced, write_json

MANIFEST: Final = "manifest.json"
_ARRAYS: Final = "arrays.bin"
_ALIGN: Final = 64
_PIECE: Final = 1 << 20

Named = Iterable[tuple[str, NDArray[Any]]]


def prepared(
    folder: Path,
    root: Path,
    sources: Iterable[Path],
    recipe: Mapping[str, Any],
    make: Callable[[], Iterator[tuple[str, NDArray[Any]]]],
    about: Callable[[], Mapping[str, Any]] = dict,
) -> str:
    """Make the folder, or leave it where it is of these sources and this recipe already.

    Args:
        root: what the names of sources are relative to: where the data lies does not matter.
        recipe: all else that decides what comes out: settings, seed, a version of the code.
        make: the arrays by name.
        about: what else is worth telling, JSON; asked when all arrays are made.

    Returns:
        The digest of the prepared data: over arrays and ``about``.

    Raises:
        UserError: there are no sources, or the folder is one of something else.
    """
    every = sorted(set(sources))
    if outside := [p for p in every if not p.is_relative_to(root)]:
        raise bad(f"{outside[0]} lies outside {root}: labels name files beneath their own folder.")
    told = {p.relative_to(root).as_posix(): _sha256(p) for p in every}
    if not told:
        raise bad(f"{root} holds nothing to train on: see training/README.md.")
    found = _manifest(folder)
    plain = json.loads(json.dumps(recipe))
    if found is not None and (found["sources"], found["recipe"]) == (told, plain):
        return str(found["digest"])
    with replaced(folder, MANIFEST) as fresh:
        arrays = _written(fresh / _ARRAYS, make())
        extra = dict(about())
        text = json.dumps({"arrays": arrays, "about": extra}, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        write_json(
            fresh / MANIFEST,
            {"digest": digest, "recipe": plain, "sources": told, "about": extra, "arrays": arrays},
        )
    return digest


class Store:
    """Prepared data, mapped: processes share its pages, and only what is read is in memory.

    Attributes:
        about: what was told of it.
        digest: of arrays and ``about``.

    Raises:
        UserError: there is none in the folder.
    """

    def __init__(self, folder: Path) -> None:
        found = _manifest(folder)
        if found is None:
            raise bad(f"{folder} holds no prepared data: run `frond train prepare` first.")
        self.about: dict[str, Any] = found["about"]
        self.digest = str(found["digest"])
        self._places: dict[str, dict[str, Any]] = found["arrays"]
        path = folder / _ARRAYS
        self._bytes: NDArray[np.uint8] = (
            np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
        )

    def names(self) -> list[str]:
        return list(self._places)

    def array(self, name: str) -> NDArray[Any]:
        """One of them, read-only."""
        at = self._places[name]
        dtype, shape = np.dtype(at["dtype"]), tuple(at["shape"])
        size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        raw = self._bytes[at["offset"] : at["offset"] + size]
        found: NDArray[Any] = np.asarray(raw).view(dtype).reshape(shape)
        return found


def _written(path: Path, arrays: Named) -> dict[str, dict[str, Any]]:
    places: dict[str, dict[str, Any]] = {}
    with path.open("wb") as out:
        for name, given in arrays:
            if name in places:
                raise ValueError(f"two arrays are called {name!r}")
            array = np.ascontiguousarray(given)
            out.write(b"\0" * (-out.tell() % _ALIGN))
            raw = array.tobytes()
            places[name] = {
                "offset": out.tell(), "dtype": array.dtype.str, "shape": list(array.shape),
                "sha256": hashlib.sha256(raw).hexdigest(),
            }  # fmt: skip
            out.write(raw)
        out.flush()
        os.fsync(out.fileno())
    return places


def _manifest(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and (folder / _ARRAYS).is_file() else None


def _sha256(path: Path) -> str:
    whole = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            whole.update(piece)
    return whole.hexdigest()
