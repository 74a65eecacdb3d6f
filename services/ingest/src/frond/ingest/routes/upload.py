"""POST /upload: any number of files in one multipart form, streamed."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request, Response

from frond.contracts.errors import FrondError, UserError
from frond.ingest import names, uploads, views
from frond.ingest.auth import require_pace, who_asks
from frond.ingest.context import ingest_of
from frond.ingest.forms import Receiver
from frond.ingest.idempotency import Once
from frond.ingest.multipart import boundary_of
from frond.ingest.routes.answers import (
    PROBLEMS,
    IdempotencyKey,
    drain,
    in_scope,
    job_answer,
    replay,
)
from frond.ingest.tracing import traceparent
from frond.runtime import crash_point

router = APIRouter(tags=["jobs"], responses=PROBLEMS)  # type: ignore[arg-type] # keys are strings

_TEXT: Final[dict[str, Any]] = {"type": "string"}
_FORM: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "files": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "description": "rasters, under any field name, in any order",
                        },
                        "webhook_url": _TEXT,
                        "model": _TEXT,
                        "job_id": _TEXT,
                        "email": _TEXT,
                        "score": {"type": "number", "minimum": 0, "maximum": 1},
                        "shadow": {
                            "type": "string",
                            "description": "a version to run beside the model, or none",
                        },
                        "shadow_share": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
                    },
                    "required": ["files"],
                    "additionalProperties": {"type": "string", "format": "binary"},
                }
            }
        },
    }
}


@router.post(
    "/upload", status_code=202, response_model=views.JobAnswer, openapi_extra=_FORM,
    summary="Upload images and start a job with them", dependencies=[Depends(require_pace)],
)  # fmt: skip
async def upload(request: Request, key: Annotated[str | None, IdempotencyKey] = None) -> Response:
    ingest, who = ingest_of(request), who_asks(request)
    boundary = boundary_of(request.headers.get("content-type"))
    body = request.stream()
    try:
        once = Once(ingest.db, who.own("upload"), key)
        async with once.turn() as stored:
            if stored is not None:
                received = await Receiver(ingest, who, keep=False).receive(boundary, body)
                once.same(stored, received.fingerprint)
                return replay(request, stored)
            await ingest.require_broker()
            receiver = Receiver(ingest, who)
            received = await receiver.receive(boundary, body)
            crash_point("ingest.form-stored")
            job_id = received.fields.get("job_id") or names.new_job_id(key, who.own("upload"))
            try:
                await uploads.accept(
                    ingest, received, receiver.upload_id, job_id, who, traceparent(request)
                )
            except UserError:
                spare = await uploads.kept(ingest, job_id, receiver.upload_id, received.files)
                await receiver.forget(spare)
                raise
            answer = await job_answer(request, job_id, 202)
            await once.keep(
                received.fingerprint, 202, answer.headers["location"],
                bytes(answer.body).decode(),
            )  # fmt: skip
            return in_scope(request, answer)
    except FrondError:
        await drain(body)
        raise
