"""What the log tells of requests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from frond.auth import KeyStore, Rates, Throttled
from frond.contracts.errors import ObjectMissing, StoreUnavailable
from frond.ingest.app import make_app
from frond.ingest.context import Ingest
from frond.runtime import Health
from frond.runtime.service import add_operations

SECRET = "test-key"
STRANGER = "frond_0123456789abcdef_" + "A" * 43
ANOTHER = "frond_fedcba9876543210_" + "A" * 43


@pytest.fixture
async def inside(
    alone: Ingest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an ingest in this process, whose keys are nobody's, and with a route that breaks."""

    async def nobodys(_: KeyStore, key_id: str) -> None:
        raise ObjectMissing(key_id)

    monkeypatch.setattr(KeyStore, "get", nobodys)
    app = make_app(alone)
    add_operations(app, Health())

    @app.get("/breaks")
    async def breaks() -> None:
        raise ZeroDivisionError

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://frond") as client:
        yield client


async def away(_: KeyStore, key_id: str) -> None:
    raise StoreUnavailable(key_id)


def spent(subject: str) -> Rates:
    """Rates under which nothing is left to a caller."""
    rates = Rates(0.001, 0)
    with pytest.raises(Throttled):
        while True:
            rates.admit(subject)
    return rates


async def test_each_answer_is_a_line_in_the_log(
    inside: httpx.AsyncClient, alone: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asked for what and what was answered, under the trace id that the answer has, of who asks too
    often as well; where keys are not known or cannot be looked up, the key that they said they have. Never
    a secret, a query or the name of a file."""
    admin = {"Authorization": f"Bearer {SECRET}"}
    with capture_logs([merge_contextvars]) as logs:
        listed = await inside.get("/jobs", params={"limit": 1, "token": SECRET}, headers=admin)
        named = await inside.put("/jobs/j-1/images/private.tif", content=b"x", headers=admin)
        unknown = await inside.get("/jobs", headers={"Authorization": f"Bearer {STRANGER}"})
        await inside.get("/jobs", headers={"Authorization": "Bearer private-word"})
        await inside.get("/private-path", headers=admin)
        await inside.get("/breaks", headers=admin)
        monkeypatch.setattr(alone, "rates", spent("installation"))
        await inside.get("/jobs", headers=admin)
        monkeypatch.setattr(KeyStore, "get", away)
        await inside.get("/jobs", headers={"Authorization": f"Bearer {ANOTHER}"})
    lines = [line for line in logs if line["event"] == "answered"]
    told = [
        tuple(line.get(k) for k in ("method", "route", "status", "who", "claimed"))
        for line in lines
    ]
    route = "/jobs/{job_id}/images/{name:any_name}"
    assert told == [
        ("GET", "/jobs", 200, "installation", None),
        ("PUT", route, named.status_code, "installation", None),
        ("GET", None, 401, None, "key:0123456789abcdef"),
        ("GET", None, 401, None, None),
        ("GET", None, 404, "installation", None),
        ("GET", "/breaks", 500, "installation", None),
        ("GET", None, 429, "installation", None),
        ("GET", None, 503, None, "key:fedcba9876543210"),
    ]
    assert lines[0]["bytes"] == len(listed.content) and lines[0]["seconds"] >= 0
    assert lines[0]["tenant"] is None and lines[1]["job_id"] == "j-1"
    traces = [answer.headers["traceparent"].split("-")[1] for answer in (listed, named, unknown)]
    assert [line["trace_id"] for line in lines[:3]] == traces
    for word in (SECRET, STRANGER[-43:], "private"):
        assert word not in str(lines)


async def test_what_is_asked_for_all_the_time_is_not_logged(inside: httpx.AsyncClient) -> None:
    """Probes and Prometheus."""
    with capture_logs() as logs:
        for path in ("/health", "/ready", "/metrics"):
            await inside.get(path)
    assert not [line for line in logs if line["event"] == "answered"]
