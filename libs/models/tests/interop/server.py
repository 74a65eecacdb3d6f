"""The blob model in a server of MLServer or KServe. Run by ``try_server.py``, with that package's Python.

No test, no dependency: ``server.py mlserver|kserve GRAPH PORT``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort


def session() -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(os.environ["BLOB_GRAPH"], options)


if "mlserver" in sys.modules or sys.argv[1:2] == ["mlserver"]:
    from mlserver import MLModel
    from mlserver.codecs import NumpyCodec
    from mlserver.types import InferenceResponse

    class Blob(MLModel):
        async def load(self) -> bool:
            self.graph = session()
            return True

        async def predict(self, payload: Any) -> Any:
            values = self.decode(payload.inputs[0], default_codec=NumpyCodec).astype(np.float32)
            names = [o.name for o in self.graph.get_outputs()]
            given = self.graph.run(names, {payload.inputs[0].name: values})
            told = [NumpyCodec.encode_output(n, v) for n, v in zip(names, given, strict=True)]
            return InferenceResponse(model_name=self.name, model_version=self.version, outputs=told)


def mlserver(port: int) -> None:
    home = Path(os.environ["BLOB_GRAPH"]).parent / "mlserver"
    home.mkdir()
    settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": port + 1,
                "parallel_workers": 0, "metrics_endpoint": None}  # fmt: skip
    model = {"name": "blob", "implementation": "server.Blob", "parameters": {"version": "v1"}}
    (home / "settings.json").write_text(json.dumps(settings))
    (home / "model-settings.json").write_text(json.dumps(model))
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    command = str(Path(sys.executable).with_name("mlserver"))
    os.execv(sys.executable, [sys.executable, command, "start", str(home)])


def kserve(port: int) -> None:
    from kserve import InferOutput, InferResponse, Model, ModelServer

    class Blob(Model):
        def load(self) -> bool:
            self.graph = session()
            self.ready = True
            return True

        async def predict(self, payload: Any, *_: Any, **__: Any) -> Any:
            names = [o.name for o in self.graph.get_outputs()]
            given = self.graph.run(names, {payload.inputs[0].name: payload.inputs[0].as_numpy()})
            told = []
            for name, value in zip(names, given, strict=True):
                told.append(InferOutput(name, list(value.shape), "FP32"))
                told[-1].set_data_from_numpy(value, binary_data=True)
            return InferResponse("1", self.name, told, use_binary_outputs=True)

    model = Blob("blob")
    model.load()
    ModelServer(http_port=port, enable_grpc=False, workers=1).start([model])


if __name__ == "__main__":
    os.environ["BLOB_GRAPH"] = sys.argv[2]
    {"mlserver": mlserver, "kserve": kserve}[sys.argv[1]](int(sys.argv[3]))
