"""The Open Inference Protocol v2 as bytes: requests written, answers read. Knows no network.

Tensors travel as JSON arrays, or, by the binary tensor data extension, little-endian and row by row
behind the JSON, whose length a header tells.
https://github.com/kserve/open-inference-protocol
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

JSON_LENGTH: Final = "Inference-Header-Content-Length"
BINARY: Final = "binary_tensor_data"
"""What a server that takes binary tensors lists among its extensions."""

MAX_JSON_BYTES: Final = 64 << 20
"""Of an answer without binary tensors: as JSON it takes twenty times as much in memory."""
MAX_HEAD_BYTES: Final = 1 << 20
"""Of what is JSON where binary tensors follow, and of metadata."""

_NUMPY: Final = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1",
    "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
_ORT: Final = {
    "BOOL": "bool", "FP16": "float16", "FP32": "float", "FP64": "double",
}  # fmt: skip
_MOST_AXES: Final = 16
_MOST_TENSORS: Final = 256
_LONGEST_NAME: Final = 200
_LONGEST_DATATYPE: Final = 40
_LONGEST_SIDE: Final = 1 << 31
_FEW: Final = 1 << 16
_HERE: Final = "\x00data\x00"


class Nonsense(ValueError):
    """An answer that is none. The message is the end of a sentence, without its full stop."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output as the server declares it, named as ONNX Runtime names its own.

    Attributes:
        shape: None for an axis that is free.
        type: ``tensor(float)`` and the like.
    """

    name: str
    shape: tuple[int | None, ...]
    datatype: str

    @property
    def type(self) -> str:
        return f"tensor({_ORT.get(self.datatype, self.datatype.lower())})"

    @property
    def readable(self) -> bool:
        """Whether it holds numbers: BYTES, for example, does not."""
        return self.datatype in _NUMPY


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server made of a request.

    Attributes:
        version: of the model that it ran, where it says.
    """

    outputs: dict[str, NDArray[Any]]
    version: str | None


def datatype_of(dtype: str) -> str:
    """The protocol's word for a numpy type, ``FP32`` for ``float32``."""
    return next(k for k, v in _NUMPY.items() if np.dtype(v) == np.dtype(dtype))


def dtype_of(datatype: str) -> str:
    """The numpy type of one of the protocol's, ``float32`` for ``FP32``; KeyError: there is none."""
    return np.dtype(_NUMPY[datatype]).name


def tensors(told: Any, where: str) -> tuple[Tensor, ...]:
    """Inputs or outputs out of a model's metadata.

    Raises:
        Nonsense: they are not as the protocol has them.
    """
    found = []
    listed = told if isinstance(told, list) else [told]
    if len(listed) > _MOST_TENSORS:
        raise Nonsense(f"its metadata have {len(listed)} {where}")
    for one in listed:
        if not isinstance(one, dict) or not isinstance(name := one.get("name"), str):
            raise Nonsense(f"its metadata's {where} are no list of tensors with names")
        if not 1 <= len(name) <= _LONGEST_NAME or not name.isprintable():
            raise Nonsense(
                f"a name among its metadata's {where} is empty, too long or not to be read"
            )
        shape, datatype = one.get("shape"), one.get("datatype")
        if (
            not isinstance(shape, list)
            or len(shape) > _MOST_AXES
            or not all(_is_whole(n) and -1 <= n < _LONGEST_SIDE for n in shape)
        ):
            raise Nonsense(f"the shape of {name[:100]!r} in its metadata is no list of sizes")
        if (
            not isinstance(datatype, str)
            or len(datatype) > _LONGEST_DATATYPE
            or not datatype.isprintable()
        ):
            raise Nonsense(f"the datatype of {name[:100]!r} in its metadata is none")
        found.append(Tensor(name, tuple(None if n < 0 else n for n in shape), datatype))
    return tuple(found)


def request(
    name: str, values: NDArray[Any], outputs: Sequence[str], *, binary: bool
) -> tuple[bytes, dict[str, str]]:
    """Body and headers that ask for ``outputs``, or for all where there are none."""
    datatype = datatype_of(values.dtype.name)
    tensor: dict[str, Any] = {"name": name, "shape": values.shape, "datatype": datatype}
    asked: dict[str, Any] = {"inputs": [tensor]}
    if outputs:
        how = {"parameters": {"binary_data": True}} if binary else {}
        asked["outputs"] = [{"name": o, **how} for o in outputs]
    elif binary:
        asked["parameters"] = {"binary_data_output": True}
    if not binary:
        tensor["data"] = _HERE
        before, after = json.dumps(asked).split(json.dumps(_HERE))
        body = f"{before}{_numbers(values)}{after}".encode()
        return body, {"Content-Type": "application/json"}
    raw = np.ascontiguousarray(values, np.dtype(_NUMPY[datatype])).tobytes()
    tensor["parameters"] = {"binary_data_size": len(raw)}
    head = json.dumps(asked).encode()
    return head + raw, {
        "Content-Type": "application/octet-stream",
        JSON_LENGTH: str(len(head)),
    }


def answer(body: bytes | bytearray, json_length: str | None, wanted: Sequence[str]) -> Answer:
    """An answer's outputs: those wanted, or all that hold numbers where none are named.

    Args:
        json_length: the header's value; None: the whole body is JSON.

    Raises:
        Nonsense: it is no answer of the protocol, or lacks an output.
    """
    length = len(body)
    if json_length is not None:
        length = int(json_length) if re.fullmatch(r"[0-9]{1,18}", json_length) else -1
        if not 0 <= length <= len(body):
            raise Nonsense(f"its header {JSON_LENGTH} says {json_length[:40]!r}")
    most = MAX_JSON_BYTES if length == len(body) else MAX_HEAD_BYTES
    if length > most:
        raise Nonsense(f"{length} bytes of it are JSON, and {most} are taken")
    told = document(body[:length])
    listed = told.get("outputs")
    if not isinstance(listed, list) or not all(isinstance(o, dict) for o in listed):
        raise Nonsense("it has no list of outputs")
    found: dict[str, NDArray[Any]] = {}
    at = length
    for one in listed:
        name = str(one.get("name"))
        parameters = one.get("parameters")
        size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        raw: memoryview | None = None
        if size is not None:
            if not _is_whole(size) or not 0 <= size <= len(body) - at:
                raise Nonsense(f"the output {name[:100]!r} has not the bytes that it says")
            raw = memoryview(body)[at : at + size]
            at += size
        if name in wanted or (not wanted and one.get("datatype") in _NUMPY):
            if name in found:
                raise Nonsense(f"the output {name[:100]!r} is there twice")
            found[name] = _values(name, one, raw)
    if at != len(body):
        raise Nonsense(f"{len(body) - at} bytes of it belong to no output")
    for name in wanted:
        if name not in found:
            there = ", ".join(line(str(o.get("name")), 100) for o in listed[:10]) or "none"
            raise Nonsense(f"it lacks the output {name!r}; there is: {there}")
    version = told.get("model_version")
    return Answer(found, str(version)[:200] if version not in (None, "") else None)


def line(text: str, most: int) -> str:
    """A server's words on one line, of at most so many characters, all of which can be seen."""
    # first, because a text may be very long
    shown = text[: 10 * most]
    return " ".join("".join(c if c.isprintable() else " " for c in shown).split())[:most]


def document(raw: bytes | bytearray) -> dict[str, Any]:
    """A JSON object.

    Raises:
        Nonsense: it is none.
    """
    try:
        told = json.loads(raw)
    except (ValueError, RecursionError) as e:
        raise Nonsense("it is no JSON") from e
    if not isinstance(told, dict):
        raise Nonsense("it is no JSON object")
    return told


def _numbers(values: NDArray[Any]) -> str:
    """A JSON array of them all, each of which comes back to the last bit.

    Windows hold few numbers many times: 256 for each band. Each is written once, and shortly.
    """
    flat = np.ascontiguousarray(values).ravel()
    # as bits: 0 and -0 are two
    bits, places = np.unique(flat.view(f"u{flat.itemsize}"), return_inverse=True)
    if len(bits) > _FEW:
        return json.dumps(flat.tolist())
    words = np.array([_word(v) for v in bits.view(flat.dtype)], dtype=object)
    return f"[{','.join(words[places].tolist())}]"


def _word(value: Any) -> str:
    """The shortest that gives the same number, also where it is read as a double first."""
    short = str(value)
    if value.dtype.kind == "f" and np.isfinite(value) and value.dtype.type(float(short)) == value:
        return short
    return json.dumps(value.item())


def _values(name: str, told: Mapping[str, Any], raw: memoryview | None) -> NDArray[Any]:
    shape, datatype = told.get("shape"), told.get("datatype")
    label = f"the output {name[:100]!r}"
    if datatype not in _NUMPY:
        raise Nonsense(f"{label} is of the type {str(datatype)[:40]!r}, not of numbers")
    if (
        not isinstance(shape, list)
        or len(shape) > _MOST_AXES
        or not all(_is_whole(n) and n >= 0 for n in shape)
    ):
        raise Nonsense(f"{label} has no shape")
    dtype = np.dtype(_NUMPY[datatype])
    count = math.prod(shape)
    if raw is None:
        values = _listed(label, told.get("data"), dtype)
    elif len(raw) != count * dtype.itemsize:
        raise Nonsense(f"{label} has {len(raw)} bytes for the shape {_axes(shape)} of {datatype}")
    elif datatype == "BOOL":
        values = np.frombuffer(raw, np.uint8) != 0
    else:
        # a copy of its own: aligned, and nobody else's
        values = np.frombuffer(raw, dtype).astype(dtype.newbyteorder("="))
    if values.size != count:
        raise Nonsense(f"{label} has {values.size} values for the shape {_axes(shape)}")
    try:
        return values.reshape(shape)
    except (ValueError, OverflowError) as e:  # no values, and an axis beyond all bounds
        raise Nonsense(f"{label} has no shape") from e


def _listed(label: str, data: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Numbers out of JSON, flat or nested, without loss but the rounding that the type means."""
    try:
        if not isinstance(data, list):
            raise ValueError("no list")
        read = np.asarray(data)
    except (ValueError, OverflowError) as e:
        raise Nonsense(f"{label} has no list of numbers") from e
    if read.dtype.kind not in "biuf":
        raise Nonsense(f"{label} has no list of numbers")
    with np.errstate(over="ignore", invalid="ignore"):
        cast = read.astype(dtype.newbyteorder("="))
    if dtype.kind != "f" and not (cast == read).all():
        raise Nonsense(f"{label} has numbers that are none of its type")
    return cast.ravel()


def _axes(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) or "of one number"


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


__all__ = [
    "BINARY",
    "JSON_LENGTH",
    "MAX_HEAD_BYTES",
    "MAX_JSON_BYTES",
    "Answer",
    "Nonsense",
    "Tensor",
    "answer",
    "datatype_of",
    "document",
    "dtype_of",
    "line",
    "request",
    "tensors",
]
