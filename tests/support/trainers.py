"""Training workers as processes, for tests: what they start counts instead of learning."""

# ruff: noqa: ASYNC110 (the store tells nobody that an object has changed)
from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from frond.bus import EventProducer, Outgoing, ensure_topics
from frond.contracts import topics
from frond.contracts.ids import digest
from frond.contracts.training import TrainingRequest, TrainingRun
from frond.models.trainings import Trainings, event_of
from frond.stack.paths import free_port
from frond.store import ObjectStore
from support.services import open_store
from support.waiting import until_ready

TRAINING = Path(__file__).parents[2] / "training"
RECIPE = TRAINING / "tests" / "worker" / "worker_recipe.py"
MODEL = "palm-detector"


@dataclass
class World:
    """One installation's store and topics, and the workers that share them."""

    env: dict[str, str]
    folder: Path
    store: ObjectStore
    producer: EventProducer
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def trainings(self) -> Trainings:
        return Trainings(self.store)

    def config(self, file: str = "palm", **more: Any) -> None:
        told = {"name": MODEL, "lives": str(self.folder / "lives"), **more}
        (self.folder / "configs").mkdir(exist_ok=True)
        (self.folder / "configs" / f"{file}.yaml").write_text(json.dumps(told))

    def lives(self) -> list[dict[str, Any]]:
        path = self.folder / "lives"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def start(self, **more: str) -> subprocess.Popen[bytes]:
        port = free_port()
        log = self.folder / f"worker-{len(self.workers)}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "frond.training.worker"], stdout=out, stderr=out,
                env={**self.env, **more, "FROND_HTTP_PORT": str(port)},
            )  # fmt: skip
        self.workers.append(process)
        until_ready(process, f"http://127.0.0.1:{port}", log)
        return process

    async def ask(self, n: int = 0, *, tell: bool = True, **more: Any) -> str:
        wanted = TrainingRequest.model_validate(
            {"training_id": digest("t", str(n)), "model": MODEL, "recipe": "palm",
             "requested": datetime.now(UTC), **more}
        )  # fmt: skip
        run = await self.trainings.begin(wanted)
        if tell:
            await self.producer.send(Outgoing(topics.TRAINING, event_of(run)))
        return run.training_id

    async def when(
        self, training_id: str, is_so: Callable[[TrainingRun], bool], within: float = 120
    ) -> TrainingRun:
        try:
            async with asyncio.timeout(within):
                while not is_so(run := await self.trainings.get(training_id)):
                    await asyncio.sleep(0.1)
                return run
        except TimeoutError:
            logs = [p.read_text()[-3000:] for p in sorted(self.folder.glob("worker-*.log"))]
            raise AssertionError("\n".join([str(run), *logs])) from None

    async def ended(self, training_id: str) -> TrainingRun:
        run = await self.when(training_id, lambda r: r.status.final)
        async with asyncio.timeout(60):
            while training_id in [i async for i, _ in self.trainings.waiting()]:
                await asyncio.sleep(0.05)
        return run


@contextlib.asynccontextmanager
async def a_world(service_env: dict[str, str], folder: Path) -> AsyncIterator[World]:
    """One installation with a config of palm and no worker."""
    path = filter(None, (str(TRAINING / "src"), service_env.get("PYTHONPATH")))
    env = {
        **service_env,
        "PYTHONPATH": os.pathsep.join(path),
        "FROND_TRAINING_PROGRAM": f"{sys.executable} {RECIPE}",
        "FROND_TRAINING_CONFIGS": str(folder / "configs"),
        "FROND_TRAINING_DATA": str(folder),
        "FROND_TRAINING_OUT": str(folder / "out"),
        "FROND_TRAINING_LEASE_S": "6",
        "FROND_TRAINING_PROGRESS_S": "0.2",
        "FROND_TRAINING_LOOK_S": "0.3",
        "FROND_TRAINING_STOP_S": "1",
    }
    store = open_store(env)
    bootstrap, prefix = env["FROND_KAFKA_BOOTSTRAP"], env["FROND_TOPIC_PREFIX"]
    await ensure_topics(bootstrap, prefix)
    producer = EventProducer(bootstrap, prefix, "/test")
    await producer.start()
    made = World(env, folder, store, producer)
    made.config()
    try:
        yield made
    finally:
        for process in made.workers:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGCONT)
                    process.kill()
                process.wait(30)
        await producer.stop()
        store.close()
