"""Webhooks of a job: what became of them, and sending them once more.

Nothing is sent from here. A further round is one more record with its marker in the store, which
the notifier takes up.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

from frond.contracts import keys
from frond.contracts.deliveries import Delivery, Kind
from frond.contracts.errors import ObjectMissing
from frond.contracts.ids import digest
from frond.contracts.jobs import JobStatus
from frond.contracts.reasons import Reason
from frond.ingest import desk, intake
from frond.ingest.context import Ingest
from frond.ingest.problems import Refused


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
        Refused: 404; CONFLICT: the job has not ended.
    """
    row = await desk.row_of(ingest, job_id)
    if not JobStatus(row.status).final:
        raise Refused(
            Reason.CONFLICT,
            f"Job {job_id!r} has not ended ({row.status}), so no notice of it was sent yet.",
        )
    round_ = digest("replay", job_id, idempotency_key or secrets.token_hex(16))[:12]
    now = datetime.now(UTC)
    out = []
    for first in await of_job(ingest, job_id):
        if first.kind is not Kind.WEBHOOK or first.round:
            continue
        mine = first.again(round_, now, row.tenant)
        stored = Delivery.model_validate_json(
            await ingest.store.put_if_absent(
                keys.delivery(job_id, mine.id), mine.model_dump_json().encode()
            )
        )
        if not stored.final:
            # last: with the marker, it is promised
            await ingest.store.put_if_absent(keys.delivery_marker(job_id, stored.id), b"{}")
        out.append(stored)
    return out
