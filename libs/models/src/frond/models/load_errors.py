"""Why ONNX Runtime cannot load a file, for whoever exported it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

_OPSET: Final = re.compile(r"Opset (\d+) is under development.* is till opset (\d+)", re.DOTALL)
_IR: Final = re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)")
_WEIGHTS: Final = re.compile(r'External data path does not exist: "([^"]+)"')
_OUTSIDE: Final = "External data path validation failed"
_NO_GRAPH: Final = ("Protobuf parsing failed", "No graph was found in the protobuf")


def load_words(path: Path, error: BaseException | None) -> str:
    """ONNX Runtime's error in words that say what to do; its own first line where it is none of
    those that people meet."""
    text = str(error)
    if found := _OPSET.search(text):
        return (
            f"it is of opset {found[1]}, and this ONNX Runtime knows opsets to {found[2]}. Export it "
            "with a lower one (opset_version=17, for example)."
        )
    if found := _IR.search(text):
        return (
            f"it is of ONNX IR version {found[1]}, and this ONNX Runtime reads versions to {found[2]}. "
            f"Export it with an older onnx package, or set ir_version to {found[2]} and save it again."
        )
    if found := _WEIGHTS.search(text):
        return (
            f"it keeps weights in a file that is not there: {os.path.relpath(found[1], path.parent)}. "
            f"Put that file, by this name, into the folder of {path.name}."
        )
    if _OUTSIDE in text:
        return (
            "it keeps weights in a file that ONNX Runtime does not read, as it has to lie in the "
            f"folder of {path.name}: not at an absolute path, not through .., not behind a symbolic "
            "link. Export it with its weights in a file beside it."
        )
    if any(words in text for words in _NO_GRAPH):
        return (
            f"it is no graph in ONNX format, or a part of one ({path.stat().st_size} bytes). Copy it "
            "again where a download broke off or left a Git LFS pointer; export it to ONNX where it "
            "is of another format (.pt, .h5, .tflite)."
        )
    return first_line(error)


def first_line(error: BaseException | None) -> str:
    """The first line of what an error says, 300 characters of it; its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
