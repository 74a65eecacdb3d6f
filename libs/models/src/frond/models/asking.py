"""Asking a model's server by HTTP: within a time, within bounds, and what is an outage and what an error."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

import httpx

from frond.contracts.errors import ModelRejected, ModelUnavailable
from frond.contracts.modelspec import ServerSpec
from frond.models import oip
from frond.models.folder import bad_model

MAX_ANSWER_BYTES: Final = 512 << 20
"""Of one answer with binary tensors. What is JSON has its own bound: it takes many times its size
in memory."""

_MAX_WORDS_BYTES: Final = 64 << 10
_PIECE: Final = 256 << 10
_CONNECT_S: Final = 10.0
_KEPT_S: Final = 60.0
_PAUSES_S: Final = (0.5, 5.0)
# "later", said as an error of the asker: time-out, too early, too many
_LATER: Final = (408, 425, 429)
# busy, and soon no more
_SOON: Final = (429, 503)
# not implemented: KServe's answer to whoever names a version
_NEVER: Final = 501
# of a question whether it is ready: it has no such page, or shows it to others
_UNTOLD: Final = (401, 403, 404, 405)
# whose cause is known, whatever the server's state
_PLAIN: Final = {
    401: "asks for credentials, and Frond sends none. Let it trust this network, or put a proxy in "
         "front of it that adds them",
    403: "does not let Frond in. Let it trust this network, or put a proxy in front of it that adds "
         "credentials",
    413: "takes no requests as large as a batch of windows. Set a smaller input.batch",
}  # fmt: skip


class _Busy(ModelUnavailable):
    """Not now. ``after``: seconds until the server wants to be asked again, where it says."""

    def __init__(self, message: str, told: str, after: float) -> None:
        super().__init__(message, told)
        self.after = after


class Asker:
    """Asks for one model. May be used by several threads at once.

    A question has ``server.timeout_s`` in all: a kept connection that ended is replaced once, and a
    server that says that it is busy is asked again, as long as that time lasts.

    Args:
        name: of the model, for sentences.
        path: of the model on its server.

    Raises:
        ModelRejected: BAD_MODEL: what is asked is refused, or the answer is out of bounds.
        ModelUnavailable: there is no answer in time, or the server is too busy, or not ready.
    """

    def __init__(self, name: str, server: ServerSpec, path: str) -> None:
        self._name = name
        self._server = server
        self._path = path
        self._http = _client()

    def get(self, path: str) -> bytearray:
        """The body of a JSON answer, which is small."""
        return self._ask("GET", path, oip.MAX_HEAD_BYTES)[1]

    def post(
        self, path: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[httpx.Headers, bytearray]:
        """Headers and body of an answer that may be large."""
        return self._ask("POST", path, MAX_ANSWER_BYTES, body, headers)

    def _ask(
        self,
        method: str,
        path: str,
        most: int,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[httpx.Headers, bytearray]:
        until = time.monotonic() + self._server.timeout_s
        pause, longest = _PAUSES_S
        again = True
        while True:
            try:
                return self._once(method, path, most, body, headers, until)
            except _Busy as e:
                wait = max(pause, e.after)
                if time.monotonic() + wait >= until:
                    raise
                time.sleep(wait)
                pause = min(pause * 2, longest)
            except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError) as e:
                # a kept connection may end while it is taken up: once more, on a fresh one
                if not again:
                    raise self._lost(e) from e
                again = False
            except httpx.TimeoutException as e:
                raise self._late() from e
            # UnicodeError: a host that no resolver takes
            except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as e:
                raise self._lost(e) from e

    def _once(
        self,
        method: str,
        path: str,
        most: int,
        body: bytes | None,
        headers: Mapping[str, str] | None,
        until: float,
    ) -> tuple[httpx.Headers, bytearray]:
        content = None if body is None else self._pieces(body, until)
        length = {} if body is None else {"Content-Length": str(len(body))}
        with self._http.stream(
            method, f"{self._server.url}/{path}", content=content,
            headers={**(headers or {}), **length}, timeout=self._left(until),
        ) as response:  # fmt: skip
            given = response.headers
            if response.status_code == 200:
                if oip.JSON_LENGTH not in given:
                    most = min(most, oip.MAX_JSON_BYTES)
                return given, self._read(response, most, until)
            words = _words(self._read(response, _MAX_WORDS_BYTES, until, cut=True), self._server)
        raise self._refusal(response.status_code, words, given.get("retry-after", ""), until)

    def _pieces(self, body: bytes, until: float) -> Iterator[bytes]:
        """One large piece would be copied at every write of what a socket takes."""
        for at in range(0, len(body), _PIECE):
            if time.monotonic() > until:
                raise self._late()
            yield body[at : at + _PIECE]

    def _left(self, until: float) -> httpx.Timeout:
        left = until - time.monotonic()
        if left <= 0:
            raise self._late()
        return httpx.Timeout(left, connect=min(_CONNECT_S, left))

    def _read(
        self, response: httpx.Response, most: int, until: float, *, cut: bool = False
    ) -> bytearray:
        if response.headers.get("content-encoding", "identity") != "identity" and not cut:
            raise bad_model(
                f"The server of the model {self._name} packs its answers, and was asked not to."
            )
        raw = bytearray()
        for piece in response.iter_raw():
            raw += piece
            if len(raw) > most:
                if cut:
                    break
                raise bad_model(
                    f"The server of the model {self._name} answers with more than {most} bytes. "
                    "Set a smaller input.batch, or let it give fewer outputs."
                )
            if time.monotonic() > until:
                raise self._late()
        return raw

    def _refusal(
        self, status: int, words: str, after: str, until: float
    ) -> ModelRejected | ModelUnavailable:
        said = f"HTTP {status}: {words}" if words else f"HTTP {status}"
        if status in _SOON:
            return _Busy(self._message(said), said, _seconds(after))
        if (status >= 500 and status != _NEVER) or status in _LATER:
            return ModelUnavailable(self._message(said), said)
        if 300 <= status < 400:
            return bad_model(
                f"The server of the model {self._name} sends Frond elsewhere (HTTP {status}), and "
                "redirects are not followed. Write the address itself into server.url."
            )
        if status in _PLAIN:
            return bad_model(f"The server of the model {self._name} {_PLAIN[status]}.")
        if status < 400:
            return bad_model(
                f"The server of the model {self._name} answers with HTTP {status}, not with 200."
            )
        if status != _NEVER and not self._knows(status, until):
            said = f"it is not ready, {said}"
            return ModelUnavailable(self._message(said), said)
        return bad_model(
            f"The server refuses what it is asked of the model {self._name} ({said}). "
            "Check server, input.name and input.batch in model.yaml."
        )

    def _knows(self, status: int, until: float) -> bool:
        """Whether a refusal stands: while a server starts, it may know none of its models.

        A gate whose server is not there says 404 to everything; and a server may not be ready for
        another model's sake.
        """
        health = self._status("v2/health/ready", until)
        if health == 200 or (health in _UNTOLD and status != 404):
            return True
        return self._status(f"{self._path}/ready", until) == 200

    def _status(self, path: str, until: float) -> int | None:
        try:
            with self._http.stream(
                "GET", f"{self._server.url}/{path}", timeout=self._left(until)
            ) as answer:
                return answer.status_code
        except (httpx.HTTPError, ModelUnavailable):
            return None

    def _late(self) -> ModelUnavailable:
        told = f"no whole answer in {self._server.timeout_s:g} s"
        return ModelUnavailable(self._message(told), told)

    def _lost(self, e: Exception) -> ModelUnavailable:
        message = self._message(f"{type(e).__name__} {e}".strip()[:300])
        refused = isinstance(e, httpx.ConnectError)
        return ModelUnavailable(message, "no connection" if refused else "the connection broke off")

    def _message(self, why: str) -> str:
        return f"The server of the model {self._name} at {self._server.url} does not answer well: {why}"


def _client() -> httpx.Client:
    return httpx.Client(
        limits=httpx.Limits(max_connections=None, keepalive_expiry=_KEPT_S),
        headers={"User-Agent": "frond", "Accept-Encoding": "identity"},
        verify=httpx.create_ssl_context(),
        follow_redirects=False,
        # neither proxies nor passwords out of the environment: the address is the one that was allowed
        trust_env=False,
    )


def _words(raw: bytearray, server: ServerSpec) -> str:
    """What a server says of an error, on one line, without addresses."""
    try:
        told = oip.document(raw)
        text = str(told.get("error") or told.get("detail") or "")
    except oip.Nonsense:
        return ""
    text = oip.line(text, 2000)
    place = urlsplit(server.url)
    for host in (place.netloc, place.hostname or ""):
        # a short name may be a word
        if "." in host or ":" in host:
            text = re.sub(rf"(?<![\w.-]){re.escape(host)}(?![\w-])", "…", text, flags=re.IGNORECASE)
    return re.sub(r"\S*://\S*", "…", text)[:200]


def _seconds(after: str) -> float:
    """What ``Retry-After`` means: seconds, or a moment; 0 where it is neither."""
    if re.fullmatch(r"[0-9]{1,9}", after):
        return float(after)
    try:
        moment = parsedate_to_datetime(after)
    except ValueError:
        return 0.0
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.now(UTC)).total_seconds())


__all__ = ["MAX_ANSWER_BYTES", "Asker"]
