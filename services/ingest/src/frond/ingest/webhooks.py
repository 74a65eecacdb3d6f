"""Webhooks of a job: what became of them, and sending them once more.

Nothing is sent from here. A further round is one more record with its marker in the store, which
the notifier takes up.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from frond.contracts import keys
from frond.contracts.deliveries import Delivery, Kind
from frond.contracts.errors import ObjectMissing
from frond.contracts.ids import digest
from frond.contracts.jobs import JobStatus
from frond.contracts.reasons import Reason
from frond.ingest import desk, intake, places
from frond.ingest.context import Ingest, age
from frond.ingest.problems import Refused
from frond.runtime import crash_point

MOST_ROUNDS: Final = 20
"""How often the webhooks of one job may be sent once more."""
_LEASE_S: Final = 30.0
"""How old a round without records is when whoever began it has certainly died."""


async def of_job(ingest: Ingest, job_id: str) -> list[Delivery]:
    """All webhooks and e-mails of a job, the oldest first. Raises Refused (404)."""
    await desk.row_of(ingest, job_id)
    prefix = keys.deliveries(job_id)
    records = [
        found.key
        async for found in ingest.store.list(prefix)
        if found.key.endswith(".json") and "/" not in found.key.removeprefix(prefix)
    ]

    async def read(key: str) -> Delivery | None:
        try:
            return Delivery.model_validate_json(await ingest.store.get(key))
        except ObjectMissing:
            return None

    known = [d for d in await intake.in_parallel(records, read) if d is not None]
    never = datetime.min.replace(tzinfo=UTC)
    return sorted(known, key=lambda d: (bool(d.round), d.created or never, d.id))


async def replay(ingest: Ingest, job_id: str, idempotency_key: str | None) -> list[Delivery]:
    """Have the notices of an ended job sent once more: one a webhook, under its own record.

    The same Idempotency-Key is the same round. A job that asked for no webhook gives none.

    Raises:
        Refused: 404; CONFLICT: the job has not ended, or another round of it has not;
            TOO_MANY: it had as many rounds as a job may.
    """
    row = await desk.row_of(ingest, job_id)
    # whoever was just told of the end may be faster than the read model
    if not JobStatus(row.status).final and not await ingest.store.exists(
        keys.job_completed(job_id)
    ):
        raise Refused(
            Reason.CONFLICT,
            f"Job {job_id!r} has not ended ({row.status}), so no notice of it was sent yet.",
        )
    round_ = digest("replay", job_id, idempotency_key or secrets.token_hex(16))[:12]
    now = datetime.now(UTC)
    out: list[Delivery] = []
    known = await of_job(ingest, job_id)
    due = [d for d in known if d.kind is Kind.WEBHOOK and not d.round]
    if due:
        await _take_turn(ingest, job_id, round_, known)
    for first in due:
        mine = first.again(round_, now, row.tenant)
        stored = Delivery.model_validate_json(
            await ingest.store.put_if_absent(
                keys.delivery(job_id, mine.id), mine.model_dump_json().encode()
            )
        )
        crash_point("ingest.replay-stored")
        if not stored.final:
            # last: with the marker, it is promised
            await _promise(ingest, stored)
        out.append(stored)
    return out


async def _promise(ingest: Ingest, delivery: Delivery) -> None:
    marker = keys.delivery_marker(delivery.job_id, delivery.id)
    await ingest.store.put_if_absent(marker, b"{}")
    crash_point("ingest.replay-marked")


async def _take_turn(ingest: Ingest, job_id: str, round_: str, known: Sequence[Delivery]) -> None:
    """Make this the job's next round, or find that it is one already. Raises Refused."""
    for n in range(1, MOST_ROUNDS + 1):
        key = places.replay(job_id, n)
        there = (await ingest.store.put_if_absent(key, round_.encode())).decode()
        if there == round_:
            crash_point("ingest.round-taken")
            return
        sent = [d for d in known if d.round == there]
        # whoever began this round may have died before it gave them their markers
        for pending in (d for d in sent if not d.final):
            await _promise(ingest, pending)
        begun = sent or age(await ingest.store.stat(key)) > _LEASE_S
        if not begun or not all(d.final for d in sent):
            # no Retry-After: a round whose receiver is away takes hours
            raise Refused(
                Reason.CONFLICT,
                f"The webhooks of job {job_id!r} are being sent once more already. "
                "Look at /webhooks, and ask again when that has ended.",
            )
    raise Refused(
        Reason.TOO_MANY,
        f"The webhooks of job {job_id!r} were sent once more {MOST_ROUNDS} times, which is as often "
        "as may be. Fetch /jobs/JOB instead.",
    )
