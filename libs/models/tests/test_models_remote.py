"""Models that a server runs: the same results as the local session, and what goes wrong in plain words."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from frond.contracts.errors import ModelRejected, ModelUnavailable
from frond.contracts.modelspec import ServerSpec
from frond.contracts.reasons import Reason
from frond.models import oip
from frond.models.check import check
from frond.models.differences import differences
from frond.models.folder import folder_digest, folder_files, load_manifest, parse_manifest
from frond.models.guess import write_served_folder
from frond.models.remote import is_allowed
from frond.models.session import ModelSession
from frond.models.testing import MAGENTA, blob_model
from frond.models.testing_server import Handler, ModelServer, model_server, served_folder
from frond.models.tuning import tuned

SIZE = 64


@pytest.fixture
def local(tmp_path: Path) -> Path:
    return blob_model(tmp_path / "local", size=SIZE, margin=8)


@pytest.fixture
def server(local: Path) -> Iterator[ModelServer]:
    with model_server(local) as made:
        yield made


def windows(count: int, seed: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    made = rng.integers(40, 120, (count, 3, SIZE, SIZE)).astype(np.uint8)
    for window in made:
        for _ in range(3):
            x, y = rng.integers(4, SIZE - 20, 2)
            window[:, y : y + 12, x : x + 12] = np.array(MAGENTA)[:, None, None]
    return list(made)


def remote_of(local: Path, server: ModelServer, **more: Any) -> Path:
    return served_folder(local, local.parent / "served", server.url, **more)


LATER = {"Retry-After": "600"}


def status(code: int, words: str = "", **headers: str) -> Any:
    return lambda handler: handler.answer(code, {"error": words}, headers)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_results_are_those_of_the_local_session_bit_for_bit(
    local: Path, tmp_path: Path, binary: bool, dtype: str
) -> None:
    """Outputs and detections, in full batches, as binary tensors and as JSON."""
    if dtype == "uint8":
        takes_bytes(local)
    with model_server(local, binary=binary) as server:
        there = ModelSession(remote_of(local, server))
        here = ModelSession(local, threads=1)
        assert there.batch == here.batch == 8
        assert there.providers == ("OpenInferenceProtocol",)
        seen = windows(11)
        ours, theirs = here.run(seen[:8]), there.run(seen[:8])
        assert {k: v.tobytes() for k, v in ours.items()} == {
            k: v.tobytes() for k, v in theirs.items()
        }
        found = there.detect(seen)
        assert sum(map(len, found)) > 11
        for a, b in zip(here.detect(seen), found, strict=True):
            assert a.boxes.tobytes() == b.boxes.tobytes()
            assert a.scores.tobytes() == b.scores.tobytes()
        kind = "application/octet-stream" if binary else "application/json"
        assert set(server.kinds) == {kind}
        # metadata, trial run and four more on one kept connection
        assert server.connections == 1


def takes_bytes(folder: Path) -> None:
    """Change a folder's graph so that it takes uint8."""
    import onnx
    from onnx import TensorProto, helper

    path = folder / "model.onnx"
    model = onnx.load(str(path))
    for node in model.graph.node:
        node.input[:] = ["asked" if n == "input" else n for n in node.input]
    model.graph.node.insert(0, helper.make_node("Cast", ["input"], ["asked"], to=TensorProto.FLOAT))
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    onnx.save(model, str(path))
    told = yaml.safe_load((folder / "model.yaml").read_text())
    told["input"]["dtype"] = "uint8"
    (folder / "model.yaml").write_text(yaml.safe_dump(told))


def test_binary_may_be_said_where_a_server_does_not_list_it(local: Path) -> None:
    """KServe's own server takes binary tensors and lists no such extension."""
    with model_server(local, binary=False) as server:
        session = ModelSession(remote_of(local, server, binary=True))
        assert session.detect(windows(1))
        assert set(server.kinds) == {"application/octet-stream"}
        assert ("GET", "/v2") not in server.seen


def test_a_server_without_metadata_is_asked_with_what_the_manifest_says(local: Path) -> None:
    """MLServer and KServe often say nothing of inputs and outputs: input.name is needed then."""
    with model_server(local) as server:
        server.metadata = False
        folder = remote_of(local, server)
        with pytest.raises(ModelRejected, match=r"input\.name"):
            ModelSession(folder)
        told = yaml.safe_load((folder / "model.yaml").read_text())
        told["input"]["name"] = "input"
        (folder / "model.yaml").write_text(yaml.safe_dump(told))
        (found,) = ModelSession(folder).detect(windows(1))
        (wanted,) = ModelSession(local, threads=1).detect(windows(1))
        assert found.boxes.tobytes() == wanted.boxes.tobytes()


def test_the_batch_is_the_manifests_else_the_settings_else_eight(
    local: Path, server: ModelServer, tmp_path: Path
) -> None:
    """Nothing is measured, and nothing kept about the machine."""
    folder = remote_of(local, server)
    cache = tmp_path / "cache"
    session = tuned(folder, cache_dir=cache)
    assert (session.batch, session.rows_alike, session.sizes_alike) == (8, False, False)
    assert session.remote
    assert tuned(folder, cache_dir=cache, batch=3).batch == 3
    assert not cache.exists()
    told = yaml.safe_load((folder / "model.yaml").read_text())
    told["input"]["batch"] = 5
    (folder / "model.yaml").write_text(yaml.safe_dump(told))
    assert tuned(folder, cache_dir=cache, batch=3).batch == 5


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_server_that_is_busy_is_unavailable_and_then_well(
    local: Path, server: ModelServer, code: int
) -> None:
    """At load and at a run; the same session goes on afterwards."""
    folder = remote_of(local, server)
    server.script += [("/infer", status(code, "busy", **LATER))]
    with pytest.raises(ModelUnavailable, match=f"HTTP {code}: busy"):
        ModelSession(folder)
    session = ModelSession(folder)
    server.script += [("/infer", status(code, **LATER))]
    with pytest.raises(ModelUnavailable) as e:
        session.run(windows(1))
    assert e.value.told == f"HTTP {code}"
    assert len(session.run(windows(1))["heatmap"]) == 1


def test_nobody_there_is_unavailable(local: Path, server: ModelServer) -> None:
    """Connections refused, and names that mean no host."""
    folder = remote_of(local, server)
    session = ModelSession(folder)
    server.shutdown()
    server.server_close()
    with pytest.raises(ModelUnavailable):
        ModelSession(folder)
    nowhere = served_folder(local, local.parent / "nowhere", "http://nowhere.invalid:1")
    with pytest.raises(ModelUnavailable):
        ModelSession(nowhere)
    assert session.manifest.server is not None


def test_a_server_that_says_it_is_not_ready_is_waited_for(local: Path, server: ModelServer) -> None:
    """While it starts it may not know its models; once ready, what it does not know is an error."""
    folder = remote_of(local, server)
    server.script += [
        ("/models/blob", status(400, "unknown model")), ("/health/ready", status(400)),
        ("/blob/ready", status(400)),
    ]  # fmt: skip
    with pytest.raises(ModelUnavailable, match="not ready"):
        ModelSession(folder)
    with pytest.raises(ModelRejected, match=r"404: no such model.*Check server"):
        ModelSession(remote_of(local, server, model="blobs"))


@pytest.mark.parametrize("drip", [False, True])
def test_an_answer_that_does_not_come_is_a_time_out(
    local: Path, server: ModelServer, drip: bool
) -> None:
    """Nothing for too long, or a byte now and then: within the time that the manifest gives."""
    session = ModelSession(remote_of(local, server))
    asker = session._graph._asker
    patient = asker._server
    gone = threading.Event()

    def slow(handler: Handler) -> None:
        handler.close_connection = True
        if drip:
            handler.send_response(200)
            handler.end_headers()
            while not gone.wait(0.05):
                handler.wfile.write(b" ")
        gone.wait(250)

    server.script += [("/infer", slow)]
    # for this one question: before and after it a busy machine has as long as it needs
    asker._server = patient.model_copy(update={"timeout_s": 0.4})
    began = time.monotonic()
    with pytest.raises(ModelUnavailable, match=r"no whole answer in 0\.4 s"):
        session.run(windows(1))
    assert time.monotonic() - began < patient.timeout_s
    gone.set()
    asker._server = patient
    assert session.run(windows(1))


def test_a_kept_connection_that_ends_is_no_outage(local: Path, server: ModelServer) -> None:
    """The request is sent once more, on a fresh one."""
    session = ModelSession(remote_of(local, server))

    def hang_up(handler: Handler) -> None:
        handler.close_connection = True

    server.script += [("/infer", hang_up)]
    assert session.run(windows(1))
    server.script += [("/infer", hang_up), ("/infer", hang_up)]
    with pytest.raises(ModelUnavailable):
        session.run(windows(1))


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


def test_only_servers_that_are_named_are_asked(local: Path, server: ModelServer) -> None:
    """The sentence names the setting, and nothing is sent."""
    folder = remote_of(local, server)
    for servers in ((), ("http://127.0.0.1:1",), (f"{server.url}/other",)):
        with pytest.raises(ModelRejected, match="FROND_MODEL_SERVERS") as e:
            ModelSession(folder, servers=servers)
        assert server.url not in e.value.detail
    assert not server.seen
    assert ModelSession(folder, servers=("http://127.0.0.1:1", f"{server.url}/")).batch == 8


@pytest.mark.parametrize(
    ("url", "base", "allowed"),
    [
        ("http://a:8000", "http://a:8000", True),
        ("http://A", "http://a:80/", True),
        ("https://a/x/y", "https://a/x", True),
        ("https://a/xy", "https://a/x", False),
        ("https://a", "https://a/x", False),
        ("https://a", "http://a", False),
        ("http://a.b", "http://a", False),
        ("https://a.example.evil", "https://a.example", False),
        ("https://a.example.evil/x", "https://a.example/x", False),
        ("https://evil/a.example", "https://a.example", False),
        ("https://a.example:8443", "https://a.example", False),
        ("http://a:8001", "http://a:8000", False),
    ],
)
def test_what_lies_below_a_base_url(url: str, base: str, allowed: bool) -> None:
    """Scheme, host, port, and whole parts of the path."""
    assert is_allowed(url, (base,)) is allowed


MANIFEST = """
name: palms
decoder: {name: yolo}
classes: [palm]
input: {size: 256}
server: {url: "%s", model: %s}
"""


@pytest.mark.parametrize(
    ("url", "model"),
    [
        ("ftp://a", "m"), ("http://", "m"), ("http://u:p@a", "m"), ("http://a?x=1", "m"),
        ("http://a#f", "m"), ("http://a/v2", "m"), ("http://a/../b", "m"), ("http://a/%2e", "m"),
        ("http://a b", "m"), ("http://a\\\\b", "m"), ("http://a:99999", "m"), ("a:8000", "m"),
        ("http://a..b", "m"), ("http://a", "../m"), ("http://a", "m/infer"), ("http://a", "''"),
    ],
)  # fmt: skip
def test_addresses_that_are_none_are_refused(url: str, model: str) -> None:
    """In the manifest already: they never reach the network."""
    with pytest.raises(ModelRejected, match="server"):
        parse_manifest((MANIFEST % (url, model)).encode())


def test_a_folder_needs_a_graph_or_a_server(local: Path, server: ModelServer) -> None:
    """And not both; its digest is of its manifest, and differences are told without asking it."""
    folder = remote_of(local, server)
    assert folder_files(folder) == ["model.yaml"]
    assert load_manifest(folder).server is not None
    first = folder_digest(folder)
    told = {d.what for d in differences(local, folder)}
    assert {"model.onnx", "server.url", "server.model", "graph input 0"} <= told
    assert not server.seen
    other = served_folder(local, local.parent / "other", server.url, version="1")
    assert folder_digest(other) != first
    assert [d.what for d in differences(folder, other)] == ["server.version"]
    (folder / "model.onnx").write_bytes((local / "model.onnx").read_bytes())
    with pytest.raises(ModelRejected, match="names a server"):
        load_manifest(folder)


def test_check_tells_where_it_runs(local: Path, server: ModelServer) -> None:
    """What fits, what to pin, and an outage in words."""
    report = check(remote_of(local, server))
    said = "\n".join(f.text for f in report.findings)
    assert report.fits, said
    assert f"The server at {server.url} runs it" in said
    assert "server.version is not set" in said
    assert "ms on its server" in said
    server.script += [("/infer", status(503, "warming up", **LATER))]
    (finding,) = check(remote_of(local, server)).findings
    assert finding.level == "wrong"
    assert "warming up" in finding.text


def test_several_threads_share_a_session(local: Path, server: ModelServer) -> None:
    """Requests are in flight side by side, and nobody gets another's answer."""
    there = ModelSession(remote_of(local, server))
    here = ModelSession(local, threads=1)
    parts = [windows(8, seed) for seed in range(6)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(there.run, parts))
    for part, given in zip(parts, answers, strict=True):
        assert given["heatmap"].tobytes() == here.run(part)["heatmap"].tobytes()


def test_init_writes_what_a_server_tells(local: Path, server: ModelServer, tmp_path: Path) -> None:
    """A folder without a graph that runs as it is, pinned to the version that the server has."""
    spec = ServerSpec(url=server.url, model="blob")
    found = write_served_folder(spec, tmp_path / "made")
    assert found.problem is None
    assert found.manifest.server == spec.model_copy(update={"version": "2"})
    assert "server.version" in found.guessed
    assert found.manifest.decoder.name == "centerpoint"
    assert (found.manifest.input.size, found.manifest.input.name) == (SIZE, "input")
    assert folder_files(tmp_path / "made") == ["model.yaml"]
    assert found.manifest.name == "blob"
    with pytest.raises(ModelRejected, match="there already"):
        write_served_folder(spec, tmp_path / "made")
    pinned = write_served_folder(spec.model_copy(update={"version": "1"}), tmp_path / "pinned")
    assert pinned.manifest.server is not None
    assert pinned.manifest.server.version == "1"
    server.script += [("/infer", status(503, **LATER))]
    with pytest.raises(ModelUnavailable):
        write_served_folder(spec, tmp_path / "third")
    assert not (tmp_path / "third").exists()


def test_init_keeps_what_it_guessed_where_only_the_last_trial_fails(
    local: Path, server: ModelServer, tmp_path: Path
) -> None:
    """The folder is whole, and the outage is told as what is still to be seen to."""
    spec = ServerSpec(url=server.url, model="blob")
    write_served_folder(spec, tmp_path / "first")
    runs = len(server.kinds)
    server.kinds.clear()
    write_served_folder(spec, tmp_path / "second")
    assert len(server.kinds) == runs
    well = [("/infer", lambda h: h._model(["infer"], h.body))] * (runs - 1)
    server.script += [*well, ("/infer", status(503, "warming up", **LATER))]
    found = write_served_folder(spec, tmp_path / "third")
    assert "warming up" in (found.problem or "")
    assert load_manifest(tmp_path / "third").server is not None
