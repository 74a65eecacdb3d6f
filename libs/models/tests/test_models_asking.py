"""How long a model's server is asked, how often, and how much it is told and may tell."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from frond.contracts.errors import ModelRejected, ModelUnavailable
from frond.contracts.modelspec import ServerSpec
from frond.models import asking, oip
from frond.models.asking import Asker
from frond.models.testing import blob_model
from frond.models.testing_server import ModelServer, model_server

INFER = "v2/models/blob/infer"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ModelServer]:
    with model_server(blob_model(tmp_path / "local", size=64, margin=8)) as made:
        yield made


def asker(url: str, timeout_s: float = 20) -> Asker:
    spec = ServerSpec(url=url, model="blob", timeout_s=timeout_s)
    return Asker("blob", spec, "v2/models/blob")


def status(code: int, words: str = "", **headers: str) -> Any:
    told = {k.replace("_", "-"): v for k, v in headers.items()}
    return lambda handler: handler.answer(code, {"error": words}, told)


def well(handler: Any) -> None:
    handler.answer(200, {})


@contextlib.contextmanager
def listening(each: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server of bare sockets; its URL."""
    with socket.socket() as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        door.bind(("127.0.0.1", 0))
        door.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    one, _ = door.accept()
                    with one, contextlib.suppress(OSError):
                        each(one)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{door.getsockname()[1]}"
        door.shutdown(socket.SHUT_RDWR)


def test_a_busy_server_is_asked_again_within_the_time(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As often as it says so, and not before it wants to be asked."""
    monkeypatch.setattr(asking, "_PAUSES_S", (0.01, 0.02))
    server.script += [("/infer", status(429)), ("/infer", status(503)), ("/infer", well)]
    asker(server.url).post(INFER, b"{}", {})
    assert len(server.seen) == 3

    def at_a_moment(handler: Any) -> None:
        moment = datetime.now(UTC) + timedelta(seconds=4)
        status(503, Retry_After=format_datetime(moment))(handler)

    for busy in (status(503, Retry_After="1"), at_a_moment):
        server.script += [("/infer", busy), ("/infer", well)]
        began = time.monotonic()
        asker(server.url).post(INFER, b"{}", {})
        assert time.monotonic() - began > 0.5
    server.seen.clear()
    server.script += [("/infer", status(503, Retry_After="30"))]
    with pytest.raises(ModelUnavailable, match="HTTP 503"):
        asker(server.url).post(INFER, b"{}", {})
    assert len(server.seen) == 1


def test_other_outages_are_not_asked_again(server: ModelServer) -> None:
    """An error of the server's own is the caller's to wait out."""
    server.script += [("/infer", status(500, "out of memory"))]
    with pytest.raises(ModelUnavailable) as e:
        asker(server.url).post(INFER, b"{}", {})
    assert e.value.told == "HTTP 500: out of memory"
    assert len(server.seen) == 1


def test_large_requests_go_in_pieces_and_whole(server: ModelServer) -> None:
    """Their length is told before, and each try has all of them."""
    body = bytes(range(256)) * 4096
    got: list[tuple[bytes, str | None, str | None]] = []

    def take(handler: Any) -> None:
        headers = handler.headers
        got.append((handler.body, headers["Content-Length"], headers["Transfer-Encoding"]))
        if len(got) == 1:
            handler.close_connection = True
        else:
            well(handler)

    server.script += [("/infer", take), ("/infer", take)]
    one = asker(server.url)
    one.post(INFER, body, {"Content-Type": "application/octet-stream"})
    assert got == [(body, str(len(body)), None)] * 2
    pieces = list(one._pieces(body, time.monotonic() + 20))
    assert b"".join(pieces) == body
    assert max(map(len, pieces)) <= 256 << 10


def test_a_server_that_takes_its_time_to_listen_is_a_time_out() -> None:
    """It takes a little of the request, again and again: the whole counts."""
    free = threading.Event()

    def sip(one: socket.socket) -> None:
        while not free.wait(0.01):
            one.recv(1 << 20)

    with listening(sip) as url:
        began = time.monotonic()
        with pytest.raises(ModelUnavailable, match=r"no whole answer in 0\.5 s"):
            asker(url, 0.5).post(INFER, bytes(256 << 20), {})
        assert time.monotonic() - began < 10
        free.set()


def test_both_tries_share_the_time() -> None:
    """A connection that ends late leaves its successor what is left."""
    free, holds = threading.Event(), iter((0.6, 250.0))

    def hang_up(one: socket.socket) -> None:
        one.recv(1 << 20)
        free.wait(next(holds))

    with listening(hang_up) as url:
        began = time.monotonic()
        with pytest.raises(ModelUnavailable, match="no whole answer in 1 s"):
            asker(url, 1).get("v2")
        assert time.monotonic() - began < 10
        free.set()


def test_json_is_bounded_below_binary(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes many times its size in memory: alone, and before binary tensors."""
    monkeypatch.setattr(oip, "MAX_JSON_BYTES", 1000)
    monkeypatch.setattr(oip, "MAX_HEAD_BYTES", 400)

    def give(head: int, tail: int, told: int | None) -> Any:
        parameters = {"parameters": {"binary_data_size": tail}} if tail else {"data": []}
        output = {"name": "o", "datatype": "UINT8", "shape": [tail], **parameters}
        body = json.dumps({"outputs": [output]}).encode().ljust(head) + bytes(tail)
        headers = {oip.JSON_LENGTH: str(told)} if told else {}
        return lambda handler: handler.answer(200, body, headers)

    one = asker(server.url)
    for head, tail, told, words in (
        (200, 5000, 200, None),
        (900, 0, 900, None),
        (900, 0, None, None),
        (450, 5000, 450, "450 bytes of it are JSON"),
        (1001, 0, 1001, "1001 bytes of it are JSON"),
        (1001, 0, None, "more than 1000 bytes"),
    ):
        server.script += [("/infer", give(head, tail, told))]
        refused = pytest.raises((ModelRejected, oip.Nonsense), match=words) if words else None
        with refused or contextlib.nullcontext():
            headers, raw = one.post(INFER, b"{}", {})
            given = oip.answer(raw, headers.get(oip.JSON_LENGTH), ["o"])
            assert given.outputs["o"].size == tail


def test_a_refusal_stands_where_the_model_itself_is_ready(server: ModelServer) -> None:
    """Its server may be not ready for another model's sake, and would never be waited out."""
    server.script += [("/infer", status(400, "bad shape")), ("/health/ready", status(400))]
    with pytest.raises(ModelRejected, match="bad shape"):
        asker(server.url).post(INFER, b"{}", {})
    assert ("GET", "/v2/models/blob/ready") in server.seen


@pytest.mark.parametrize(
    ("code", "health", "refused"), [(404, 404, False), (400, 404, True), (404, 200, True)]
)
def test_a_gate_that_knows_nothing_is_no_server_that_refuses(
    server: ModelServer, code: int, health: int, refused: bool
) -> None:
    """404 to everything is what a gate says whose server is not there."""
    server.script += [
        ("/infer", status(code)), ("/health/ready", status(health)),
        ("/blob/ready", status(404)),
    ]  # fmt: skip
    with pytest.raises(ModelRejected if refused else ModelUnavailable):
        asker(server.url).post(INFER, b"{}", {})
