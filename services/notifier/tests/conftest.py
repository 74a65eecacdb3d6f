"""Receivers that really listen: HTTP and SMTP, on loopback, on free ports."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from frond.stack import paths
from frond.store import ObjectStore, StoreSettings

sys.path.insert(0, str(Path(__file__).parent))


@dataclass
class Post:
    """One request that a receiver got."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """An HTTP server that answers with ``script``'s statuses in turn, then with 200.

    ``headers`` are added to every answer that is no 2xx; ``gate``, while it is clear, holds
    answers back.
    """

    script: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    posts: queue.Queue[Post] = field(default_factory=queue.Queue)
    gate: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def next(self, within: float = 60) -> Post:
        return self.posts.get(timeout=within)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    made.gate.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            made.posts.put(Post(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            made.gate.wait(60)
            status = made.script.pop(0) if made.script else 200
            try:
                self.send_response(status)
                for name, value in made.headers.items() if status >= 300 else ():
                    self.send_header(name, value)
                self.send_header("content-length", "0")
                self.end_headers()
            except OSError:
                pass  # the notifier hung up, or was killed

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.gate.set()
    server.shutdown()
    server.server_close()
    thread.join()


@dataclass
class Mailbox:
    """An SMTP server that answers RCPT with ``script``'s lines in turn, then accepts."""

    script: list[str] = field(default_factory=list)
    mails: queue.Queue[EmailMessage] = field(default_factory=queue.Queue)
    port: int = 0

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Any, address: str, options: Any
    ) -> str:
        if self.script:
            return self.script.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.mails.put(message_from_bytes(envelope.content, policy=policy.default))
        return "250 OK"


@pytest.fixture
def mailbox(free_port: Callable[[], int]) -> Iterator[Mailbox]:
    made = Mailbox(port=free_port())
    controller = Controller(made, hostname="127.0.0.1", port=made.port, ready_timeout=120)
    controller.start()
    yield made
    controller.stop()


@pytest.fixture
def free_port() -> Callable[[], int]:
    return paths.free_port


@pytest.fixture
async def store(service_env: dict[str, str]) -> AsyncIterator[ObjectStore]:
    env = service_env
    made = ObjectStore(
        StoreSettings(
            env["FROND_S3_ENDPOINT"], env["FROND_S3_ACCESS_KEY"], env["FROND_S3_SECRET_KEY"],
            env["FROND_S3_BUCKET"],
        )
    )  # fmt: skip
    await made.ensure_bucket()
    yield made
    made.close()
