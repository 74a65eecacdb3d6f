"""A model folder: ``model.onnx``, ``model.yaml`` and whatever lies beside them.

A model that a server runs (``server`` in ``model.yaml``) has no ``model.onnx``.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from frond.contracts.classraster import check_room
from frond.contracts.errors import ModelRejected
from frond.contracts.modelspec import ModelManifest
from frond.contracts.reasons import Reason
from frond.contracts.weights import hidden_weights

MODEL_FILE: Final = "model.onnx"
MANIFEST_FILE: Final = "model.yaml"

_MAX_MANIFEST_BYTES: Final = 256 * 1024
_PIECE: Final = 1 << 20
_NOT_YAML: Final = (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError)


def bad_model(detail: str) -> ModelRejected:
    """A rejection with BAD_MODEL."""
    return ModelRejected(Reason.BAD_MODEL, detail)


def folder_files(folder: Path) -> list[str]:
    """The folder's files as sorted relative POSIX names; hidden files and folders are left out.

    Raises:
        ModelRejected: there is no folder, no ``model.yaml`` in it, neither ``model.onnx`` nor the
            name of a server, or both, or it holds a symbolic link, or the graph keeps weights in a
            hidden file.
    """
    if not folder.is_dir():
        raise bad_model(f"{folder} is no folder. A model is a folder of model.onnx and model.yaml.")
    names: list[str] = []
    hidden: list[str] = []
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        if any(part.startswith(".") for part in relative.parts):
            if path.is_file():
                hidden.append(relative.as_posix())
            continue
        if path.is_symlink():
            raise bad_model(
                f"{relative} in {folder} is a symbolic link. Put the file itself there."
            )
        if path.is_file():
            names.append(relative.as_posix())
    served = MANIFEST_FILE in names and _names_a_server(folder / MANIFEST_FILE)
    for needed in (MODEL_FILE, MANIFEST_FILE):
        if needed not in names and not (served and needed == MODEL_FILE):
            raise bad_model(f"{folder} has no {needed}. A model folder holds both "
                            f"{MODEL_FILE} and {MANIFEST_FILE}.")  # fmt: skip
    if served and MODEL_FILE in names:
        raise bad_model(
            f"{folder} has a {MODEL_FILE}, and its {MANIFEST_FILE} names a server. Take one of them "
            "out, so that it is clear which one runs."
        )
    if MODEL_FILE in names and (lost := hidden_weights(folder / MODEL_FILE, hidden)):
        raise bad_model(lost)
    return sorted(names)


def _names_a_server(manifest: Path) -> bool:
    """Whether there is a section ``server``, be the rest as it may: whoever parses it tells."""
    if manifest.stat().st_size > _MAX_MANIFEST_BYTES:
        return False
    try:
        data = yaml.load(manifest.read_bytes(), Loader=_PlainLoader)  # noqa: S506 - a SafeLoader, stricter
    except _NOT_YAML:
        return False
    return isinstance(data, dict) and data.get("server") is not None


def folder_digest(folder: Path) -> str:
    """SHA-256 (64 hex digits) over the sorted names of the folder's files and their contents.

    Raises:
        ModelRejected: as :func:`folder_files`.
    """
    whole = hashlib.sha256()
    for name in folder_files(folder):
        content = hashlib.sha256()
        with (folder / name).open("rb") as file:
            while piece := file.read(_PIECE):
                content.update(piece)
        raw = name.encode()
        whole.update(len(raw).to_bytes(8, "big") + raw + content.digest())
    return whole.hexdigest()


def load_manifest(folder: Path) -> ModelManifest:
    """A folder's manifest.

    Raises:
        ModelRejected: BAD_MODEL, in words for whoever wrote the folder.
    """
    folder_files(folder)
    return parse_manifest((folder / MANIFEST_FILE).read_bytes())


def parse_manifest(text: bytes) -> ModelManifest:
    """A manifest from the bytes of ``model.yaml``.

    Raises:
        ModelRejected: BAD_MODEL: no YAML, a field that is missing, unknown or out of range, or
            more classes than a segmentation may have.
    """
    if len(text) > _MAX_MANIFEST_BYTES:
        raise bad_model(f"{MANIFEST_FILE} has {len(text)} bytes; {_MAX_MANIFEST_BYTES} are enough.")
    try:
        data = yaml.load(text, Loader=_PlainLoader)  # noqa: S506 - a SafeLoader, stricter
    except _NOT_YAML as e:
        raise bad_model(f"{MANIFEST_FILE} is not YAML: {_yaml_words(e)}") from None
    if not isinstance(data, dict):
        raise bad_model(
            f"{MANIFEST_FILE} must be a mapping of fields (name, decoder, classes, input …), "
            f"not a {type(data).__name__}."
        )
    try:
        manifest = ModelManifest.model_validate(data)
    except ValidationError as e:
        raise bad_model(f"{MANIFEST_FILE}: {_field_words(e)}") from None
    _check_normalization(manifest)
    if manifest.task == "segmentation":
        # here, not where masks are made: every window would have been run by then
        check_room(manifest)
    return manifest


def _check_normalization(manifest: ModelManifest) -> None:
    norm, bands = manifest.normalization, len(manifest.bands)
    for field, values in (("mean", norm.mean), ("std", norm.std)):
        if len(values) not in (1, bands):
            raise bad_model(
                f"{MANIFEST_FILE}: normalization.{field} has {len(values)} numbers for {bands} "
                "bands. Write one number, or one for each band."
            )
    numbers = (norm.scale, *norm.mean, *norm.std)
    if not all(math.isfinite(v) for v in numbers) or 0.0 in norm.std or norm.scale == 0:
        raise bad_model(
            f"{MANIFEST_FILE}: normalization needs finite numbers, and neither std nor scale 0."
        )
    if len(set(manifest.classes)) != len(manifest.classes):
        raise bad_model(f"{MANIFEST_FILE}: classes lists a name twice.")
    if any(b < 1 for b in manifest.bands):
        raise bad_model(f"{MANIFEST_FILE}: bands count from 1.")


class _PlainLoader(yaml.SafeLoader):
    """Plain YAML: no aliases, which could grow without bound, and no key twice."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(
                problem="aliases (*name) are not taken", problem_mark=event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(
                    problem="a field's name must be a word", problem_mark=key_node.start_mark
                )
            if key_node.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{key_node.value!r} is there twice", problem_mark=key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep=deep)


def _yaml_words(e: Exception) -> str:
    if isinstance(e, yaml.MarkedYAMLError) and e.problem_mark is not None:
        mark = e.problem_mark
        return f"{e.problem} (line {mark.line + 1}, column {mark.column + 1})."
    return f"{' '.join(str(e).split())[:200] or 'it cannot be read'}."


def _field_words(e: ValidationError) -> str:
    told = []
    for error in e.errors()[:5]:
        where = ".".join(str(p) for p in error["loc"])
        kind = error["type"]
        if kind == "extra_forbidden":
            told.append(f"{where} is no field of a model; check its spelling")
        elif kind == "missing":
            told.append(f"{where} is missing")
        else:
            sentence = error["msg"].removeprefix("Value error, ")
            # what speaks of several fields is of none, and names them
            told.append(f"{where}: {sentence}" if where else sentence)
    return "; ".join(told)[:800] + "."
