"""TEMPORARY until frond.artifacts is there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from typing import Any

from frond.contracts import keys
from frond.contracts.jobs import Artifact, ImageOutcome
from frond.store import ObjectStore


async def write_image_artifacts(
    store: ObjectStore, plan: Any, outcome: ImageOutcome, merged: Any, manifest: Any
) -> None:
    await store.put(
        keys.image_artifact(plan.job_id, plan.image_id, "coco.json"),
        json.dumps({"n": len(merged)}).encode(),
    )


async def write_job_artifacts(
    store: ObjectStore, job_id: str, outcomes: Iterable[ImageOutcome], spec: Any, manifest: Any
) -> Sequence[Artifact]:
    def write() -> Artifact:
        with store.writer(keys.result(job_id, "summary.json"), "application/json") as sink:
            for o in outcomes:
                sink.write(o.model_dump_json().encode() + b"\n")
        return Artifact(
            name="summary.json", uri=store.uri(sink.key), media_type="application/json",
            size=sink.size, sha256=sink.sha256,
        )  # fmt: skip

    return [await asyncio.to_thread(write)]
