"""A connection to Frond's REST service: requests that outlast outages, answers that are checked."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import httpx

from frond.client.environment import frond_env, setting
from frond.client.errors import FrondClientError
from frond.client.http import checked, object_of, patiently

T = TypeVar("T")
_LAST_PORT: Final = 65535


def address(url: str, setting: str) -> str:
    """An address without a slash at its end. Raises FrondClientError, with the setting, where it is none."""
    if not url.startswith(("http://", "https://")):
        raise FrondClientError(f"{setting} is {url!r}; it begins with http:// or https://.")
    try:
        parsed = httpx.URL(url)
        # as whoever looks its name up does
        is_one = bool(parsed.host.encode("idna")) and (parsed.port or 0) <= _LAST_PORT
    except (httpx.InvalidURL, UnicodeError):
        is_one = False
    if not is_one:
        raise FrondClientError(f"{setting} is {url!r}, which is no address: http://HOST:PORT.")
    return url.rstrip("/")


class Connection:
    """Where the service is, with which key, and how it is asked; see :class:`Client`."""

    def __init__(
        self,
        api_url: str | None,
        api_key: str | None,
        *,
        connections: int,
        transport: httpx.BaseTransport | None,
        sleep: Callable[[float], None],
    ) -> None:
        env = frond_env()
        url = api_url or setting(env, "FROND_API_URL", "http://127.0.0.1:8000")
        self.api_url = address(url, "FROND_API_URL")
        self._answered = False
        self._sleep = sleep
        key = api_key if api_key is not None else setting(env, "FROND_API_KEY")
        self._http = httpx.Client(
            headers={"user-agent": "frond-client/0.1"}
            | ({"authorization": f"Bearer {key}"} if key else {}),
            # an upload's answer comes when the object store has all of it
            timeout=httpx.Timeout(30.0, read=120.0, write=120.0),
            limits=httpx.Limits(max_connections=connections),
            transport=transport,
            event_hooks={"response": [self._hear]},
        )

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _patiently(self, call: Callable[[], T], where: str = "") -> T:
        return patiently(
            call, answered=lambda: self._answered, sleep=self._sleep, where=where or self.api_url
        )

    def _hear(self, _: httpx.Response) -> None:
        self._answered = True

    def _request(
        self, method: str, path: str, *, final: Collection[int] = (), **more: Any
    ) -> httpx.Response:
        if method == "POST":
            # the same for each try, so that a lost answer makes nothing twice
            more["headers"] = {"idempotency-key": uuid.uuid4().hex}
        return self._patiently(
            lambda: checked(self._http.request(method, self.api_url + path, **more), final)
        )

    def _json(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        final: Collection[int] = (),
    ) -> dict[str, Any]:
        more: dict[str, Any] = {}
        if body is not None:
            more["json"] = {k: v for k, v in body.items() if v is not None}
        return object_of(self._request(method, path, final=final, **more))

    def _pages(
        self, path: str, what: str, query: Mapping[str, Any], limit: int | None
    ) -> Iterator[dict[str, Any]]:
        left, cursor = limit, None
        while left is None or left > 0:
            page = self._json_query(
                path, {**query, "limit": min(left or 1000, 1000), "cursor": cursor}
            )
            yield from page[what]
            cursor = page.get("next_cursor")
            if left is not None:
                left -= len(page[what])
            if not cursor:
                return

    def _json_query(self, path: str, query: Mapping[str, Any]) -> dict[str, Any]:
        params = {k: v for k, v in query.items() if v is not None}
        return object_of(self._request("GET", path, params=params))
