"""How often reading asks the object store, and for how much."""

from __future__ import annotations

import http.client
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from minio import Minio

from frond.contracts.modelspec import ModelManifest
from frond.contracts.plan import ImagePlan
from frond.raster import RasterReader, chunks_of, configure_gdal

pytestmark = pytest.mark.stack

SIDE, TILE = 4096, 512


class Line(ThreadingHTTPServer):
    """Before a store: hands requests on as they are, signature and all, and keeps count of them."""

    daemon_threads = True

    def __init__(self, endpoint: str) -> None:
        super().__init__(("127.0.0.1", 0), _Hand)
        self.store = endpoint.split("://")[1]
        self.asked: list[tuple[str, int]] = []
        """Method and bytes of the answer's body, in the order of answers."""


class _Hand(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        line: Any = self.server
        beyond = http.client.HTTPConnection(line.store, timeout=30)
        beyond.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            beyond.putheader(name, value)
        beyond.endheaders()
        answer = beyond.getresponse()
        body = answer.read()
        line.asked.append((self.command, len(body)))
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding"):
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        beyond.close()

    do_HEAD = do_GET  # noqa: N815 # the name is http.server's

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def counted(endpoint: str) -> Iterator[Line]:
    line = Line(endpoint)
    turning = threading.Thread(target=line.serve_forever, daemon=True)
    turning.start()
    try:
        yield line
    finally:
        line.shutdown()
        line.server_close()
        turning.join()


@pytest.fixture
def gdal_environment() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize(("interleave", "planes"), [("pixel", 1), ("band", 3)])
def test_a_chunk_costs_a_request_for_each_row_of_tiles(
    interleave: str,
    planes: int,
    stack: Any,
    bucket: str,
    gdal_environment: None,
    make_raster: Callable[..., Path],
    plan_of: Callable[..., ImagePlan],
    manifest: Callable[..., ModelManifest],
) -> None:
    """Tiles that lie side by side in the file are asked for together, once, and nothing else is; the
    first chunk asks for the header, too. Where each band has tiles of its own, so has each its rows."""
    data = np.random.default_rng(3).integers(0, 255, (3, SIDE, SIDE), dtype=np.uint8)
    path = make_raster(data, tiled=True, blockxsize=TILE, blockysize=TILE, interleave=interleave)
    plan = plan_of(path, manifest(size=640, margin=64))
    client = Minio(
        stack.s3_endpoint.split("://")[1], stack.access_key, stack.secret_key, secure=False
    )
    client.fput_object(bucket, "r.tif", str(path))
    source = plan.source.model_copy(update={"uri": f"s3://{bucket}/r.tif"})
    header = [262_144]
    with counted(stack.s3_endpoint) as line:
        configure_gdal(f"http://127.0.0.1:{line.server_port}", stack.access_key, stack.secret_key)
        with RasterReader(source, plan.grid) as reader:
            for chunk in chunks_of(plan):
                line.asked.clear()
                reader.read_block(chunk.windows)
                rows, columns = touched(plan, chunk.windows)
                assert len(rows) * len(columns) > 4
                # what a chunk before has left of a tile that both see is not asked for again
                assert len(line.asked) <= planes * len(rows) + len(header)
                most = TILE * TILE * 3 * len(rows) * len(columns) + sum(header)
                assert {m for m, _ in line.asked} == {"GET"}
                assert sum(n for _, n in line.asked) <= most + 4096
                header = []


def touched(plan: ImagePlan, windows: Sequence[int]) -> tuple[set[int], set[int]]:
    """Rows and columns of tiles that these windows lie in."""
    boxes = [plan.grid.window(i) for i in windows]
    rows = {y // TILE for b in boxes for y in range(b.y0, b.y1)}
    return rows, {x // TILE for b in boxes for x in range(b.x0, b.x1)}
