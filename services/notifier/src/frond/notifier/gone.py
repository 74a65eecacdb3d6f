"""Receivers that want no more: 410 is said of an address, not of the one notice that met it."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from frond.contracts import keys
from frond.contracts.deliveries import Delivery, Kind
from frond.contracts.errors import ObjectMissing
from frond.notifier.delivery import Answer, unwanted
from frond.runtime import crash_point, wait_out
from frond.store import ObjectStore


class Gone(BaseModel):
    """What is kept of such an address."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    said: datetime


async def find_gone(store: ObjectStore, delivery: Delivery) -> Answer | None:
    """The answer that stands for an attempt which nobody wants; None: it may be made.

    Only what was asked for expressly, a replay, goes where 410 was said.
    """
    if delivery.kind is not Kind.WEBHOOK or delivery.round:
        return None
    key = keys.gone(delivery.tenant, delivery.target)

    async def read() -> Answer | None:
        try:
            return unwanted(Gone.model_validate_json(await store.get(key)).said)
        except ObjectMissing:
            return None

    return await wait_out(read, what="asking whether a receiver wants no more")


async def note_gone(store: ObjectStore, delivery: Delivery, answer: Answer, now: datetime) -> None:
    """Keep what an answer says of its address, before the answer itself is kept: whoever dies
    between the two asks once more."""
    key = keys.gone(delivery.tenant, delivery.target)
    if answer.gone:
        raw = Gone(said=now).model_dump_json().encode()
        await wait_out(
            lambda: store.put(key, raw, "application/json"), what="noting that one wants no more"
        )
        crash_point("notifier.gone-noted")
    elif delivery.round and answer.delivered and delivery.kind is Kind.WEBHOOK:
        await wait_out(lambda: store.delete(key), what="noting that a receiver is there again")
        crash_point("notifier.gone-forgotten")
