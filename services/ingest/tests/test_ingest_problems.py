"""What clients are told while the store, the broker or the database is away, or full."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.exc import TimeoutError as NoConnection

from frond.contracts.errors import BrokerUnavailable, StoreFull, StoreUnavailable
from frond.ingest.problems import add_problems


@pytest.mark.parametrize(
    ("error", "status", "names"),
    [
        (StoreUnavailable("s3: no route"), 503, "object store"),
        (BrokerUnavailable("127.0.0.1:9092"), 503, "message broker"),
        (NoConnection("QueuePool limit of size 10"), 503, "database"),
        (StoreFull("writing x: XMinioStorageFull"), 507, "object store is full"),
    ],
)
async def test_an_outage_says_what_is_away_and_when_to_come_again(
    error: Exception, status: int, names: str
) -> None:
    """A problem document with Retry-After, and nothing of our insides."""
    app = FastAPI()
    add_problems(app)

    @app.get("/")
    async def fails() -> None:
        raise error

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://frond") as http:
        answer = await http.get("/")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) > 0
    assert names in answer.json()["detail"]
    assert str(error) not in answer.text
