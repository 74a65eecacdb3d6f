"""GET /models: what a job may ask for."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel

from frond.ingest.context import ingest_of
from frond.ingest.routes.answers import PROBLEMS
from frond.models.registry import ModelListing

router = APIRouter(tags=["models"], responses=PROBLEMS)  # type: ignore[arg-type] # keys are strings


class Models(BaseModel):
    """The registry's models; ``default`` is used where a job names none."""

    default: str
    models: list[ModelListing]


@router.get("/models", response_model=Models, summary="List models")
async def list_models(request: Request) -> Models:
    ingest = ingest_of(request)
    return Models(default=ingest.settings.default_model, models=list(await ingest.registry.list()))
