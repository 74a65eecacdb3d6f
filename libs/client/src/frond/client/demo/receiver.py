"""A webhook's receiving end: a server on loopback that verifies what comes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

from frond.contracts.signing import tenant_secrets


@dataclass
class Receiver:
    """What has come so far. ``arrived`` is set by the first webhook of this job.

    ``shut``: the installation sends no webhook to this machine, so that none can come.
    """

    url: str
    job_id: str = ""
    arrived: threading.Event = field(default_factory=threading.Event)
    shut: bool = False
    verified: bool = False
    error: str = ""
    body: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


@contextmanager
def receiving(secrets: str) -> Iterator[Receiver]:
    """Listen on a free port.

    Args:
        secrets: the installation's; each webhook must be signed with the one that its tenant has
            from it. Without any nothing can be verified, and nothing is.
    """
    receiver = Receiver("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {k.lower(): v for k, v in self.headers.items()}
            status = _take(receiver, raw, headers, secrets)
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # the base's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/frond"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def _take(receiver: Receiver, raw: bytes, headers: dict[str, str], secrets: str) -> int:
    try:
        body = json.loads(raw)
        own = tenant_secrets(secrets, body["data"].get("tenant")).split()
        # signed with each of them
        Webhook(own[0] if own else "").verify(raw, headers, json_parse=False)
    except (WebhookVerificationError, ValueError, RuntimeError) as e:
        receiver.error = str(e) or type(e).__name__
        return 401
    except Exception as e:
        # the library has an error of its own for an empty secret
        receiver.error = str(e) or type(e).__name__
        return 500
    if body["data"]["job_id"] != receiver.job_id:
        return 200  # a retry of an earlier demo's
    receiver.verified, receiver.body, receiver.headers = True, body, headers
    receiver.arrived.set()
    return 200
