"""A job's events as they happen: server-sent events, resumed where they broke off."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import httpx

from frond.client.errors import FrondClientError
from frond.client.http import Passing, checked, retry_after

_POLL_S: Final = 1.0
_SILENCE_S: Final = 60.0
_TRIES: Final = 3


@dataclass(frozen=True)
class JobEvent:
    """One event of a job's stream.

    Attributes:
        type: ``progress`` (the job's figures), ``image`` (one image is done), ``completed``; and
            ``heartbeat``, without data, while nothing happens.
        id: where to go on from; empty for what was polled.
    """

    type: str
    data: dict[str, Any] = field(default_factory=dict)
    id: str = ""


def parse_events(lines: Iterable[str]) -> Iterator[JobEvent]:
    """Server-sent events (WHATWG HTML §9.2.6) out of lines without their ends.

    A comment, which servers send to show that they are there, is a heartbeat.
    What carries no JSON object is passed over; so is an event that the stream breaks off in.
    """
    kind, last, data = "", "", list[str]()
    for line in lines:
        if not line:
            if data:
                with suppress(ValueError):
                    value = json.loads("\n".join(data))
                    if isinstance(value, dict):
                        yield JobEvent(kind or "message", value, last)
            kind, data = "", []
            continue
        if line.startswith(":"):
            yield JobEvent("heartbeat")
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif name == "id" and "\0" not in value:
            last = value


def is_final(job: dict[str, Any]) -> bool:
    """Whether a job with these figures has ended."""
    return job.get("status") in ("successful", "failed", "dismissed")


def follow(
    http: httpx.Client,
    api_url: str,
    job_id: str,
    status: Callable[[str], dict[str, Any]],
    sleep: Callable[[float], None],
) -> Iterator[JobEvent]:
    """A job's events until it has ended; the last one is ``completed``.

    Goes on after a break with ``Last-Event-ID``; after three breaks in a row that brought nothing,
    or where there are no events, it asks for the status every second.
    """
    job = status(job_id)
    yield JobEvent("completed" if is_final(job) else "progress", job)
    last, failures = "", 0
    while not is_final(job) and failures < _TRIES:
        failures += 1
        try:
            for event in _stream(http, f"{api_url}/jobs/{quote(job_id)}/events", last):
                if event.type != "heartbeat":
                    failures, last = 0, event.id or last
                yield event
                if event.type == "completed":
                    return
        except httpx.TransportError:
            pass
        except Passing as e:
            sleep(retry_after(e.response))
        except FrondClientError:
            # no events here; whether the job is still there, its status tells
            failures = _TRIES
        job = status(job_id)
        if is_final(job):
            yield JobEvent("completed", job)
        elif failures < _TRIES:
            sleep(0.5)
    while not is_final(job):
        sleep(_POLL_S)
        job = status(job_id)
        yield JobEvent("completed" if is_final(job) else "progress", job)


def _stream(http: httpx.Client, url: str, last: str) -> Iterator[JobEvent]:
    headers = {"accept": "text/event-stream", "cache-control": "no-cache"}
    if last:
        headers["last-event-id"] = last
    timeout = httpx.Timeout(30.0, read=_SILENCE_S)
    with http.stream("GET", url, headers=headers, timeout=timeout) as response:
        checked(response)
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            raise FrondClientError("The service answered with something else than events.")
        yield from parse_events(response.iter_lines())


def within(events: Iterable[JobEvent], job_id: str, timeout: float | None) -> Iterator[JobEvent]:
    """The same events, without heartbeats. Raises FrondClientError after ``timeout`` seconds."""
    end = None if timeout is None else time.monotonic() + timeout
    for event in events:
        if event.type != "heartbeat":
            yield event
        if end is not None and time.monotonic() > end and event.type != "completed":
            raise FrondClientError(f"Job {job_id} has not ended within {timeout:g} s.")
