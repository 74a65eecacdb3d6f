"""Frond's outputs by a server of MLServer or KServe against those of the local session, byte by byte.

    python libs/models/tests/interop/try_server.py mlserver ENV/bin/python
    python libs/models/tests/interop/try_server.py kserve ENV/bin/python

ENV has that package and onnxruntime; Frond runs in the Python that runs this.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np
import yaml

from frond.contracts.errors import FrondError
from frond.models.session import ModelSession
from frond.models.testing import blob_model
from frond.models.testing_server import served_folder

CASES = ({}, {"binary": True}, {"version": "v1"}, {"version": "v9"}, {"model": "other"})


def main(package: str, python: str) -> None:
    with socket.socket() as free, tempfile.TemporaryDirectory() as home:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        local = blob_model(Path(home, "local"), size=64, margin=8)
        script, graph = Path(__file__).with_name("server.py"), Path(home, "model.onnx")
        graph.write_bytes((local / "model.onnx").read_bytes())
        env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        server = subprocess.Popen(
            [python, str(script), package, str(graph), str(port)],
            env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            wait(f"http://127.0.0.1:{port}/v2/health/ready", server)
            compare(local, Path(home, "served"), f"http://127.0.0.1:{port}")
        finally:
            server.terminate()
            server.wait(20)


def wait(url: str, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and server.poll() is None:
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise SystemExit("the server did not start")


def compare(local: Path, folder: Path, url: str) -> None:
    windows = list(np.random.default_rng(1).integers(0, 256, (8, 3, 64, 64), dtype=np.uint8))
    wanted = ModelSession(local, threads=1).run(windows)
    for more in CASES:
        served_folder(local, folder, url, **more)
        told = yaml.safe_load((folder / "model.yaml").read_text())
        told["input"]["name"] = "input"
        (folder / "model.yaml").write_text(yaml.safe_dump(told))
        try:
            given = ModelSession(folder).run(windows)
        except FrondError as e:
            sys.stdout.write(f"{more} {type(e).__name__}: {e}\n")
            continue
        same = all(given[k].tobytes() == v.tobytes() for k, v in wanted.items())
        sys.stdout.write(f"{more} {'the same bytes' if same else 'OTHER BYTES'}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
