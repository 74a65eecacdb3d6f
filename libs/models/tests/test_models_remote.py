"""Models that a server runs: the same results as the local session, and what goes wrong in plain words."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from model_graphs import beside
from remote_bench import LATER, SIZE, remote_of, status, windows

from frond.contracts.errors import ModelRejected, ModelUnavailable
from frond.contracts.modelspec import ServerSpec
from frond.models.check import check
from frond.models.differences import differences
from frond.models.folder import folder_digest, folder_files, load_manifest, parse_manifest
from frond.models.guess import write_served_folder
from frond.models.remote import is_allowed
from frond.models.session import ModelSession
from frond.models.testing_server import Handler, ModelServer, model_server, served_folder
from frond.models.tuning import tuned


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


@pytest.mark.parametrize("metadata", [True, False])
def test_a_server_is_asked_for_what_the_decoder_reads(local: Path, metadata: bool) -> None:
    """And for all once, where it does not say what there is."""
    wanted = ModelSession(local, threads=1).run(windows(3))
    told = yaml.safe_load((local / "model.yaml").read_text())
    told["input"]["name"] = "input"
    (local / "model.yaml").write_text(yaml.safe_dump(told))
    with model_server(beside(local)) as server:
        server.metadata = metadata
        session = ModelSession(remote_of(local, server))
        given = session.run(windows(3))
        assert {k: v.tobytes() for k, v in given.items()} == {
            k: v.tobytes() for k, v in wanted.items()
        }
        every = [*wanted, "anchors", "scale"]
        asked = [sorted(names) for names in server.asked]
        assert asked == [sorted(every)] * (not metadata) + [sorted(wanted)] * 2


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
