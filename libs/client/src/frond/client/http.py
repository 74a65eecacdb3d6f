"""Requests that wait out what passes, and errors as sentences."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Collection
from typing import Any, Final, TypeVar

import httpx

from frond.client.errors import FrondClientError, NotReachable

T = TypeVar("T")

TRIES: Final = 7
FIRST_TRIES: Final = 3
_FIRST_S: Final = 0.5
_LONGEST_S: Final = 15.0
PASSING: Final = frozenset({429, 502, 503, 504, 507})


class Passing(Exception):
    """An answer that asks us to come back later."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(response.status_code)
        self.response = response


def patiently(
    call: Callable[[], T],
    *,
    answered: Callable[[], bool] = lambda: True,
    sleep: Callable[[float], None] = time.sleep,
    where: str = "",
) -> T:
    """Call until there is an answer that stays: lost connections and answers that pass are tried
    again (after 0.5 s, then twice as long, at most 15 s, and no sooner than Retry-After says).

    Args:
        call: safe to repeat; raises Passing for an answer that asks to be asked again.
        answered: whether anybody has answered before; an address where nobody ever did is given
            up after 3 tries, so that whoever mistyped it need not wait.

    Raises:
        NotReachable: the last try failed as well.
    """
    for attempt in range(1, TRIES + 1):
        try:
            return call()
        except Passing as e:
            asked = retry_after(e.response)
            if attempt == TRIES:
                told = error_of(e.response)
                raise NotReachable(
                    told.detail, reason=told.reason, status=told.status, trace_id=told.trace_id
                ) from None
        except httpx.TransportError as e:
            asked = 0.0
            tries = TRIES if answered() else FIRST_TRIES
            if attempt >= tries or isinstance(e, httpx.UnsupportedProtocol):
                raise NotReachable(
                    f"Frond does not answer at {where}: {e or type(e).__name__}. "
                    "Is it up (`frond stack status`), and is FROND_API_URL right?"
                ) from e
        pause = min(_FIRST_S * 2 ** (attempt - 1), _LONGEST_S)
        # the spread is not for secrets
        sleep(max(pause * random.uniform(0.75, 1.0), asked))  # noqa: S311
    raise AssertionError("unreachable")


def may_be_done(error: httpx.TransportError | Passing) -> bool:
    """Whether what was asked for may have been done, although it was not answered so."""
    if isinstance(error, Passing):
        return error.response.status_code != 429
    return not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)


def retry_after(response: httpx.Response) -> float:
    """Seconds that the answer asks us to wait, at most a minute; 0 when it does not say."""
    text = response.headers.get("retry-after", "")
    return min(float(text), 60.0) if text.isdigit() else 0.0


def checked(response: httpx.Response, final: Collection[int] = ()) -> httpx.Response:
    """The answer if it is a good one. Raises Passing or FrondClientError; reads the body then.

    Args:
        final: statuses that never pass, whatever the answer asks for.
    """
    if response.is_success:
        return response
    response.read()
    passes = response.status_code in PASSING or _for_now(response)
    if passes and response.status_code not in final:
        raise Passing(response)
    raise error_of(response)


def _for_now(response: httpx.Response) -> bool:
    """Whether a conflict passes: an earlier request with our Idempotency-Key, whose answer was lost,
    still runs; or somebody is storing an image under the name that we put, and may have died."""
    return response.status_code == 409 and "retry-after" in response.headers


def object_of(response: httpx.Response, setting: str = "FROND_API_URL") -> dict[str, Any]:
    """The JSON object of a good answer. Raises FrondClientError for anything else: a proxy's page, say.

    Args:
        setting: which variable led there.
    """
    value = None
    with contextlib.suppress(ValueError):
        value = response.json()
    if not isinstance(value, dict):
        url = response.request.url.copy_with(query=None)
        raise FrondClientError(
            f"What answers at {url} is not Frond: that is no JSON object. Is {setting} right?"
        )
    return value


def error_of(response: httpx.Response) -> FrondClientError:
    """An answer's problem details (RFC 9457) as an error; a sentence of ours where it has none."""
    told: dict[str, Any] = {}
    with contextlib.suppress(ValueError):
        body = response.json()
        told = body if isinstance(body, dict) else {}
    detail = told.get("detail") or told.get("title")
    if not isinstance(detail, str):
        detail = f"The service answered {response.status_code} {response.reason_phrase}."
    return FrondClientError(
        detail, reason=told.get("reason"), status=response.status_code,
        trace_id=told.get("trace_id"),
    )  # fmt: skip
