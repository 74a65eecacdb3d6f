"""A small server of the Open Inference Protocol v2, for tests: it runs a model folder's graph.

Written from the protocol's own text, with nothing of ``frond.models.oip``. Never shipped.
https://github.com/kserve/open-inference-protocol
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from frond.models.folder import MODEL_FILE

_TYPES: Final = {
    "tensor(float)": "FP32", "tensor(float16)": "FP16", "tensor(double)": "FP64",
    "tensor(uint8)": "UINT8", "tensor(int32)": "INT32", "tensor(int64)": "INT64",
    "tensor(bool)": "BOOL",
}  # fmt: skip
_DTYPES: Final = {
    "FP32": np.float32, "FP16": np.float16, "FP64": np.float64, "UINT8": np.uint8,
    "INT32": np.int32, "INT64": np.int64, "BOOL": np.bool_,
}  # fmt: skip

Answer = Callable[["Handler"], None]


class ModelServer(ThreadingHTTPServer):
    """Serves one model under a name and versions.

    Attributes:
        url: where it listens.
        seen: method and path of each request, in order.
        kinds: content type of each inference request.
        asked: names of the outputs that each inference request is answered with.
        script: what is answered instead, each once, to the first request with that in its path.
        version: that it says it ran, where none is asked for.
        metadata: whether it says what inputs and outputs the model has.
    """

    daemon_threads = True

    def __init__(self, folder: Path, *, name: str = "blob", binary: bool = True) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(
            str(folder / MODEL_FILE), options, providers=["CPUExecutionProvider"]
        )
        self.name, self.binary = name, binary
        self.versions = ["1", "2"]
        self.version = "2"
        self.metadata = True
        self.seen: list[tuple[str, str]] = []
        self.kinds: list[str] = []
        self.asked: list[list[str]] = []
        self.connections = 0
        self.script: list[tuple[str, Answer]] = []
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""

    def instead(self, path: str) -> Answer | None:
        """What the script has for this path, taken out of it."""
        with self._lock:
            for n, (part, answer) in enumerate(self.script):
                if part in path:
                    del self.script[n]
                    return answer
        return None


class Handler(BaseHTTPRequestHandler):
    """One connection, kept alive."""

    protocol_version = "HTTP/1.1"
    server: ModelServer

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        self._handle(b"")

    def do_POST(self) -> None:
        self._handle(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(
        self, status: int, body: bytes | dict[str, Any] = b"", headers: Mapping[str, str] = {}
    ) -> None:
        """Send one."""
        raw = json.dumps(body).encode() if isinstance(body, dict) else body
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _handle(self, body: bytes) -> None:
        served = self.server
        served.seen.append((self.command, self.path))
        self.body = body
        if (scripted := served.instead(self.path)) is not None:
            scripted(self)
            return
        parts = self.path.strip("/").split("/")
        if parts == ["v2"]:
            listed = ["binary_tensor_data"] if served.binary else []
            self.answer(200, {"name": "small", "version": "0", "extensions": listed})
        elif parts == ["v2", "health", "ready"]:
            self.answer(200)
        elif parts[:3] != ["v2", "models", served.name]:
            self.answer(404, {"error": "no such model"})
        else:
            self._model(parts[3:], body)

    def _model(self, rest: list[str], body: bytes) -> None:
        served, version = self.server, self.server.version
        if rest[:1] == ["versions"]:
            version, rest = rest[1], rest[2:]
            if version not in served.versions:
                self.answer(404, {"error": f"no version {version}"})
                return
        if rest == ["ready"]:
            self.answer(200)
            return
        if rest == ["infer"]:
            self._infer(body, version)
            return
        told: dict[str, Any] = {
            "name": served.name, "versions": served.versions, "platform": "onnx",
            "inputs": [], "outputs": [],
        }  # fmt: skip
        if served.metadata:
            told["inputs"] = [_told(node) for node in served.session.get_inputs()]
            told["outputs"] = [_told(node) for node in served.session.get_outputs()]
        self.answer(200, told)

    def _infer(self, body: bytes, version: str) -> None:
        served = self.server
        served.kinds.append(self.headers["Content-Type"])
        head = int(self.headers.get("Inference-Header-Content-Length", len(body)))
        asked, at = json.loads(body[:head]), head
        feeds: dict[str, NDArray[Any]] = {}
        for one in asked["inputs"]:
            dtype = _DTYPES[one["datatype"]]
            if "data" in one:
                values: NDArray[Any] = np.array(one["data"], dtype)
            else:
                size = one["parameters"]["binary_data_size"]
                values, at = np.frombuffer(body[at : at + size], dtype), at + size
            feeds[one["name"]] = values.reshape(one["shape"])
        every = asked.get("parameters", {}).get("binary_data_output", False)
        wanted = asked.get("outputs") or [
            {"name": o.name, "parameters": {"binary_data": every}}
            for o in served.session.get_outputs()
        ]
        served.asked.append([o["name"] for o in wanted])
        try:
            given = served.session.run([o["name"] for o in wanted], feeds)
        except Exception as e:
            self.answer(400, {"error": str(e)})
            return
        outputs, tail = [], b""
        for one, value in zip(wanted, given, strict=True):
            datatype = next(k for k, v in _DTYPES.items() if v == value.dtype)
            out: dict[str, Any] = {
                "name": one["name"], "shape": list(value.shape), "datatype": datatype,
            }  # fmt: skip
            if one.get("parameters", {}).get("binary_data"):
                out["parameters"] = {"binary_data_size": value.nbytes}
                tail += value.tobytes()
            else:
                out["data"] = value.ravel().tolist()
            outputs.append(out)
        told = json.dumps(
            {"model_name": served.name, "model_version": version, "outputs": outputs}
        ).encode()
        headers = {"Inference-Header-Content-Length": str(len(told))} if tail else {}
        self.answer(200, told + tail, headers)


def _told(node: Any) -> dict[str, Any]:
    shape = [n if isinstance(n, int) else -1 for n in node.shape]
    return {"name": node.name, "datatype": _TYPES[node.type], "shape": shape}


@contextmanager
def model_server(folder: Path, *, binary: bool = True) -> Iterator[ModelServer]:
    """A server of a folder's graph, under the name ``blob``; gone on leaving."""
    with ModelServer(folder, binary=binary) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def served_folder(local: Path, folder: Path, url: str, **server: Any) -> Path:
    """A model folder like ``local``, run by the server at ``url``; returns it.

    Args:
        server: more of the section ``server``.
    """
    import yaml

    from frond.models.folder import MANIFEST_FILE

    told = yaml.safe_load((local / MANIFEST_FILE).read_text())
    told["server"] = {"url": url, "model": "blob", **server}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST_FILE).write_text(yaml.safe_dump(told, sort_keys=False))
    return folder


__all__ = ["Answer", "Handler", "ModelServer", "model_server", "served_folder"]
