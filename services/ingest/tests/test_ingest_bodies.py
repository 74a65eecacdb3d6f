"""JSON bodies that are made to cost much: what is read of them, and how many errors come of it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from ingest_world import is_problem
from pydantic import BaseModel, ValidationError

from frond.contracts.reasons import Reason
from frond.ingest.problems import add_problems
from frond.ingest.routes.answers import JsonRoute, LongJsonRoute
from frond.ingest.routes.images import NamedObjects
from frond.ingest.routes.jobs import NewJob, Seal, StartJob
from frond.ingest.routes.keys import NewKey
from frond.ingest.routes.models import MoveBack, MoveTo, ShadowTo
from frond.ingest.routes.parts import BeginMultipart, CompleteMultipart
from frond.ingest.routes.retry import Retry
from frond.ingest.routes.training import NewTraining, Overrides
from frond.ingest.tracing import Tracing

JUNK = {str(n): 0 for n in range(1000)}
BODIES: list[type[BaseModel]] = [
    NewJob, StartJob, Seal, Retry, NamedObjects, BeginMultipart, CompleteMultipart, NewKey, MoveTo,
    MoveBack, ShadowTo, NewTraining, Overrides,
]  # fmt: skip


def errors(kind: type[BaseModel], value: Any) -> list[Any]:
    with pytest.raises(ValidationError) as e:
        kind.model_validate(value)
    return list(e.value.errors())


@pytest.mark.parametrize("kind", BODIES)
def test_unknown_fields_make_as_many_errors_as_are_told(kind: type[BaseModel]) -> None:
    """However many a body has; one alone is an error as ever."""
    assert [e["loc"] for e in errors(kind, {"odd": 0}) if e["type"] == "extra_forbidden"] == [
        ("odd",)
    ]
    unknown = [e for e in errors(kind, JUNK) if e["type"] == "extra_forbidden"]
    assert [e["loc"][0] for e in unknown] == list(JUNK)[:20]


def test_known_fields_stay_where_there_are_many_unknown_ones() -> None:
    """What is known is judged, by either of its names; a body that is right passes."""
    for name in ("size", "job_size"):
        found = errors(Seal, {**JUNK, name: "many"})
        assert "int_parsing" in {e["type"] for e in found}
    assert len(NamedObjects(images=[f"s3://b/{n}.tif" for n in range(10_000)]).images) == 10_000


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (NamedObjects, {"images": [0] * 10_000}),
        (NamedObjects, {"images": [JUNK] * 10_000}),
        (CompleteMultipart, {"upload_id": "x", "parts": [0] * 10_000}),
        (Retry, {"reasons": [0] * 10_000}),
        (NewKey, {"name": "x", "scopes": [0] * 10_000}),
    ],
)
def test_a_list_of_nonsense_makes_few_errors(kind: type[BaseModel], value: Any) -> None:
    """Those of its first item that is wrong: there may be thousands."""
    assert 0 < len(errors(kind, value)) < 30


async def test_a_body_is_as_long_as_its_route_may_need() -> None:
    """64 KiB, and 8 MiB where thousands of images or parts are named."""
    app = FastAPI()
    app.add_middleware(Tracing)
    add_problems(app)
    for path, kind in (("/short", JsonRoute), ("/long", LongJsonRoute)):
        router = APIRouter(route_class=kind)

        @router.post(path)
        async def take(body: dict[str, Any]) -> int:
            return len(body["text"])

        app.include_router(router)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as api:
        assert (await api.post("/short", json={"text": "x" * 65_000})).json() == 65_000
        told = is_problem(
            await api.post("/short", json={"text": "x" * 66_000}), 413, Reason.TOO_LARGE
        )
        assert "65536" in told["detail"]
        assert (await api.post("/long", json={"text": "x" * 8_000_000})).json() == 8_000_000
        is_problem(await api.post("/long", json={"text": "x" * 9_000_000}), 413, Reason.TOO_LARGE)
