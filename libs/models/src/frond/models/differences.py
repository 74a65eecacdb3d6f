"""What differs between two model folders: manifests, files, and the graphs' inputs and outputs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frond.contracts.modelspec import ModelManifest
from frond.models.folder import MANIFEST_FILE, MODEL_FILE, folder_files, load_manifest
from frond.models.graph import Graph


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs; "" where one side has nothing of it."""

    what: str
    a: str
    b: str


def differences(a: Path, b: Path) -> list[Difference]:
    """In the order: the manifest's fields, the graph's inputs and outputs, files.

    Raises:
        ModelRejected: BAD_MODEL: one of them is no model folder, or its graph cannot be loaded.
    """
    found = _between(_fields(load_manifest(a)), _fields(load_manifest(b)))
    files = _between(_files(a), _files(b))
    if any(f.what == MODEL_FILE for f in files):
        found += _between(_ports(a), _ports(b))
    return found + files


def _between(a: Mapping[str, str], b: Mapping[str, str]) -> list[Difference]:
    names = [*a, *(n for n in b if n not in a)]
    return [
        Difference(n, a.get(n, ""), b.get(n, "")) for n in names if a.get(n, "") != b.get(n, "")
    ]


def _fields(manifest: ModelManifest) -> dict[str, str]:
    return _flat(manifest.model_dump(mode="json"))


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{before}{key}.")
        elif value is not None:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            found[before + key] = text
    return found


def _ports(folder: Path) -> dict[str, str]:
    if not (folder / MODEL_FILE).exists():
        # a server runs it, and is not asked
        return {}
    graph = Graph.open(folder / MODEL_FILE)
    ports = {f"graph input {n}": str(p) for n, p in enumerate(graph.inputs)}
    return ports | {f"graph output {n}": str(p) for n, p in enumerate(graph.outputs)}


def _files(folder: Path) -> dict[str, str]:
    told = {}
    for name in folder_files(folder):
        if name != MANIFEST_FILE:
            path = folder / name
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            told[name] = f"sha256 {digest[:16]}, {path.stat().st_size} bytes"
    return told
