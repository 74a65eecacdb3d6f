"""What servers that run models answer: bounded, checked, and refused in plain words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from remote_bench import SIZE, remote_of, status, windows

from frond.contracts.errors import ModelRejected
from frond.contracts.reasons import Reason
from frond.models import oip
from frond.models.session import ModelSession
from frond.models.testing_server import Handler, ModelServer


def test_redirects_are_not_followed(local: Path, server: ModelServer) -> None:
    """Nothing is sent to where they lead."""
    session = ModelSession(remote_of(local, server))
    before = len(server.seen)
    server.script += [("/infer", status(307, Location=f"{server.url}/v2/elsewhere/infer"))]
    with pytest.raises(ModelRejected, match="redirects are not followed"):
        session.run(windows(1))
    assert len(server.seen) == before + 1


def test_answers_are_bounded(
    local: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that does not say how long it is."""
    session = ModelSession(remote_of(local, server))
    monkeypatch.setattr(oip, "MAX_JSON_BYTES", 100_000)
    sent = []

    def endless(handler: Handler) -> None:
        handler.close_connection = True
        handler.send_response(200)
        handler.end_headers()
        for _ in range(10_000):
            handler.wfile.write(b" " * 10_000)
            sent.append(10_000)

    server.script += [("/infer", endless)]
    with pytest.raises(ModelRejected, match="more than 100000 bytes"):
        session.run(windows(1))
    assert sum(sent) < 50_000_000
    server.script += [("/infer", lambda h: h.answer(200, b"x", {"Content-Encoding": "gzip"}))]
    with pytest.raises(ModelRejected, match="packs its answers"):
        session.run(windows(1))


def outputs(**changes: Any) -> Any:
    """An answer with the blob model's outputs for a batch of 8, one of them changed."""
    cells = SIZE // 4
    told = []
    for name, channels in (("heatmap", 1), ("size", 2), ("offset", 2)):
        shape = [8, channels, cells, cells]
        one = {"name": name, "datatype": "FP32", "shape": shape,
               "data": [0.0] * int(np.prod(shape))}  # fmt: skip
        told.append(one | (changes if name == "heatmap" else {}))
    return lambda handler: handler.answer(200, {"outputs": told})


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda h: h.answer(200, b"<html>"), "no JSON"),
        (lambda h: h.answer(200, b"[" * 100_000), "no JSON"),
        (lambda h: h.answer(200, b"[1]"), "no JSON object"),
        (lambda h: h.answer(204), "HTTP 204"),
        (lambda h: h.answer(200, {"outputs": 3}), "no list of outputs"),
        (lambda h: h.answer(200, {"outputs": []}), "lacks the output 'heatmap'"),
        (lambda h: h.answer(200, b"{}", {"Inference-Header-Content-Length": "9"}), "says '9'"),
        (lambda h: h.answer(200, b"{}", {"Inference-Header-Content-Length": "-1"}), "says '-1'"),
        (lambda h: h.answer(401), "credentials"),
        (lambda h: h.answer(413), r"input\.batch"),
        (status(501, "no versions"), "HTTP 501: no versions"),
        (status(400, "batch\nof \x1b[31m8"), r"HTTP 400: batch of \[31m8"),
        (status(400, "ask http://inner:1/x or 127.0.0.1"), r"HTTP 400: ask … or …\)"),
        (outputs(shape=[8, 1, 16]), "heatmap.* 2048 values for the shape 8×1×16"),
        (outputs(shape=[8, 1, 16, -1]), "no shape"),
        (outputs(shape=[0, 2**70], data=[]), "no shape"),
        (outputs(shape="8"), "no shape"),
        (outputs(datatype="BYTES"), "type 'BYTES'"),
        (outputs(datatype="INT8", data=[0.5] * 2048), "none of its type"),
        (outputs(data=["a"] * 2048), "no list of numbers"),
        (outputs(data=[None] * 2048), "no list of numbers"),
        (outputs(data=[[0.0], [0.0, 1.0]]), "no list of numbers"),
        (outputs(data=None), "no list of numbers"),
        (outputs(name="size"), "'size' is there twice"),
        (outputs(parameters={"binary_data_size": 4}), "has not the bytes"),
        (outputs(parameters={"binary_data_size": -4}), "has not the bytes"),
        (outputs(shape=[1, 1, 16, 16], data=[0.0] * 256), "first axis must be the batch"),
    ],
)  # fmt: skip
def test_nonsense_is_refused_in_plain_words(
    local: Path, server: ModelServer, answer: Any, words: str
) -> None:
    """BAD_MODEL, whatever it is; and the next answer is taken again."""
    session = ModelSession(remote_of(local, server))
    server.script += [("/infer", answer)]
    with pytest.raises(ModelRejected, match=words) as e:
        session.run(windows(1))
    assert e.value.reason is Reason.BAD_MODEL
    assert server.url not in e.value.detail
    assert session.run(windows(1))


def test_what_is_not_finite_is_refused(local: Path, server: ModelServer) -> None:
    """By the decoder, as of a local model."""
    session = ModelSession(remote_of(local, server))
    server.script += [("/infer", outputs(data=[float("nan")] * 2048))]
    with pytest.raises(ModelRejected, match=r"finite|NaN"):
        session.detect(windows(1))


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"inputs": [{"name": "input", "datatype": "FP16", "shape": [-1, 3, SIZE, SIZE]}]},
         "takes float16 input, but model.yaml says float32"),
        ({"inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 3, 32, 32]}]}, "3×32×32"),
        ({"inputs": [{"name": "x"}]}, "shape of 'x'"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [-2]}]}, "shape of 'x'"),
        ({"inputs": {"name": 3}}, "no list of tensors"),
        ({"inputs": [{"name": "x" * 201, "datatype": "FP32", "shape": [1]}]}, "name among"),
        ({"inputs": [{"name": "x\n", "datatype": "FP32", "shape": [1]}]}, "name among"),
        ({"inputs": [{"name": "x", "datatype": "F" * 41, "shape": [1]}]}, "datatype of 'x'"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1] * 17}]}, "shape of 'x'"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [10**99]}]}, "shape of 'x'"),
        ({"outputs": [{"name": "x", "datatype": "FP32", "shape": [1]}] * 257}, "257 outputs"),
        ({"inputs": [{"name": "a", "datatype": "FP32", "shape": [1]},
                     {"name": "b", "datatype": "FP32", "shape": [1]}]}, "takes 2 inputs"),
        ({"outputs": [{"name": "labels", "datatype": "BYTES", "shape": [-1]}]},
         "no output of numbers"),
    ],
)  # fmt: skip
def test_metadata_must_fit_the_manifest(
    local: Path, server: ModelServer, told: dict[str, Any], words: str
) -> None:
    """As a local graph must."""
    whole = {
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 3, SIZE, SIZE]}],
        "outputs": [{"name": "heatmap", "datatype": "FP32", "shape": [-1, 1, 16, 16]}],
    } | told
    server.script += [("/models/blob", lambda h: h.answer(200, whole))]
    with pytest.raises(ModelRejected, match=words) as e:
        ModelSession(remote_of(local, server))
    assert len(e.value.detail) < 1000


def test_a_pinned_version_is_asked_for_and_held(local: Path, server: ModelServer) -> None:
    """By its own address; one that is not there, or not the one that ran, is refused."""
    session = ModelSession(remote_of(local, server, version="1"))
    assert ("POST", "/v2/models/blob/versions/1/infer") in server.seen
    server.script += [("/infer", lambda h: h.answer(200, {"outputs": [], "model_version": "2"}))]
    with pytest.raises(ModelRejected, match="lacks"):
        session.run(windows(1))
    with pytest.raises(ModelRejected, match="no version 7"):
        ModelSession(remote_of(local, server, version="7"))
    server.versions = ["3"]
    server.script += [("/models/blob", lambda h: h.answer(200, {"versions": ["3"]}))]
    with pytest.raises(ModelRejected, match="in the versions 3, not 1"):
        ModelSession(remote_of(local, server, version="1"))


def test_another_version_than_the_pinned_one_is_no_answer(local: Path, server: ModelServer) -> None:
    """Results of two versions must not mix in silence."""
    session = ModelSession(remote_of(local, server, version="1"))
    names = [o.name for o in session._graph.get_outputs()]
    empty = [{"name": n, "datatype": "FP32", "shape": [0], "data": []} for n in names]
    other = {"outputs": empty, "model_version": "2"}
    server.script += [("/infer", lambda h: h.answer(200, other))]
    with pytest.raises(ModelRejected, match=r"with version 2, and model\.yaml pins 1"):
        session.run(windows(1))


def test_a_version_that_changes_beneath_is_told_in_the_log(
    local: Path, server: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Where none is pinned, the server's choice is taken."""
    session = ModelSession(remote_of(local, server))
    server.version = "1"
    assert session.run(windows(1))
    assert "runs version 1 now, before it was 2" in caplog.text
