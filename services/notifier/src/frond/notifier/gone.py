"""Receivers that want no more: 410 is said of an address, not of the one notice that met it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import datetime
from functools import partial

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


async def note_gone(
    store: ObjectStore, delivery: Delivery, answer: Answer, now: Callable[[], datetime],
    until: datetime,
) -> None:  # fmt: skip
    """Keep what an answer says of its address, before the answer itself is kept: whoever dies
    between the two asks once more.

    Args:
        until: when the attempt belongs to whoever makes it no more. From then on another one has
            asked since, and was perhaps answered otherwise: a late 410 closes nothing.
    """
    if answer.gone:
        said = now()
        kept = await _keys(store, delivery)

        async def close() -> None:
            for key in kept:
                if now() < until:
                    raw = Gone(said=said).model_dump_json().encode()
                    await store.put(key, raw, "application/json")

        await wait_out(close, what="noting that one wants no more")
        crash_point("notifier.gone-noted")
    elif delivery.round and answer.delivered and delivery.kind is Kind.WEBHOOK:
        for key in await _keys(store, delivery):
            await wait_out(partial(store.delete, key), what="noting that a receiver is there again")
        crash_point("notifier.gone-forgotten")


async def _keys(store: ObjectStore, delivery: Delivery) -> set[str]:
    """Where it is kept: for the notice's tenant, and of a replay for its first notice's as well.

    The two differ where the first was stored before anything said whose its job is.
    """
    tenants = {delivery.tenant}
    if delivery.round:
        # the id needs no time
        first = Delivery.of(delivery.event, delivery.kind, delivery.target, datetime.min)
        key = keys.delivery(delivery.job_id, first.id)
        with contextlib.suppress(ObjectMissing):
            raw = await wait_out(lambda: store.get(key), what="reading whose a notice is")
            tenants.add(Delivery.model_validate_json(raw).tenant)
    return {keys.gone(tenant, delivery.target) for tenant in tenants}
