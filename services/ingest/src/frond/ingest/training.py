"""Training runs: asked for and cancelled here, never trained.

A run is an object in the store before its event is sent; the sweeper sends what was not. Whoever
trains goes by the store, so that an event that is lost delays a run and no more.
"""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime
from typing import Final

from frond.auth import Principal
from frond.bus import Outgoing
from frond.contracts import topics
from frond.contracts.envelope import new_traceparent
from frond.contracts.errors import BrokerUnavailable, ObjectMissing
from frond.contracts.ids import digest
from frond.contracts.reasons import Reason
from frond.contracts.training import (
    TRAINING_ID_PATTERN,
    TrainingRequest,
    TrainingRun,
    TrainingStatus,
)
from frond.ingest.context import Ingest, age
from frond.ingest.names import clean_text
from frond.ingest.problems import Refused
from frond.models.trainings import UnreadableRun, event_of, same_request
from frond.runtime import get_logger

_ID: Final = re.compile(TRAINING_ID_PATTERN)
_NEVER_BEGUN_S: Final = 3600.0
_log = get_logger(__name__)


def new_id(key: str | None, who: Principal) -> str:
    """A run's id: the same for the same key, so that a request sent twice is one run."""
    return digest("training", who.own("training"), key) if key else secrets.token_hex(16)


def name_of(who: Principal) -> str:
    """Who it was, as a run keeps it."""
    return clean_text(who.subject)[:300]


async def begin(ingest: Ingest, wanted: TrainingRequest, trace: str) -> TrainingRun:
    """Have a run, and tell of it.

    Raises:
        Refused: CONFLICT (422): its id was given to another request.
    """
    await ingest.require_broker()
    run = await ingest.trainings.begin(wanted)
    if not same_request(run, wanted):
        raise Refused(
            Reason.CONFLICT,
            "This Idempotency-Key was used for another request. Use a new key.",
            status=422,
        )
    if run.status is TrainingStatus.QUEUED:
        try:
            await tell(ingest, run, trace)
        except BrokerUnavailable as e:
            _log.warning("a training is told of later", training_id=run.training_id, error=str(e))
    return run


async def tell(ingest: Ingest, run: TrainingRun, trace: str) -> None:
    """Send a run's event, and note that it was sent. Raises BrokerUnavailable."""
    await ingest.producer.send(Outgoing(topics.TRAINING, event_of(run)), traceparent=trace)
    await ingest.trainings.told(run.training_id)


async def one(ingest: Ingest, training_id: str) -> TrainingRun:
    """How a run stands. Raises Refused (404)."""
    try:
        return await ingest.trainings.get(_checked(training_id))
    except ObjectMissing:
        raise _missing(training_id) from None


async def cancel(ingest: Ingest, training_id: str, who: Principal) -> TrainingRun:
    """Have a run stop. Raises Refused: there is none, or it has ended otherwise already."""
    try:
        run = await ingest.trainings.cancel(_checked(training_id), name_of(who))
    except ObjectMissing:
        raise _missing(training_id) from None
    if run.status.final and run.status is not TrainingStatus.CANCELLED:
        raise Refused(
            Reason.CONFLICT, f"Training {training_id} has ended already ({run.status.value})."
        )
    return run


async def sweep(ingest: Ingest) -> int:
    """Tell of runs that nobody was told of; returns how many those were."""
    sent = 0
    async for training_id, found in ingest.trainings.waiting(untold=True):
        if age(found) < ingest.settings.sweep_after_seconds:
            continue
        try:
            run = await ingest.trainings.get(training_id)
        except UnreadableRun as e:
            _log.error("a training cannot be read", error=str(e))
            continue
        except ObjectMissing:
            # its request died before there was a run; one that is under way stores it any moment
            if age(found) > _NEVER_BEGUN_S:
                _log.warning("a training that never began is forgotten", training_id=training_id)
                await ingest.trainings.close(training_id)
            continue
        if run.status.final:
            await ingest.trainings.close(training_id)
            continue
        # its list mark may be missing as well
        await ingest.trainings.begin(run.request())
        await tell(ingest, run, new_traceparent())
        sent += 1
    if sent:
        _log.warning("told of trainings that nobody was told of", trainings=sent)
    return sent


def now() -> datetime:
    """The time of a request, in the milliseconds that its place in lists has."""
    at = datetime.now(UTC)
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def _checked(training_id: str) -> str:
    if not _ID.fullmatch(training_id):
        raise _missing(training_id)
    return training_id


def _missing(training_id: str) -> Refused:
    return Refused(Reason.NOT_FOUND, f"There is no training {training_id[:100]!r}.")
