"""Results: listed, and served from the store with ranges."""

from __future__ import annotations

import re
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from frond.contracts import keys
from frond.contracts.reasons import Reason
from frond.ingest import desk, views
from frond.ingest.context import Ingest, ingest_of
from frond.ingest.problems import Refused
from frond.ingest.readmodel import queries
from frond.ingest.routes.answers import PROBLEMS, JobId
from frond.ingest.routes.jobs import caught_up
from frond.ingest.routes.serving import serve

router = APIRouter(tags=["results"], responses=PROBLEMS)  # type: ignore[arg-type] # keys are strings

_NAMED: Final = 5
# whoever compares a job with its shadow reads them one by one
_OF_CHUNK: Final = re.compile(
    r"images/[0-9a-f]{32}/(chunks|shadow)/[0-9a-f]{32}\.(arrow|failed\.json)"
)


@router.get("/jobs/{job_id}/results", response_model=views.ResultList, summary="List results")
async def list_results(request: Request, job_id: JobId) -> views.ResultList:
    ingest = ingest_of(request)
    row = await caught_up(ingest, await desk.row_of(ingest, job_id))
    return views.ResultList(
        job_id=job_id, status=row.status, results=views.results(request, row),
        links=views.job_links(request, job_id),
    )  # fmt: skip


@router.head(
    "/jobs/{job_id}/results/{name:any_name}", response_class=Response, operation_id="look_at_result",
    summary="What fetching one result would tell",
)  # fmt: skip
@router.get(
    "/jobs/{job_id}/results/{name:any_name}", response_class=Response, operation_id="fetch_result",
    summary="Fetch one result; ranges are served",
    openapi_extra={"responses": {"200": {"description": "the file"},
                                 "206": {"description": "the range asked for"},
                                 "304": {"description": "as the client has it"}}},
)  # fmt: skip
async def fetch(request: Request, job_id: JobId, name: str) -> Response:
    """coco.json, coco-results.json, detections.geojson, detections.parquet, summary.json, and per
    image images/{name or image id}/…; with nothing after the image, a list of its files; 409 where
    several images have the name. What a chunk's windows gave, and what the job's shadow made of them: images/{image id}/chunks/{chunk id}.arrow and
    images/{image id}/shadow/{chunk id}.arrow, or ….failed.json where it gave nothing."""
    ingest = ingest_of(request)
    await desk.row_of(ingest, job_id)
    if _OF_CHUNK.fullmatch(name):
        key = keys.job_prefix(job_id) + name
    elif name.startswith("images/"):
        image, _, file = name.removeprefix("images/").rpartition("/")
        if image and not file:
            return await _files_of(request, ingest, job_id, image)
        key = await _key_in_image(ingest, job_id, image, file)
    else:
        key = keys.result(job_id, _safe(job_id, name))
    return await serve(request, key, _missing(job_id, name))


def _missing(job_id: str, name: str) -> Refused:
    return Refused(Reason.NOT_FOUND, f"Job {job_id!r} has no result {name[:300]!r} (yet).")


def _safe(job_id: str, name: str) -> str:
    # the store takes a path apart: a part that climbs would leave the job
    if not name or any(part in ("", ".", "..") for part in name.split("/")):
        raise _missing(job_id, name)
    return name


async def _image_id(ingest: Ingest, job_id: str, image: str) -> str:
    found = await queries.images_called(ingest.db, job_id, image, _NAMED + 1)
    if not found:
        raise _missing(job_id, f"images/{image}")
    if len(found) > 1:
        which = [f"{i.image_id} is {i.image}" for i in found[:_NAMED]]
        more = ["and there are more"] if len(found) > _NAMED else []
        raise Refused(
            Reason.CONFLICT,
            f"Several images of job {job_id!r} are called {image[:300]!r}: ask for images/ID/… of one of "
            f"them. {'; '.join(which + more)}.",
        )
    return str(found[0].image_id)


async def _key_in_image(ingest: Ingest, job_id: str, image: str, file: str) -> str:
    _safe(job_id, file)
    return keys.image_artifact(job_id, await _image_id(ingest, job_id, image), file)


async def _files_of(request: Request, ingest: Ingest, job_id: str, image: str) -> Response:
    image_id = await _image_id(ingest, job_id, image)
    prefix = keys.image_prefix(job_id, image_id)
    files = []
    async for found in ingest.store.list(prefix):
        rest = found.key.removeprefix(prefix)
        if "/" in rest:
            continue  # chunks are ours
        url = views.result_url(request, job_id, f"images/{image_id}/{rest}")
        files.append({"name": rest, "url": url, "size": found.size})
    return JSONResponse({"job_id": job_id, "image_id": image_id, "files": files})
