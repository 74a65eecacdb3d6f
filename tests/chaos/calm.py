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

_OPEN: Final = 12
_WITHIN_S: Final = 900.0


async def calm_digests(
    folder: Path, plans: dict[str, JobPlan], webhook_url: str, say: Callable[[str], None]
) -> dict[str, bytes]:
    """Run these jobs on an installation that nobody disturbs; the digest of each object.

    Raises:
        AssertionError: a job did not end, or a service died.
    """
    figures = Figures()
    installation = Installation(folder, figures)
    oracle = Oracle(folder / "journal.jsonl")
    try:
        await installation.open()
        bootstrap = installation.stack.direct.kafka_bootstrap
        watch = Watch(bootstrap)
        watch.start()
        feeder = Feeder(
            installation, oracle, figures, watch, seed=0, first=0, webhook_url=webhook_url
        )
        for done, plan in enumerate(plans.values()):
            while len(feeder.open_jobs()) >= _OPEN:
                await watch.any_change(1.0)
            await feeder.submit(plan)
            say(f"{done + 1} of {len(plans)} jobs submitted, {len(watch.ended)} ended")
        await watch.end_of(plans, _WITHIN_S)
        # a service that dies here does so undisturbed
        assert figures.good, "; ".join(figures.details)
        store = installation.store()
        try:
            async with asyncio.timeout(_WITHIN_S):
                while left := await outside.unsettled(store, bootstrap, lambda _: True):
                    say(f"{len(left)} not settled")
                    await asyncio.sleep(0.3)  # commits announce themselves to nobody
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
