"""The reference: the same jobs, undisturbed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from chaos import outside
from chaos.feeder import Feeder
from chaos.figures import Figures
from chaos.installation import Installation
from chaos.jobs import JobPlan
from chaos.oracle import Oracle
from chaos.watch import Watch
from frond.contracts import keys
from frond.store import ObjectStore

_OPEN: Final = 4
_WITHIN_S: Final = 900.0


async def calm_digests(
    folder: Path, plans: dict[str, JobPlan], webhook_url: str, say: Callable[[str], None]
) -> dict[str, bytes]:
    """Run these jobs on an installation that nobody disturbs; the digest of each object.

    Raises:
        AssertionError: a job did not end.
    """
    installation = Installation(folder, Figures())
    oracle = Oracle(folder / "journal.jsonl")
    try:
        await installation.open()
        bootstrap = installation.stack.direct.kafka_bootstrap
        watch = Watch(bootstrap)
        watch.start()
        feeder = Feeder(
            installation, oracle, Figures(), watch, seed=0, first=0, webhook_url=webhook_url
        )
        for done, plan in enumerate(plans.values()):
            while len(feeder.open_jobs()) >= _OPEN:
                await watch.any_change(1.0)
            await feeder.submit(plan)
            say(f"{done + 1} of {len(plans)} jobs submitted, {len(watch.ended)} ended")
        await watch.end_of(plans, _WITHIN_S)
        store = installation.store()
        try:
            await _settled(store)
            return await outside.digests(
                store, lambda _: True, lambda n: say(f"{n} objects read") if n % 500 == 0 else None
            )
        finally:
            store.close()
            await feeder.close()
            await watch.close()
    finally:
        oracle.close()
        await installation.close()


async def _settled(store: ObjectStore) -> None:
    for prefix in (keys.OPEN, keys.DELIVERIES, keys.UNTOLD):
        while True:
            if not [item async for item in store.list(prefix)]:
                break
            await asyncio.sleep(0.3)  # markers announce their going to nobody
