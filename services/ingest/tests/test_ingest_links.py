"""Links in answers, where clients reach the service by another name than its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from ingest_world import files, new_job

from frond.stack import Endpoints
from support.waiting import until

pytestmark = pytest.mark.stack
PUBLIC = "https://maps.example/frond"


@pytest.fixture(scope="module")
def behind(
    stack: Endpoints, start_door: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """An ingest behind a proxy that takes a folder off the path."""
    folder = tmp_path_factory.mktemp("links")
    with start_door(stack, folder, FROND_PUBLIC_URL=f"{PUBLIC}/") as door, door.client() as api:
        yield api


def links(body: Any) -> dict[str, str]:
    return {link["rel"]: link["href"] for link in body["links"]}


def pages(api: httpx.Client, first: str, what: str) -> list[Any]:
    """Everything in a list of pages of one, by its links alone, as the proxy hands them on."""
    found: list[Any] = []
    path: str | None = first
    while path is not None:
        body = api.get(path).json()
        there = links(body)
        assert there["self"] == PUBLIC + path
        found += body[what]
        further = there.get("next")
        assert further is None or further.startswith(f"{PUBLIC}/")
        path = further and further.removeprefix(PUBLIC)
    return found


def test_pages_are_linked_as_clients_reach_them(behind: httpx.Client) -> None:
    """FROND_PUBLIC_URL with its folder, and what was asked for: who follows ``next`` comes to the end
    of jobs, of a job's images and of training runs."""
    job = new_job(behind)
    form = files(("a b.tif", b"a"), ("c.tif", b"c"))
    assert behind.post("/upload", data={"job_id": job}, files=form).status_code == 202
    new_job(behind)
    for alias in ("one", "two"):
        wanted = {"model": "blob", "recipe": "palm", "alias": alias}
        assert behind.post("/training", json=wanted).status_code == 202
    until(lambda: len(behind.get(f"/jobs/{job}/images").json()["images"]) == 2)
    images = pages(behind, f"/jobs/{job}/images?limit=1&status=uploaded", "images")
    assert [i["name"] for i in images] == ["a b.tif", "c.tif"]
    assert len(pages(behind, "/jobs?status=accepted&status=running&limit=1", "jobs")) == 2
    assert len(pages(behind, "/training?limit=1", "training")) == 2
    assert links(behind.get("/jobs").json())["self"] == f"{PUBLIC}/jobs"
