"""A token issuer on loopback: real keys, a real JWKS, tokens good and bad."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

AUDIENCE = "frond"


class Issuer:
    """Serves its public keys; ``down`` makes it answer 500, ``moved`` makes it redirect."""

    def __init__(self) -> None:
        self.private: dict[str, Any] = {}
        self.published: list[dict[str, Any]] = []
        self.fetches = 0
        self.down = False
        self.moved = False
        self.says: str | None = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if outer.down or outer.moved:
                    self.send_response(500 if outer.down else 302)
                    self.send_header("Location", outer.url + "/keys")
                    self.end_headers()
                    return
                if self.path.endswith("openid-configuration"):
                    told: Any = {"issuer": outer.says or outer.url, "jwks_uri": outer.url + "/keys"}
                else:
                    outer.fetches += 1
                    told = {"keys": outer.published}
                body = json.dumps(told).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def add(self, kid: str, kind: str = "RS256", *, bits: int = 2048, **more: Any) -> None:
        """Make a key pair and publish its public half."""
        if kind == "ES256":
            ec_key = ec.generate_private_key(ec.SECP256R1())
            self.private[kid] = ec_key
            data = json.loads(ECAlgorithm.to_jwk(ec_key.public_key()))
        elif kind == "EdDSA":
            ed_key = ed25519.Ed25519PrivateKey.generate()
            self.private[kid] = ed_key
            data = json.loads(OKPAlgorithm.to_jwk(ed_key.public_key()))
        else:
            rsa_key = rsa.generate_private_key(65537, bits)
            self.private[kid] = rsa_key
            data = json.loads(RSAAlgorithm.to_jwk(rsa_key.public_key()))
        data.pop("key_ops", None)
        self.published.append({**data, "kid": kid, "use": "sig", **more})

    def claims(self, **more: Any) -> dict[str, Any]:
        now = int(time.time())
        told = {
            "iss": self.url, "aud": AUDIENCE, "sub": "ana", "iat": now, "nbf": now,
            "exp": now + 300, "tenant": "acme", "scope": "openid submit read", **more,
        }  # fmt: skip
        return {k: v for k, v in told.items() if v is not ...}

    def token(
        self,
        kid: str,
        algorithm: str = "RS256",
        *,
        key: Any = None,
        headers: Mapping[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """A token; claims and headers that are ``...`` are left out."""
        signing = self.private[kid] if key is None else key
        told = {k: v for k, v in {"kid": kid, **(headers or {})}.items() if v is not ...}
        return jwt.encode(self.claims(**claims), signing, algorithm=algorithm, headers=told)
