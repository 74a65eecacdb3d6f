"""Files and folders that appear whole, by a rename, and who may make them."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from frond.training.config import bad


def write_json(file: Path, value: Any) -> None:
    """Replace a file by this JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    fresh.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    fresh.replace(file)


def replaceable(folder: Path, mark: str) -> None:
    """Raises UserError where the folder is not ours to replace: it holds things, but not ``mark``."""
    if folder.exists() and not (folder / mark).is_file():
        if not folder.is_dir():
            raise bad(f"{folder} is no folder.")
        if any(folder.iterdir()):
            raise bad(
                f"{folder} holds other things, which would be lost: it would be replaced whole. Name "
                f"a new folder, or one with a {mark}."
            )


@contextmanager
def replaced(folder: Path, mark: str) -> Iterator[Path]:
    """A fresh folder that takes this one's place at the end; the old one stays if that fails.

    One process at a time, for a folder (:func:`held`): what others left when they were killed is
    taken away.

    Args:
        mark: the file by which a folder is known as one that was made here.

    Raises:
        UserError: it is not, and not empty.
    """
    replaceable(folder, mark)
    folder.parent.mkdir(parents=True, exist_ok=True)
    mend(folder)
    fresh = Path(tempfile.mkdtemp(prefix=_prefix(folder), dir=folder.parent))
    old = folder.with_name(f"{_prefix(folder)}old")
    try:
        yield fresh
        fresh.chmod(0o755)
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
    finally:
        mend(folder)


def mend(folder: Path) -> None:
    """Undo a replacement that was cut short."""
    old = folder.with_name(f"{_prefix(folder)}old")
    if old.exists() and not folder.exists():
        old.rename(folder)
    for left in folder.parent.glob(f"{_prefix(folder)}*"):
        shutil.rmtree(left, ignore_errors=True)


def _prefix(folder: Path) -> str:
    return f".{folder.name}.new-"


@contextmanager
def held(lock: Path, refusal: str) -> Iterator[None]:
    """One process at a time holds this file; whoever is killed holds it no longer.

    Raises:
        UserError: another one does; ``refusal`` is what it says.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        while True:
            file = stack.enter_context(lock.open("w"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise bad(refusal) from None
            # whoever held it before may have taken it away after it was opened here
            if os.fstat(file.fileno()).st_nlink:
                break
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
