"""Training runs, for admins: asked for, looked at, cancelled. What trains is another process."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, WithJsonSchema

from frond.contracts.modelspec import NAME_PATTERN
from frond.contracts.reasons import Reason
from frond.contracts.training import (
    RECIPE_PATTERN,
    STAGING,
    TRAINING_ID_PATTERN,
    TrainedAlias,
    TrainingOverrides,
    TrainingRequest,
    TrainingRun,
)
from frond.ingest import training, views
from frond.ingest.auth import who_asks
from frond.ingest.context import ingest_of
from frond.ingest.cursors import read_cursor, write_cursor
from frond.ingest.idempotency import check_key
from frond.ingest.names import clean_text
from frond.ingest.problems import Refused
from frond.ingest.routes.answers import PROBLEMS, IdempotencyKey, JsonRoute
from frond.ingest.routes.bodies import Body
from frond.ingest.tracing import traceparent
from frond.runtime import get_logger

router = APIRouter(
    tags=["training"],
    responses=PROBLEMS,  # type: ignore[arg-type] # keys are strings
    route_class=JsonRoute,
)
_log = get_logger(__name__)

# told in the document and checked by `training`, whose sentence says more than a pattern
TrainingId = Annotated[str, WithJsonSchema({"type": "string", "pattern": TRAINING_ID_PATTERN})]


class Overrides(TrainingOverrides, Body):
    """What overrides the recipe's config; what is left out is the config's."""


class NewTraining(Body):
    """A training run to be made."""

    model: str = Field(pattern=NAME_PATTERN, description="the model that gets a version by it")
    recipe: str = Field(
        pattern=RECIPE_PATTERN,
        description="palm or landcover, or a config of one of them: palm-NAME, landcover-NAME",
    )
    overrides: Overrides = Overrides()
    why: str = Field(default="", max_length=2000, description="for whoever reads the list")
    alias: TrainedAlias = STAGING


class TrainingList(BaseModel):
    """Training runs, the newest first."""

    training: list[TrainingRun]
    links: list[views.Link]
    next_cursor: str | None


@router.post(
    "/training", status_code=202, response_model=TrainingRun, summary="Have a model trained"
)
async def start(
    request: Request, body: NewTraining, key: Annotated[str | None, IdempotencyKey] = None
) -> Response:
    """A training worker takes it up when it is free; where none runs, it waits. Its version gets
    the alias, and no job uses it until somebody promotes it."""
    check_key(key)
    who = who_asks(request)
    wanted = TrainingRequest(
        training_id=training.new_id(key, who), model=body.model, recipe=body.recipe,
        overrides=TrainingOverrides(**body.overrides.model_dump()), why=clean_text(body.why),
        alias=body.alias, requested_by=training.name_of(who), requested=training.now(),
    )  # fmt: skip
    run = await training.begin(ingest_of(request), wanted, traceparent(request))
    headers = {"Location": f"{views.base(request)}/training/{run.training_id}"}
    if run.requested != wanted.requested:
        headers["Idempotency-Replayed"] = "true"
    else:
        _log.info("training asked for", training_id=run.training_id, by=who.subject)
    return JSONResponse(run.model_dump(mode="json"), 202, headers=headers)


@router.get(
    "/training", response_model=TrainingList, summary="List training runs, the newest first"
)
async def list_runs(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: str | None = None,
) -> TrainingList:
    found = read_cursor(cursor, int, str)
    if found and not re.fullmatch(TRAINING_ID_PATTERN, str(found[1])):
        raise Refused(
            Reason.BAD_REQUEST, "The cursor is none of ours; begin without one.", status=422
        )
    after = f"{found[0]:015d}-{found[1]}" if found else None
    runs, last = await ingest_of(request).trainings.page(after, limit)
    links = [views.Link(rel="self", href=views.asked(request))]
    time, _, training_id = (last or "").partition("-")
    more = write_cursor(int(time), training_id) if last else None
    if more:
        links.append(views.Link(rel="next", href=views.asked(request, cursor=more)))
    return TrainingList(training=list(runs), links=links, next_cursor=more)


@router.get(
    "/training/{training_id}", response_model=TrainingRun, summary="Where a training run stands"
)
async def show(request: Request, training_id: TrainingId) -> TrainingRun:
    return await training.one(ingest_of(request), training_id)


@router.delete(
    "/training/{training_id}", status_code=202, response_model=TrainingRun,
    summary="Stop a training run",
)  # fmt: skip
async def cancel(request: Request, training_id: TrainingId) -> TrainingRun:
    """One that waits has ended with the answer; one that runs is ended by its worker within seconds.
    What it has learned until then is thrown away."""
    who = who_asks(request)
    run = await training.cancel(ingest_of(request), training_id, who)
    _log.info("training cancelled", training_id=run.training_id, by=who.subject)
    return run
