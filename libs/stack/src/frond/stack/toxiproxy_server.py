"""Toxiproxy as a child process on loopback: a network between the services that can go wrong."""

from __future__ import annotations

import json
import secrets
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from frond.stack.errors import StackError
from frond.stack.minio_server import http_ok
from frond.stack.paths import free_port
from frond.stack.process import Child

Direction = Literal["upstream", "downstream"]
_ANSWER_S: Final = 60.0


class Proxy:
    """One port that leads to one server, and what is wrong on the way. Calls block.

    Attributes:
        listen: ``host:port`` that clients use.
        upstream: ``host:port`` of the server.
    """

    def __init__(self, api: str, name: str, listen: str, upstream: str) -> None:
        self.name = name
        self.listen = listen
        self.upstream = upstream
        self._api = api

    def add(self, kind: str, direction: Direction, toxicity: float = 1.0, **attributes: int) -> str:
        """Something goes wrong from now on; returns its name for :meth:`remove`.

        Args:
            kind: ``latency``, ``bandwidth``, ``slicer``, ``timeout``, ``reset_peer``,
                ``slow_close`` or ``limit_data``, with Toxiproxy's attributes.
            direction: ``upstream`` is what clients send, ``downstream`` what the server answers.
            toxicity: of how many connections, 0 to 1.
        """
        name = f"{kind}-{direction}-{secrets.token_hex(3)}"
        toxic = {"name": name, "type": kind, "stream": direction, "toxicity": toxicity,
                 "attributes": attributes}  # fmt: skip
        _call("POST", f"{self._api}/proxies/{self.name}/toxics", toxic)
        return name

    def remove(self, toxic: str) -> None:
        """It goes right again; what was removed already is no error."""
        _call("DELETE", f"{self._api}/proxies/{self.name}/toxics/{toxic}", missing_ok=True)

    def toxics(self) -> list[str]:
        """The names of what is wrong at the moment."""
        return [t["name"] for t in _call("GET", f"{self._api}/proxies/{self.name}/toxics")]

    def disable(self) -> None:
        """Every connection ends and new ones are refused."""
        self._set(enabled=False)

    def enable(self) -> None:
        """New connections are taken again."""
        self._set(enabled=True)

    def reset(self) -> None:
        """As it was in the beginning: enabled, and nothing wrong."""
        for toxic in self.toxics():
            self.remove(toxic)
        self.enable()

    def _set(self, *, enabled: bool) -> None:
        _call("POST", f"{self._api}/proxies/{self.name}", {"enabled": enabled})


class ToxiproxyServer:
    """One Toxiproxy with its proxies, which are made anew whenever it is started.

    Args:
        routes: per proxy the port it listens on and the port it leads to, both on loopback.
    """

    def __init__(self, binary: Path, routes: Mapping[str, tuple[int, int]], *, log: Path) -> None:
        self.binary = binary
        self.log = log
        self.port = free_port()
        self.api = f"http://127.0.0.1:{self.port}"
        self.proxies = {
            name: Proxy(self.api, name, f"127.0.0.1:{listen}", f"127.0.0.1:{upstream}")
            for name, (listen, upstream) in routes.items()
        }
        self.child: Child | None = None

    def start(self) -> None:
        self.child = Child(
            "Toxiproxy", [self.binary, "-host", "127.0.0.1", "-port", str(self.port)], log=self.log
        )
        self.child.wait_ready(lambda: http_ok(f"{self.api}/version"), 30)
        for proxy in self.proxies.values():
            _call("POST", f"{self.api}/proxies", {"name": proxy.name, "listen": proxy.listen,
                                                  "upstream": proxy.upstream, "enabled": True})  # fmt: skip

    def stop(self) -> None:
        if self.child:
            # it has nothing to save, and on SIGTERM it would wait for connections to end
            self.child.kill()


def _call(
    method: str, url: str, body: Mapping[str, Any] | None = None, *, missing_ok: bool = False
) -> Any:
    request = urllib.request.Request(
        url, method=method, data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "User-Agent": "frond-stack"},
    )  # fmt: skip
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_ANSWER_S) as answer:
            text = answer.read()
    except urllib.error.HTTPError as e:
        if e.code == 404 and missing_ok:
            return None
        raise StackError(f"Toxiproxy: {method} {url}: {e.code} {e.read().decode()}") from e
    except OSError as e:
        raise StackError(f"Toxiproxy does not answer: {method} {url}: {e}") from e
    return json.loads(text) if text else None
