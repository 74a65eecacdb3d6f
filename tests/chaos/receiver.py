"""A webhook receiver that writes down what it gets, and can be told to behave badly."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from standardwebhooks import Webhook

from frond.stack.paths import free_port

_READ_WITHIN_S: Final = 5.0
HOOK: Final = "/hook"
"""The only path that anybody is told of."""


class Mode(StrEnum):
    """How the receiver behaves."""

    OK = "ok"
    DOWN = "down"
    """Nobody listens: connections are refused."""
    ERROR = "500"
    HANG = "hang"
    """The connection is taken and nothing is answered."""
    REDIRECT = "redirect"
    """302 to ``location``."""
    GONE = "410"
    BUSY = "busy"
    """503 with ``Retry-After``."""


@dataclass(frozen=True)
class Delivery:
    """One request that came in, whatever was answered."""

    job_id: str
    webhook_id: str
    signed: bool
    body: str
    """SHA-256 of the body."""
    answered: str
    at: float
    path: str
    read: bool = True
    """Whether the answer was read: who asked and was gone by then cannot know of it."""


class Receiver:
    """An HTTP server on one loopback port for the whole run; threads of its own.

    Args:
        note: is told every delivery, from any thread.

    Attributes:
        url: what jobs name as ``webhook_url``; the same for every installation of a run.
        deliveries: what came in, oldest first.
    """

    def __init__(
        self, secret: str, port: int = 0, note: Callable[[Delivery], None] | None = None
    ) -> None:
        self.secret = secret
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}{HOOK}"
        self.note = note
        self.deliveries: list[Delivery] = []
        self.mode = Mode.OK
        self.location = ""
        self.retry_after = 1
        self._webhook = Webhook(secret)
        self._server: ThreadingHTTPServer | None = None
        self._waking = threading.Event()
        self._counting = threading.Lock()

    def behave(self, mode: Mode, *, location: str = "", retry_after: int = 1) -> None:
        """From now on; requests that hang are let go with an error."""
        self.mode, self.location, self.retry_after = mode, location, retry_after
        self._waking.set()
        self._waking = threading.Event()
        if mode is Mode.DOWN:
            self._close()
        else:
            self.start()

    def start(self) -> None:
        """Listen, if it does not already."""
        if self._server is None:
            self._server = _Server(("127.0.0.1", self.port), _handler(self))
            threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._waking.set()
        self._close()

    def of(self, job_id: str) -> list[Delivery]:
        """The deliveries of one job."""
        return [d for d in list(self.deliveries) if d.job_id == job_id]

    def _close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def not_read(self, number: int) -> None:
        """The answer to a delivery did not arrive."""
        self.deliveries[number] = replace(self.deliveries[number], read=False)

    def take(
        self, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, int, dict[str, str]]:
        """Write a delivery down; returns its number and what is answered."""
        mode = self.mode
        try:
            self._webhook.verify(body, headers)
            signed = True
        except Exception:
            signed = False
        try:
            job_id = str(json.loads(body)["data"]["job_id"])
        except (ValueError, KeyError, TypeError):
            job_id = ""
        got = Delivery(
            job_id, headers.get("webhook-id", ""), signed, hashlib.sha256(body).hexdigest(),
            mode.value, time.time(), path,
        )  # fmt: skip
        with self._counting:
            number = len(self.deliveries)
            self.deliveries.append(got)
        if self.note is not None:
            self.note(got)
        if mode is Mode.HANG:
            self._waking.wait(300)
        answers: dict[Mode, tuple[int, dict[str, str]]] = {
            Mode.OK: (200, {}), Mode.GONE: (410, {}),
            Mode.REDIRECT: (302, {"Location": self.location}),
            Mode.BUSY: (503, {"Retry-After": str(self.retry_after)}),
        }  # fmt: skip
        return (number, *answers.get(mode, (500, {})))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    block_on_close = False


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        number = -1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {k.lower(): v for k, v in self.headers.items()}
            # whoever does anything but POST is nobody's webhook
            path = self.path if self.command == "POST" else f"{self.command} {self.path}"
            self.number, status, more = receiver.take(path, headers, body)
            try:
                self.send_response(status)
                for name, value in more.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()
            except OSError:
                pass  # who hangs is hung up on

        do_GET = do_HEAD = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_POST  # noqa: N815

        def finish(self) -> None:
            super().finish()
            # a sender that has read the answer closes in peace; one that has not, resets
            try:
                self.connection.shutdown(socket.SHUT_WR)
                self.connection.settimeout(_READ_WITHIN_S)
                read = self.connection.recv(1) == b""
            except OSError:
                read = False
            if not read and self.number >= 0:
                receiver.not_read(self.number)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
