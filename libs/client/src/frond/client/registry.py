"""The model registry by REST: looked at by everybody, changed by admins."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

import httpx

from frond.client.errors import FrondClientError
from frond.client.http import checked, object_of
from frond.client.transfer import fetch
from frond.contracts.modelspec import is_alias
from frond.contracts.weights import hidden_weights

T = TypeVar("T")
_CONNECT_S, _STORED_S = 30.0, 3600.0
_TYPES = {".yaml": "application/yaml", ".md": "text/markdown"}


class Patiently(Protocol):
    """Makes a call again until it is answered."""

    def __call__(self, call: Callable[[], T]) -> T: ...


class ModelRegistry:
    """``Client.registry``. Pushing and moving need a key with the scope ``admin``."""

    def __init__(
        self,
        http: httpx.Client,
        api_url: str,
        ask: Callable[..., dict[str, Any]],
        patiently: Patiently,
    ) -> None:
        self._http = http
        self._api_url = api_url
        self._ask = ask
        self._patiently = patiently

    def model(self, name: str) -> dict[str, Any]:
        """One model: its ``versions`` and ``aliases``, with the history of each alias."""
        return self._ask("GET", f"/models/{_part(name)}")

    def version(self, ref: str) -> dict[str, Any]:
        """What ``name``, ``name@alias`` or ``name@digest`` means: ``digest``, ``manifest``, ``files``."""
        name, _, version = ref.partition("@")
        return self._ask("GET", f"/models/{_part(name)}/versions/{_part(version or 'production')}")

    def push(
        self, folder: str | Path, *, alias: str | None = "production", why: str = ""
    ) -> dict[str, Any]:
        """Store a folder as an immutable version; the same one again changes nothing.

        Args:
            alias: to point at it; None: none.

        Raises:
            FrondClientError: there is nothing to store, the graph's weights would not be, or the alias
                cannot be one. Nothing is sent then.
        """
        if alias and not is_alias(alias):
            raise FrondClientError(
                f"{alias[:100]!r} cannot be an alias. Use lower-case letters, digits and dashes, and "
                "nothing that looks like a digest."
            )
        root = Path(folder)
        there = [p.relative_to(root) for p in sorted(root.rglob("*")) if p.is_file()]
        hidden = {p.as_posix() for p in there if any(part.startswith(".") for part in p.parts)}
        names = [p.as_posix() for p in there if p.as_posix() not in hidden]
        if not names:
            raise FrondClientError(f"{root} holds no files. A model is a folder of model.onnx and "
                                   "model.yaml.")  # fmt: skip
        if "model.onnx" in names and (lost := hidden_weights(root / "model.onnx", hidden)):
            raise FrondClientError(f"{root}: {lost}")

        def once() -> dict[str, Any]:
            with ExitStack() as stack:
                files = [
                    ("files", (n, stack.enter_context((root / n).open("rb")),
                               _TYPES.get(Path(n).suffix, "application/octet-stream")))
                    for n in names
                ]  # fmt: skip
                # it is hashed and stored before the answer comes
                response = self._http.post(
                    f"{self._api_url}/models", files=files,
                    data={"alias": alias or "", "why": why},
                    timeout=httpx.Timeout(_CONNECT_S, read=_STORED_S, write=_STORED_S),
                )  # fmt: skip
            return object_of(checked(response))

        return self._patiently(once)

    def promote(
        self, name: str, digest: str, *, alias: str = "production", why: str = ""
    ) -> dict[str, Any]:
        """Point an alias at a version; new jobs use it, running ones keep theirs."""
        path = f"/models/{_part(name)}/aliases/{_part(alias)}"
        return self._ask("PUT", path, {"digest": digest, "why": why})

    def rollback(self, name: str, *, alias: str = "production", why: str = "") -> dict[str, Any]:
        """Point an alias back at the version before; once, whatever is lost on the way."""
        held = self.model(name)["aliases"].get(alias)
        if held is None:
            raise FrondClientError(f"{name} has no alias {alias!r}.")
        path = f"/models/{_part(name)}/aliases/{_part(alias)}/rollback"
        return self._ask("POST", path, {"now": held["digest"], "why": why})

    def set_shadow(
        self, name: str, version: str, *, share: float = 0.1, why: str = ""
    ) -> dict[str, Any]:
        """Let a version run beside ``production`` on a share of the windows, its results kept apart;
        jobs of production that begin from now on take it."""
        body = {"version": version, "share": share, "why": why}
        return self._ask("PUT", f"/models/{_part(name)}/shadow", body)

    def drop_shadow(self, name: str, *, why: str = "") -> None:
        """Let no version run so any more; jobs that began keep theirs."""
        url = f"{self._api_url}/models/{_part(name)}/shadow"
        self._patiently(lambda: checked(self._http.delete(url, params={"why": why})))

    def fetch(self, ref: str, folder: Path) -> dict[str, Any]:
        """A version's files, into an empty folder; returns what :meth:`version` says."""
        found = self.version(ref)
        base = f"{self._api_url}/models/{_part(found['name'])}/versions/{found['digest']}/files/"
        for name in found["files"]:
            target = folder / name
            if not target.resolve().is_relative_to(folder.resolve()):
                raise FrondClientError(f"{ref} holds a file with the unusable name {name!r}.")
            target.parent.mkdir(parents=True, exist_ok=True)
            self._fetch(base + quote(name), target)
        return found

    def _fetch(self, url: str, target: Path) -> None:
        self._patiently(lambda: fetch(self._http, url, target, None))


def _part(text: str) -> str:
    return quote(text, safe="")
