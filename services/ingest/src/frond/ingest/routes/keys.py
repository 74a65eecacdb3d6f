"""API keys: made, listed and revoked by admins."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Request
from pydantic import AwareDatetime, BaseModel, Field

from frond.auth import DEFAULT_TENANT, KeyRecord, Scope
from frond.contracts.errors import ObjectMissing
from frond.contracts.reasons import Reason
from frond.ingest.auth import who_asks
from frond.ingest.context import ingest_of
from frond.ingest.problems import Refused
from frond.ingest.routes.answers import PROBLEMS, JsonRoute
from frond.ingest.routes.bodies import Body
from frond.runtime import get_logger

router = APIRouter(
    tags=["keys"],
    responses=PROBLEMS,  # type: ignore[arg-type] # keys are strings
    route_class=JsonRoute,
)
_log = get_logger(__name__)


class NewKey(Body):
    """A key to be made."""

    name: str = Field(min_length=1, max_length=200, description="for people: who or what has it")
    tenant: str | None = Field(
        default=None,
        description=f"whose jobs it makes and sees; by default {DEFAULT_TENANT!r}, for an admin's "
        "key none",
    )
    scopes: list[Scope] = Field(
        default=[Scope.SUBMIT, Scope.READ],
        min_length=1,
        max_length=3,
        description="submit: make and change jobs, predict. read: status, results, events, models. "
        "admin: everything, for all tenants",
    )
    expires: AwareDatetime | None = Field(default=None, description="by default never")


class Key(BaseModel):
    """What is known of a key; its secret is not."""

    id: str
    name: str
    tenant: str | None
    scopes: list[Scope]
    state: Literal["active", "expired", "revoked"]
    created: datetime
    expires: datetime | None
    revoked: datetime | None


class MadeKey(Key):
    """A key just made."""

    key: str = Field(description="the key itself: shown here and never again")


class KeyList(BaseModel):
    """All keys, the oldest first."""

    keys: list[Key]


def _shown(record: KeyRecord) -> dict[str, object]:
    return record.model_dump(exclude={"sha256"}) | {"state": record.state(datetime.now(UTC))}


@router.post("/keys", status_code=201, response_model=MadeKey, summary="Make an API key")
async def create(request: Request, body: NewKey) -> MadeKey:
    """Sent twice, it makes two keys: no answer with a secret in it is kept."""
    tenant = body.tenant
    if tenant is None and Scope.ADMIN not in body.scopes:
        tenant = DEFAULT_TENANT
    record, key = await ingest_of(request).gate.keys.create(
        body.name, tenant=tenant, scopes=body.scopes, expires=body.expires
    )
    _log.info("key made", key=record.id, tenant=tenant, by=who_asks(request).subject)
    return MadeKey.model_validate({**_shown(record), "key": key})


@router.get("/keys", response_model=KeyList, summary="List API keys")
async def list_keys(request: Request) -> KeyList:
    found = await ingest_of(request).gate.keys.list()
    return KeyList(keys=[Key.model_validate(_shown(r)) for r in found])


@router.delete("/keys/{key_id}", response_model=Key, summary="Revoke an API key")
async def revoke(
    request: Request, key_id: Annotated[str, Path(description="its id, not the key")]
) -> Key:
    """Within five seconds it is good for nothing. Its record stays, so that it can be told whose
    it was."""
    try:
        record = await ingest_of(request).gate.keys.revoke(key_id)
    except ObjectMissing:
        raise Refused(Reason.NOT_FOUND, f"There is no key {key_id[:100]!r}.") from None
    _log.info("key revoked", key=record.id, by=who_asks(request).subject)
    return Key.model_validate(_shown(record))
