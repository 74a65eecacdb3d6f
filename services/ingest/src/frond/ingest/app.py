"""The FastAPI application, put together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import version

from fastapi import Depends, FastAPI

from frond.ingest.auth import Door, require_access, require_admin
from frond.ingest.context import Ingest
from frond.ingest.problems import add_problems
from frond.ingest.routes import (
    events,
    home,
    images,
    jobs,
    keys,
    models,
    parts,
    results,
    retry,
    training,
    upload,
    webhooks,
)
from frond.ingest.scratch import clear
from frond.ingest.tracing import Tracing

DESCRIPTION = """
Vision models over thousands of GeoTIFFs: upload images or name S3 objects, follow the job, fetch
COCO, GeoJSON and GeoParquet. Errors are RFC 9457 problem details; statuses are those of OGC API –
Processes. `Idempotency-Key` is honoured wherever a job is made.
"""


def make_app(ingest: Ingest) -> FastAPI:
    """The HTTP API over these connections; when it starts, the schema is migrated, and what a killed
    process left on disk removed."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(clear)
        await ingest.prepared()
        yield
        await ingest.close()

    app = FastAPI(
        title="Frond", version=version("frond-ingest"), description=DESCRIPTION, lifespan=lifespan,
        # FastAPI's own pages load scripts from a CDN; routes.home has one
        docs_url=None, redoc_url=None,
    )  # fmt: skip
    app.state.ingest = ingest
    # the last one added is the outermost
    app.add_middleware(Door)
    app.add_middleware(Tracing)
    add_problems(app)
    app.include_router(home.router)
    for module in (upload, jobs, retry, images, parts, results, events, webhooks, models):
        app.include_router(module.router, dependencies=[Depends(require_access)])
    app.include_router(images.described, dependencies=[Depends(require_access)])
    for router in (keys.router, models.changes, models.pushes, training.router):
        app.include_router(router, dependencies=[Depends(require_admin)])
    return app
