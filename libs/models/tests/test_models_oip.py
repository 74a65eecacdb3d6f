"""The Open Inference Protocol as bytes: what is written comes back to the last bit."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from frond.models import oip


def asked(values: np.ndarray) -> dict[str, Any]:
    body, headers = oip.request("images", values, ["scores"], binary=False)
    assert headers == {"Content-Type": "application/json"}
    told: dict[str, Any] = json.loads(body)
    return told


@pytest.mark.parametrize("dtype", ["float16", "float32", "uint8"])
@pytest.mark.parametrize("many", [False, True])
def test_numbers_in_json_come_back_to_the_last_bit(dtype: str, many: bool) -> None:
    """Read as doubles and cast, as servers do: few numbers and many, tiny ones, and minus zero."""
    rng = np.random.default_rng(1)
    if dtype == "uint8":
        values = rng.integers(0, 256, (2, 3, 8, 8)).astype(dtype)
    elif many:
        values = rng.normal(0, 1, (2, 3, 128, 128)).astype(dtype)
    else:
        pixels = rng.integers(0, 256, (2, 3, 64, 64)).astype(dtype)
        values = ((pixels * np.float32(1 / 255) - np.float32(0.485)) / np.float32(0.229)).astype(
            dtype
        )
        values[0, 0, 0, :4] = [0.0, -0.0, 6e-8, 65504]
    told = asked(values)
    (tensor,) = told["inputs"]
    read = np.array(tensor["data"], np.float64).astype(dtype)
    assert read.tobytes() == values.tobytes()
    assert tensor["shape"] == list(values.shape)
    assert told["outputs"] == [{"name": "scores"}]


def test_every_pixel_value_of_usual_normalisations_is_written_exactly() -> None:
    """256 numbers a band, of ImageNet's means and others."""
    pixels = np.arange(256, dtype=np.float32)
    for mean in (0, 0.485, 0.456, 0.406, 0.5):
        for std in (1, 0.229, 0.224, 0.225, 0.5):
            values = (pixels * np.float32(1 / 255) - np.float32(mean)) / np.float32(std)
            read = np.array(asked(values)["inputs"][0]["data"], np.float64).astype(np.float32)
            assert read.tobytes() == values.tobytes()


def test_a_name_may_hold_anything() -> None:
    """Quotes and control characters of a server's names stay inside their strings."""
    name = 'in"put\\ \x00 \u202e'
    body, _ = oip.request(name, np.zeros((1, 2), np.float32), [name], binary=False)
    told = json.loads(body)
    assert told["inputs"][0]["name"] == told["outputs"][0]["name"] == name


def test_values_that_do_not_lie_in_order_are_sent_in_order() -> None:
    """A view, transposed: row by row all the same."""
    values = np.arange(12, dtype=np.float32).reshape(3, 4).T
    assert asked(values)["inputs"][0]["data"] == values.ravel().tolist()
    body, headers = oip.request("x", values, [], binary=True)
    length = int(headers[oip.JSON_LENGTH])
    assert body[length:] == np.ascontiguousarray(values).tobytes()
    assert json.loads(body[:length])["parameters"] == {"binary_data_output": True}


@pytest.mark.parametrize(
    "datatype", sorted(["BOOL", "UINT8", "INT32", "INT64", "FP16", "FP32", "FP64"])
)
def test_each_type_is_read_as_binary_and_as_json(datatype: str) -> None:
    """The same numbers either way, in this machine's order, and writable."""
    dtype = np.dtype(oip.dtype_of(datatype))
    values = np.array([[0, 1], [1, 0]], dtype)
    told = {"name": "o", "datatype": datatype, "shape": [2, 2]}
    plain = json.dumps({"outputs": [told | {"data": values.tolist()}]}).encode()
    raw = values.astype(dtype.newbyteorder("<")).tobytes()
    head = json.dumps(
        {"outputs": [told | {"parameters": {"binary_data_size": len(raw)}}], "model_version": 3}
    ).encode()
    for body, length in ((plain, None), (head + raw, str(len(head)))):
        answer = oip.answer(body, length, ["o"])
        assert answer.outputs["o"].dtype == dtype
        assert answer.outputs["o"].tolist() == values.tolist()
        assert answer.outputs["o"].flags.writeable
    assert oip.answer(head + raw, str(len(head)), ["o"]).version == "3"
    with pytest.raises(oip.Nonsense, match="belong to no output"):
        oip.answer(head + raw + b"x", str(len(head)), ["o"])


def test_words_of_a_server_are_on_one_line() -> None:
    """Whatever is in them, and however many there are."""
    assert oip.line(" a\n\x1b[31mb\u202e  c", 100) == "a [31mb c"
    assert oip.line("x" * 10_000_000, 50) == "x" * 50
