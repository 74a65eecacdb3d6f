"""A first ``model.yaml`` for anybody's graph: what can be seen is written, what is guessed is said."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from frond.contracts.errors import ModelRejected, ModelUnavailable
from frond.contracts.modelspec import ModelManifest, ServerSpec
from frond.models.decoders import DECODERS
from frond.models.families import recognise
from frond.models.family import Family
from frond.models.family import count as count_of
from frond.models.folder import MANIFEST_FILE, MODEL_FILE, bad_model, parse_manifest
from frond.models.graph import Graph, Port, batch_of, drawn
from frond.models.oip import line
from frond.models.session import DTYPES, ModelSession

PLACEHOLDER: Final = "class-"
"""What the names of unknown classes begin with; a number follows."""

_IMAGENET: Final = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
_PER_PIXEL: Final = 1 / 255
_COMMENT: Final = 1000
_DESCRIPTION: Final = 2000


@dataclass(frozen=True)
class Guess:
    """What could be made out about a graph.

    Attributes:
        text: the whole ``model.yaml``; each guessed line says so in a comment.
        manifest: the same, checked.
        why: what the decoder was recognised by.
        guessed: the fields that are guesses.
        fill_in: sentences: what nobody but the model's author knows.
        problem: why the folder cannot be run as it is; None: it loads and runs a sample.
    """

    text: str
    manifest: ModelManifest
    why: str
    guessed: tuple[str, ...]
    fill_in: tuple[str, ...]
    problem: str | None = None


def guess(path: Path, name: str | None = None) -> Guess:
    """Look into a graph, try it on a sample at several scales, and describe it.

    Args:
        name: of the model; from the file's name where None.

    Raises:
        ModelRejected: BAD_MODEL: it cannot be loaded or run, or no decoder reads its outputs.
    """
    return _described(Graph.open(path), name or _slug(path))


def guess_served(server: ServerSpec, name: str | None = None) -> Guess:
    """The same of a model on a server, which is asked for samples.

    Args:
        name: of the model; its name on the server where None.

    Raises:
        ModelRejected: as :func:`guess`, or the server knows no such model.
        ModelUnavailable: it does not answer.
    """
    graph = Graph.at(server)
    return _described(graph, name or _slug(Path(server.model)), server)


def _described(graph: Graph, name: str, server: ServerSpec | None = None) -> Guess:
    port = _one_input(graph)
    sheet = _Sheet()
    layout, bands = _layout(port, sheet)
    size = _size(graph, port, layout, bands, sheet)
    samples = [drawn(size, bands)]
    # the last one is no image: logits follow it far out of 0…1, probabilities cannot
    scales = (1.0,) if "uint8" in port.dtype else (_PER_PIXEL, 1.0, 30.0)
    outputs = graph.run(*(batch_of(samples, port, layout, s) for s in scales))
    fixed = port.shape[0] if len(port.shape) == 4 else None
    family = recognise(outputs, size, graph.told, fixed or 1)
    if (
        server is None
        and fixed is None
        and len(port.shape) == 4
        and family.decoder != "torchvision"
    ):
        _batch(graph, port, layout, samples, family, sheet)
    if server is not None:
        _server(server, graph, sheet)
    text = _text(name, graph, port, family, layout, bands, size, sheet)
    return Guess(
        text, parse_manifest(text.encode()), family.why, tuple(sheet.guessed), tuple(sheet.fill_in)
    )


def write_folder(path: Path, folder: Path, name: str | None = None) -> Guess:
    """Make a model folder of a graph: a copy of it, and the ``model.yaml`` that was guessed.

    Raises:
        ModelRejected: as :func:`guess`; or there is a ``model.yaml`` already.
    """
    _check_free(folder)
    found = guess(path, name)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / MODEL_FILE
    if not (target.exists() and target.samefile(path)):
        shutil.copyfile(path, target)
        # large graphs keep their weights in a file beside them, whose name the graph knows
        for weights in sorted(path.parent.glob(f"{escape(path.name)}*data")):
            shutil.copyfile(weights, folder / weights.name)
    return _written(found, folder)


def write_served_folder(server: ServerSpec, folder: Path, name: str | None = None) -> Guess:
    """Make a model folder of a model on a server: the ``model.yaml`` that was guessed, and no graph.

    Raises:
        ModelRejected, ModelUnavailable: as :func:`guess_served`; or there is a ``model.yaml``
            already.
    """
    _check_free(folder)
    found = guess_served(server, name)
    folder.mkdir(parents=True, exist_ok=True)
    return _written(found, folder)


def _check_free(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise bad_model(f"{folder} is a file. Say where the model's folder shall be: --out FOLDER.")
    if (folder / MANIFEST_FILE).exists():
        raise bad_model(
            f"{folder / MANIFEST_FILE} is there already, and may hold your own words. "
            "Take another folder, or delete it first."
        )


def _written(found: Guess, folder: Path) -> Guess:
    (folder / MANIFEST_FILE).write_text(found.text, encoding="utf-8")
    try:
        ModelSession(folder, providers=("CPUExecutionProvider",))
    except ModelRejected as e:
        return replace(found, problem=e.detail)
    except ModelUnavailable as e:
        # what was guessed is whole all the same: only its last trial is missing
        return replace(found, problem=f"{e}.")
    return found


class _Sheet:
    """Lines of YAML, and what is to be said of them."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.guessed: list[str] = []
        self.fill_in: list[str] = []
        self.doubts: dict[str, str] = {}
        self.server: dict[str, str] = {}

    def add(self, field: str, value: Any, doubt: str = "", fill: str = "") -> None:
        """One line; ``field`` is its path, whose depth is its indent."""
        doubt = doubt or self.doubts.get(field, "")
        parts = field.split(".")
        shown = f" {_yaml(value)}" if value is not None else ""
        said = f"FILL IN: {fill}" if fill else f"guess: {doubt}" if doubt else ""
        comment = f"  {_comment(said)}" if said else ""
        self.lines.append(f"{'  ' * (len(parts) - 1)}{parts[-1]}:{shown}{comment}")
        if doubt and not fill:
            self.guessed.append(field)


def _comment(text: str) -> str:
    """On one line, whatever names of the graph are in it: what follows a newline would be a field."""
    return f"# {line(text, _COMMENT)}"


def _yaml(value: Any) -> str:
    """A value as YAML reads it back; what cannot be seen is escaped, halves of surrogates are lost."""
    text = json.dumps(value, ensure_ascii=False).encode(errors="replace").decode()
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)


def _one_input(graph: Graph) -> Port:
    if len(graph.inputs) != 1:
        raise bad_model(
            f"The graph takes {len(graph.inputs)} inputs ({', '.join(map(str, graph.inputs))}); "
            "Frond gives it one, the image. Export it with the others as constants."
        )
    port = graph.inputs[0]
    if port.dtype not in DTYPES:
        raise bad_model(
            f"The input is {port}; Frond gives float32, float16 or uint8. Export it with one of "
            "these."
        )
    if len(port.shape) not in (3, 4):
        raise bad_model(
            f"The input is {port}; Frond gives images, that is N×C×H×W or N×H×W×C. This graph takes "
            "something else."
        )
    return port


def _layout(port: Port, sheet: _Sheet) -> tuple[str, int]:
    """NCHW or NHWC, and how many bands."""
    first, last = port.shape[-3], port.shape[-1]
    channels_last = last is not None and last <= 16 and not (first is not None and first <= 16)
    bands = last if channels_last else first
    if bands is None:
        sheet.doubts["bands"] = "the graph leaves it open"
        sheet.doubts["input.layout"] = "the graph leaves it open"
    return ("NHWC" if channels_last else "NCHW"), bands or 3


def _size(graph: Graph, port: Port, layout: str, bands: int, sheet: _Sheet) -> int:
    sides = port.shape[-2:] if layout == "NCHW" else port.shape[-3:-1]
    fixed = {n for n in sides if n is not None}
    if len(fixed) > 1:
        raise bad_model(
            f"The input is {port}; Frond cuts square windows. Export it with equal sides, or with "
            "sides left open."
        )
    if fixed:
        size: int = fixed.pop()
        if not 8 <= size <= 4096:
            raise bad_model(f"The input is {port}; windows may have 8 to 4096 pixels a side.")
        return size
    size = graph.fitting_size(layout, bands)
    meant = "what it was exported for" if size == graph.told.size else "the first that it ran at"
    sheet.doubts["input.size"] = f"the graph takes any size; this is {meant}"
    return size


def _batch(
    graph: Graph, port: Port, layout: str, samples: Sequence[NDArray[np.uint8]], family: Family,
    sheet: _Sheet,
) -> None:  # fmt: skip
    """Graphs are often exported with a free batch and one baked into a reshape within."""
    try:
        outputs = graph.run(batch_of([*samples, *samples], port, layout))
        names = family.params.get("outputs", {})
        read = {names.get(role, role) for role in DECODERS[family.decoder].roles}
        follows = all(
            o.first.ndim and len(o.first) == 2
            for o in outputs
            if len(outputs) == 1 or o.name in read
        )
    except ModelRejected:
        follows = False
    if not follows:
        sheet.doubts["input.batch"] = (
            "the graph declares a free batch, and failed on two windows; export it anew for larger ones"
        )


def _text(
    name: str, graph: Graph, port: Port, family: Family, layout: str, bands: int, size: int,
    sheet: _Sheet,
) -> str:  # fmt: skip
    told = graph.told
    sheet.lines += [
        "# Made by `frond models init`. Lines marked `guess` may be wrong, those marked `FILL IN`",
        "# are yours to write. Then: frond models check FOLDER; frond models push FOLDER",
        _comment(f"The graph takes {'; '.join(map(str, graph.inputs))}"),
        _comment(f"and gives {'; '.join(map(str, graph.outputs))}."),
    ]
    sheet.add("name", name)
    sheet.add("version", "1")
    sheet.add("task", family.task)
    sheet.add("description", line(told.description, _DESCRIPTION))
    if sheet.server:
        sheet.add("server", None)
    for key, value in sheet.server.items():
        sheet.add(f"server.{key}", value)
    sheet.add("decoder", None)
    sheet.add("decoder.name", family.decoder, family.why)
    if family.params:
        sheet.add("decoder.params", None)
    for key, value in family.params.items():
        sheet.add(f"decoder.params.{key}", value, family.doubts.get(key, ""))
    if "background" in family.doubts and "background" not in family.params:
        sheet.lines.append(f"    # background: 0  {_comment(family.doubts['background'])}")
    _classes(family, graph, sheet)
    sheet.add("bands", list(range(1, bands + 1)), "" if bands in (1, 3) else "in the file's order")
    sheet.add("input", None)
    sheet.add("input.name", port.name)
    sheet.add("input.size", size)
    sheet.add("input.layout", layout)
    sheet.add("input.dtype", DTYPES[port.dtype])
    if len(port.shape) == 4 and (port.shape[0] or 1) > 1:
        sheet.add("input.batch", port.shape[0])
    elif "input.batch" in sheet.doubts:
        sheet.add("input.batch", 1)
    _normalization(family, port, bands, told.by, sheet)
    if told.gsd_m is not None:
        sheet.add("gsd_m", told.gsd_m, f"as {told.by} says")
    else:
        sheet.add(
            "gsd_m", None, fill="metres a pixel of the training images; rasters are scaled to it"
        )
        sheet.fill_in.append(
            "gsd_m: the ground metres a pixel of your training images (0.14, for example). Rasters "
            "are resampled to it; without it each is read at its own resolution."
        )
    if family.task == "detection" and not sheet.server:
        sheet.lines.append(
            f"# object_px: {max(4, size // 16)}  # what it finds is about this large, in pixels at gsd_m: "
            "estimates the scale of images that say none"
        )
    largest = max(0, (size - 8) // 2)
    sheet.add(
        "margin", min(size // 8, largest), "half of the largest object, in pixels, or a little more"
    )
    sheet.add("thresholds", None)
    score = told.score or family.score
    sheet.add(
        "thresholds.score",
        score,
        f"as {told.by} says" if told.score else "try others on your images",
    )
    if family.task == "detection":
        sheet.add("thresholds.nms_iou", 0.5, "lower where objects never overlap")
        sheet.add("thresholds.merge_iou", 0.5, "the same, across windows' borders")
    if told.licence:
        sheet.add("licence", told.licence, f"as {told.by} says; yours may differ")
    else:
        sheet.add("licence", "", fill="of the weights, as an SPDX name: Apache-2.0, CC-BY-4.0 …")
        sheet.fill_in.append("licence: who may use the weights, as an SPDX name (CC-BY-4.0).")
    return "\n".join(sheet.lines) + "\n"


def _server(server: ServerSpec, graph: Graph, sheet: _Sheet) -> None:
    """Pinned to the version that it runs now, so that it does not change beneath a job."""
    runs = graph.session.version
    pinned = server.version or (runs if runs in graph.session.versions else None)
    sheet.server = {"url": server.url, "model": server.model}
    if pinned is not None:
        sheet.server["version"] = pinned
    if server.version is None:
        sheet.doubts["server.version"] = "what it runs now; leave it out to follow the server"


def _classes(family: Family, graph: Graph, sheet: _Sheet) -> None:
    names = list(graph.told.classes)
    if family.skipped is not None and len(names) == (family.classes or 0) + 1:
        del names[family.skipped]
    fits = family.classes == len(names) if family.classes else len(names) >= family.at_least
    if names and fits:
        sheet.lines.append("classes:")
        sheet.lines += [f"  - {_yaml(n)}" for n in names]
        return
    count = family.classes or family.at_least
    why = "" if family.classes else "the graph does not show how many; "
    sheet.lines.append(f"classes:  # FILL IN: {why}their names, in the order of training")
    sheet.lines += [f"  - {PLACEHOLDER}{n}" for n in range(count)]
    many = (
        f"{count} names"
        if count > 1
        else "its name"
        if family.classes
        else "their names, as many as it was trained with"
    )
    there = (
        f"the graph's metadata have {count_of(len(names), 'name')}, which do not fit"
        if names
        else "they are not in the graph"
    )
    sheet.fill_in.append(f"classes: {many}, in the order of training; {there}.")


def _normalization(family: Family, port: Port, bands: int, by: str, sheet: _Sheet) -> None:
    if DTYPES[port.dtype] == "uint8":
        return
    sheet.add("normalization", None)
    if family.scaling == "imagenet" and bands == 3:
        doubt = "usual for such models; leave out mean and std where it was trained without"
        sheet.add("normalization.scale", _PER_PIXEL, "1/255: pixels reach the graph as 0…1")
        sheet.add("normalization.mean", _IMAGENET[0], doubt)
        sheet.add("normalization.std", _IMAGENET[1], doubt)
        return
    usual = f"as {by} does" if by == "Ultralytics" else "1.0 where it takes 0…255"
    sheet.add("normalization.scale", _PER_PIXEL, f"1/255: pixels reach the graph as 0…1; {usual}")


def _slug(path: Path) -> str:
    stem = path.resolve().parent.name if path.name == MODEL_FILE else path.stem
    return re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._")[:63] or "my-model"
