"""``python -m frond.ingest``."""

from __future__ import annotations

import sys
from typing import Final

from fastapi import FastAPI

from frond.ingest.app import make_app
from frond.ingest.context import Ingest, keep_connected
from frond.ingest.readmodel.consumer import PART
from frond.ingest.readmodel.process import fork_keeper
from frond.ingest.settings import IngestSettings
from frond.ingest.sweeper import remember_first, sweep_forever
from frond.runtime import Service, serve

_SWITCH_S: Final = 0.001
"""How long a thread that computes keeps the event loop waiting: by default five times as long, at
each of the dozen turns between thread and loop that an answer takes."""


def main() -> None:
    """Serve the REST door until SIGTERM."""
    sys.setswitchinterval(_SWITCH_S)
    settings = IngestSettings.read()
    keeper = fork_keeper(settings)
    made: list[Ingest] = []

    def app(_: Service) -> FastAPI:
        made.append(Ingest(settings))
        return make_app(made[0])

    async def connections(service: Service) -> None:
        await keep_connected(service, made[0])

    async def read_model(service: Service) -> None:
        service.health.expect(PART, "preparing the database")
        await made[0].prepared()
        await remember_first(made[0])
        await keeper.attend(service, made[0])

    async def sweeper(service: Service) -> None:
        await made[0].prepared()
        await sweep_forever(service, made[0])

    serve("ingest", settings, [connections, read_model, sweeper], make_app=app)


if __name__ == "__main__":
    main()
