"""A graph without a manifest: what it says of itself, and what it does with a sample."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from frond.contracts.errors import FrondError, ModelRejected
from frond.contracts.modelspec import ServerSpec
from frond.models.decoders.base import shape_words
from frond.models.folder import bad_model
from frond.models.load_errors import first_line
from frond.models.oip import line
from frond.models.remote import RemoteModel
from frond.models.session import DTYPES, open_graph

_SIZES: Final = (512, 640, 1024, 256, 224)
_LONGEST: Final = 200_000
_NAME: Final = 200


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output as the graph declares it; None for an axis that is free."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    def __str__(self) -> str:
        axes = "×".join("?" if n is None else str(n) for n in self.shape)
        return f"{self.name} {axes or 'scalar'} {self.dtype}"


@dataclass(frozen=True, slots=True)
class Told:
    """What an exporter wrote into the graph: Ultralytics, Deepness, or nobody.

    Attributes:
        by: whose words these are; "" where there are none.
        kind: the model's task, in that exporter's words.
        score: the threshold that was meant.
    """

    by: str = ""
    classes: tuple[str, ...] = ()
    size: int | None = None
    kind: str = ""
    gsd_m: float | None = None
    score: float | None = None
    licence: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Output:
    """What an output held in the trial runs, one array a run."""

    name: str
    runs: tuple[NDArray[Any], ...]

    @property
    def first(self) -> NDArray[Any]:
        return self.runs[0]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.first.shape

    def within(self, low: float, high: float) -> bool:
        """Whether all its values are, in every run; true where there are none."""
        slack = 2e-3
        return all(
            not v.size or (float(v.min()) >= low - slack and float(v.max()) <= high + slack)
            for v in self.runs
        )

    def __str__(self) -> str:
        return f"{self.name} {shape_words(self.first) or 'scalar'}"


@dataclass(frozen=True)
class Graph:
    """A graph that ONNX Runtime can load, or a server's model.

    Attributes:
        told: what its metadata say.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    told: Told
    session: Any = field(repr=False)

    @classmethod
    def open(cls, path: Path, threads: int = 0) -> Graph:
        """Read a file.

        Raises:
            ModelRejected: BAD_MODEL: ONNX Runtime cannot load it.
        """
        if path.is_dir():
            raise bad_model(f"{path} is a folder. Name the graph in it, a file in ONNX format.")
        if not path.is_file():
            raise bad_model(f"There is no file {path}.")
        session = open_graph(path, ("CPUExecutionProvider",), threads)
        metadata = session.get_modelmeta().custom_metadata_map
        return cls(
            tuple(_port(i) for i in session.get_inputs()),
            tuple(_port(o) for o in session.get_outputs()),
            told_by(metadata),
            session,
        )

    @classmethod
    def at(cls, server: ServerSpec) -> Graph:
        """A model on a server, which tells names and shapes and nothing else.

        Raises:
            ModelRejected, ModelUnavailable: as :class:`frond.models.remote.RemoteModel`.
        """
        session = RemoteModel(server.model, server)
        inputs, outputs = session.get_inputs(), session.get_outputs()
        return cls(tuple(map(_port, inputs)), tuple(map(_port, outputs)), Told(), session)

    def run(self, *batches: NDArray[Any]) -> tuple[Output, ...]:
        """Its outputs for inputs as they are, one run each; later runs that end in NaN are left out.

        Raises:
            ModelRejected: BAD_MODEL: it cannot be run on them, or an output is no array.
        """
        names = [o.name for o in self.outputs]
        try:
            runs = [self.session.run(names, {self.inputs[0].name: b}) for b in batches]
        except FrondError:
            raise
        except Exception as e:  # ONNX Runtime's errors have no common base but this
            raise bad_model(f"The graph could not be run on a sample: {first_line(e)}") from e
        if not all(isinstance(v, np.ndarray) for values in runs for v in values):
            raise bad_model("An output of the graph is a list or a mapping, not an array.")
        for name, value in zip(names, runs[0], strict=True):
            if value.dtype.kind not in "fiub":
                raise bad_model(
                    f"The output {name} holds text, which no decoder reads. Export the graph without it."
                )
        kept = [runs[0], *(values for values in runs[1:] if all(_finite(v) for v in values))]
        return tuple(
            Output(name, tuple(values[n] for values in kept)) for n, name in enumerate(names)
        )

    def fitting_size(self, layout: str, bands: int) -> int:
        """For an input whose size is free: what it was exported for, or the first that runs."""
        sizes = (self.told.size, *_SIZES) if self.told.size else _SIZES
        refused: ModelRejected | None = None
        for size in sizes:
            try:
                self.run(batch_of([drawn(size, bands)], self.inputs[0], layout))
            except ModelRejected as e:
                refused = refused or e
            else:
                return size
        raise refused or bad_model("The graph has no size that it runs at.")


def batch_of(
    windows: Sequence[NDArray[np.uint8]], port: Port, layout: str, scale: float = 1.0
) -> NDArray[Any]:
    """Windows [size, size, bands] as a graph's input, filled up to its batch if that is fixed."""
    ordered = [w if layout == "NHWC" else w.transpose(2, 0, 1) for w in windows]
    dtype = DTYPES.get(port.dtype, "float32")
    values = np.stack(ordered).astype(np.float32) * scale
    if len(port.shape) == 3:
        values = values[0]
    else:
        values = np.resize(values, (port.shape[0] or len(values), *values.shape[1:]))
    given: NDArray[Any] = values.astype(dtype)
    return given


def drawn(size: int, bands: int, seed: int = 0) -> NDArray[np.uint8]:
    """A window [size, size, bands] with slopes, rectangles and noise: something to look at."""
    rng = np.random.default_rng([seed, size])
    slope = np.linspace(60, 170, size)
    image = np.repeat((slope[:, None] * 0.5 + slope[None] * 0.5)[..., None], bands, axis=2)
    for _ in range(12):
        x, y = rng.integers(0, size, 2)
        wide, high = rng.integers(max(2, size // 32), max(3, size // 6), 2)
        image[y : y + high, x : x + wide] = rng.integers(0, 256, bands)
    image += rng.normal(0, 6, (size, size, 1))
    return np.clip(image, 0, 255).astype(np.uint8)


def told_by(metadata: Mapping[str, str]) -> Told:
    """What an exporter's metadata say; what cannot be read is passed over."""
    read = {k: _value(v) for k, v in metadata.items() if len(v) <= _LONGEST}
    if "names" in read and ("stride" in read or "task" in read):
        size = _whole(read.get("imgsz"))
        return Told(
            by="Ultralytics", classes=_names(read["names"]), size=size, kind=str(read.get("task") or ""),
            licence=str(read.get("license") or "").split(" ")[0], description=str(read.get("description") or ""),
        )  # fmt: skip
    if "class_names" in read or "model_type" in read:
        pixel = _number(read.get("resolution"))
        score = _number(read.get("det_conf")) or _number(read.get("seg_thresh"))
        return Told(
            by="Deepness", classes=_names(read.get("class_names")), kind=str(read.get("model_type") or ""),
            # in centimetres
            gsd_m=pixel / 100 if pixel and pixel > 0 else None,
            score=score if score and 0 < score < 1 else None,
        )  # fmt: skip
    found = next((_names(read[k]) for k in ("names", "classes", "labels") if k in read), ())
    return Told(by="the graph's metadata", classes=found) if found else Told()


def _finite(values: NDArray[Any]) -> bool:
    return values.dtype.kind != "f" or bool(np.isfinite(values).all())


def _port(node: Any) -> Port:
    shape = tuple(n if isinstance(n, int) and n > 0 else None for n in node.shape)
    return Port(node.name, shape, node.type)


def _value(text: str) -> Any:
    with suppress(ValueError, RecursionError):
        return json.loads(text)
    with suppress(ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return ast.literal_eval(text)
    return text


def _names(value: Any) -> tuple[str, ...]:
    """Names by index: a mapping, a list, or a list of mappings of which the first counts."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        value = value[0]
    if isinstance(value, dict):
        with suppress(ValueError, TypeError):
            value = [v for _, v in sorted((int(k), v) for k, v in value.items())]
    if not isinstance(value, list):
        return ()
    names = [line(str(v), _NAME) or f"class-{n}" for n, v in enumerate(value)]
    taken, seen = set(names), set[str]()
    for n, name in enumerate(names):
        if name in seen:
            while names[n] in taken:
                names[n] += f"-{n}"
            taken.add(names[n])
        seen.add(name)
    return tuple(names)


def _whole(value: Any) -> int | None:
    side = value[0] if isinstance(value, list) and value else value
    usable = isinstance(side, int) and not isinstance(side, bool) and 8 <= side <= 4096
    return side if usable else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
