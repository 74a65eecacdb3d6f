"""The registry: what a job may ask for, and for admins how it changes."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path as LocalPath
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, Field, field_validator

from frond.auth import Principal
from frond.contracts import keys
from frond.contracts.errors import FrondError, StoreUnavailable
from frond.contracts.jobs import ModelRef
from frond.contracts.modelspec import ModelManifest
from frond.contracts.reasons import Reason
from frond.ingest import modelforms
from frond.ingest.auth import require_pace, who_asks
from frond.ingest.context import ingest_of
from frond.ingest.multipart import boundary_of
from frond.ingest.problems import Refused
from frond.ingest.routes.answers import PROBLEMS, JsonRoute, drain
from frond.ingest.routes.bodies import Body
from frond.ingest.routes.serving import serve
from frond.models.cached import no_room
from frond.models.registry import DEFAULT_ALIAS, ModelListing
from frond.runtime import clear_folders, folder_on_disk, get_logger

router = APIRouter(tags=["models"], responses=PROBLEMS)  # type: ignore[arg-type] # keys are strings
changes = APIRouter(
    tags=["models"],
    responses=PROBLEMS,  # type: ignore[arg-type] # keys are strings
    route_class=JsonRoute,
)
pushes = APIRouter(tags=["models"], responses=PROBLEMS)  # type: ignore[arg-type] # keys are strings
_PUSH: Final = "frond-push"
_log = get_logger(__name__)

_Version = Annotated[str, Path(description="an alias, a digest, or at least 8 digits of one")]
_Why = Annotated[str, Field(max_length=2000, description="for the alias's history")]
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
                            "description": "model.onnx, model.yaml and what lies beside them, under "
                            "any field name",
                        },
                        "alias": {
                            "type": "string",
                            "description": "to point at it: by default production; empty: none",
                        },
                        "why": {"type": "string", "description": "for the alias's history"},
                    },
                    "required": ["files"],
                }
            }
        },
    }
}


class Models(BaseModel):
    """The registry's models; ``default`` is used where a job names none."""

    default: str
    models: list[ModelListing]


class ModelVersion(ModelRef):
    """One version, whole."""

    manifest: ModelManifest
    files: dict[str, int] = Field(description="bytes by name")


class MoveTo(Body):
    """Where an alias is to point."""

    digest: str = Field(description="the version; 8 digits do, or an alias of it")
    why: _Why = ""


class ShadowTo(Body):
    """What is to run beside a model's ``production``."""

    version: str = Field(max_length=200, description="an alias, a digest, or 8 digits of one")
    share: float = Field(default=0.1, gt=0, le=1, description="of the windows, chosen by hash")
    why: _Why = ""

    @field_validator("share", mode="before")
    @classmethod
    def _no_truth_value(cls, value: object) -> object:
        # pydantic would take true for 1
        if isinstance(value, bool):
            raise ValueError("a share is a number above 0, at most 1")
        return value


class MoveBack(Body):
    """Why, and from where, an alias is to go back."""

    now: str = Field(
        description="the digest it points to; 8 digits do. Asked twice, it goes back once"
    )
    why: _Why = ""


def told_of(manifest: ModelManifest, who: Principal) -> ModelManifest:
    """What somebody may read of a manifest: addresses inside the installation are for admins."""
    if who.admin or manifest.server is None:
        return manifest
    server = manifest.server.model_copy(update={"url": ""})
    return manifest.model_copy(update={"server": server})


@router.get("/models", response_model=Models, summary="List models")
async def list_models(request: Request) -> Models:
    ingest = ingest_of(request)
    return Models(default=ingest.settings.default_model, models=list(await ingest.registry.list()))


@router.get("/models/{name}", response_model=ModelListing, summary="One model")
async def one_model(request: Request, name: str) -> ModelListing:
    """Its versions, where its aliases point, and who moved them when and why."""
    for listed in await ingest_of(request).registry.list(name) if _plain(name) else ():
        return listed
    raise Refused(Reason.NOT_FOUND, f"There is no model {name[:100]!r}.")


@router.get("/models/{name}/versions/{version}", response_model=ModelVersion, summary="One version")
async def one_version(request: Request, name: str, version: _Version) -> ModelVersion:
    """Where a server runs it, its address (`manifest.server.url`) is for admins; others read an
    empty one."""
    registry = ingest_of(request).registry
    ref = await registry.resolve(f"{name}@{version}")
    manifest = told_of(await registry.manifest(ref), who_asks(request))
    return ModelVersion(**ref.model_dump(), manifest=manifest, files=await registry.files(ref))


@changes.get(
    "/models/{name}/versions/{version}/files/{file:any_name}", response_class=Response,
    summary="Fetch a file of a version; ranges are served",
    openapi_extra={"responses": {"200": {"description": "the file"},
                                 "206": {"description": "the range asked for"},
                                 "304": {"description": "as the client has it"}}},
)  # fmt: skip
async def one_file(request: Request, name: str, version: _Version, file: str) -> Response:
    registry = ingest_of(request).registry
    ref = await registry.resolve(f"{name}@{version}")
    missing = Refused(Reason.NOT_FOUND, f"{ref.name}@{ref.digest[:12]} has no file {file[:300]!r}.")
    if file not in await registry.files(ref):
        raise missing
    return await serve(request, keys.model_version(ref.name, ref.digest) + file, missing)


@pushes.post(
    "/models", status_code=201, response_model=ModelRef, openapi_extra=_FORM,
    summary="Store a model as a new version", dependencies=[Depends(require_pace)],
)  # fmt: skip
async def push(request: Request) -> ModelRef:
    """The same files again change nothing. The manifest is checked here, the graph is not tried:
    `frond models push` does both. Without a try of your own, name `staging` as the alias."""
    ingest, body = ingest_of(request), request.stream()
    who = who_asks(request).subject
    try:
        boundary = boundary_of(request.headers.get("content-type"))
        # one at a time: each takes its size on this machine's disk
        async with ingest.pushing:
            with _on_disk() as folder:
                most = ingest.settings.max_model_bytes
                fields = await modelforms.receive(boundary, body, folder, most)
                alias = fields.get(modelforms.ALIAS, DEFAULT_ALIAS) or None
                ref = await ingest.registry.push(folder, alias, who=who, why=fields.get("why", ""))
    except FrondError:
        await drain(body)
        raise
    _log.info("model pushed", model=ref.name, digest=ref.digest, alias=alias, by=who)
    return ref


@changes.put("/models/{name}/aliases/{alias}", response_model=ModelRef, summary="Promote a version")
async def promote(request: Request, name: str, alias: str, body: MoveTo) -> ModelRef:
    """Point an alias at a version. New jobs use it; jobs that began keep theirs."""
    who = who_asks(request).subject
    registry = ingest_of(request).registry
    ref = await registry.promote(name, alias, body.digest, who=who, why=body.why)
    _log.info("alias moved", model=name, alias=alias, digest=ref.digest, by=who)
    return ref


@changes.post(
    "/models/{name}/aliases/{alias}/rollback", response_model=ModelRef,
    summary="Point an alias back at the version before",
)  # fmt: skip
async def rollback(request: Request, name: str, alias: str, body: MoveBack) -> ModelRef:
    who = who_asks(request).subject
    registry = ingest_of(request).registry
    ref = await registry.rollback(name, alias, now=body.now, who=who, why=body.why)
    _log.info("alias moved back", model=name, alias=alias, digest=ref.digest, by=who)
    return ref


@changes.put(
    "/models/{name}/shadow", response_model=ModelRef, summary="Let a version run as shadow"
)
async def set_shadow(request: Request, name: str, body: ShadowTo) -> ModelRef:
    """It runs beside `production` on a share of the windows, and what it finds is kept apart. Jobs
    of `production` that begin from now on take it, where they say nothing of a shadow."""
    who = who_asks(request).subject
    shadows = ingest_of(request).registry.shadows
    ref = await shadows.put(name, body.version, body.share, who=who, why=body.why)
    _log.info("shadow set", model=name, digest=ref.digest, share=body.share, by=who)
    return ref


@changes.delete(
    "/models/{name}/shadow", status_code=204, summary="Let no version run as shadow any more"
)
async def drop_shadow(
    request: Request,
    name: str,
    why: Annotated[str, Query(max_length=2000, description="for its history")] = "",
) -> Response:
    who = who_asks(request).subject
    await ingest_of(request).registry.shadows.off(name, who=who, why=why)
    _log.info("shadow taken away", model=name, by=who)
    return Response(status_code=204)


def clear_pushes() -> None:
    """Remove what pushes have left on this disk whose processes were killed."""
    clear_folders(LocalPath(tempfile.gettempdir()), _PUSH)


@contextlib.contextmanager
def _on_disk() -> Iterator[LocalPath]:
    """A folder for one model. Raises Refused (507) where the disk takes no more."""
    try:
        with folder_on_disk(LocalPath(tempfile.gettempdir()), _PUSH) as folder:
            yield folder
    except (OSError, StoreUnavailable) as e:
        if no_room(e) is None:
            raise
        raise Refused(
            Reason.UNAVAILABLE,
            "There is no room on the service's disk to take this model in. Try again once its "
            "operator has made some.",
            status=507,
        ) from None


def _plain(name: str) -> bool:
    return "/" not in name and name not in (".", "..")
