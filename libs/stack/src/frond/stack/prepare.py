"""What must be there before the first service starts: topics, the bucket, the models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from frond.bus.admin import ensure_topics
from frond.models.registry import Registry
from frond.stack.aio import run_blocking
from frond.stack.endpoints import Endpoints
from frond.store import ObjectStore, StoreSettings


def prepare(
    endpoints: Endpoints, bucket: str, prefix: str = "", *, replication_factor: int = 1
) -> None:
    """Make every declared topic, with so many replicas, and the bucket, where they are not there yet."""

    async def make() -> None:
        await ensure_topics(
            endpoints.kafka_bootstrap, prefix, replication_factor=replication_factor
        )
        store = _store(endpoints, bucket)
        try:
            await store.ensure_bucket()
        finally:
            store.close()

    run_blocking(make)


def push_models(
    endpoints: Endpoints, bucket: str, folder: Path, say: Callable[[str], None] = print
) -> list[str]:
    """Push each model folder under ``folder``; returns their references.

    A version that is there already stays. ``production`` is pointed at a folder's version only
    for a model that has no such alias yet: a promotion made by hand outlives a restart.
    """

    manifests = sorted(folder.glob("*/model.yaml"))

    async def push() -> list[str]:
        store = _store(endpoints, bucket)
        try:
            registry = Registry(store)
            pushed = []
            for manifest in manifests:
                ref = await registry.push(manifest.parent, alias=None)
                listed = await registry.list(ref.name)
                now = {m.aliases["production"].digest for m in listed if "production" in m.aliases}
                if not now:
                    await registry.promote(
                        ref.name, "production", ref.digest, who="make up", why="the first one"
                    )
                pushed.append(f"{ref.name}@{ref.digest[:12]}")
                say(f"Model {ref.name} {ref.version} is in the registry")
                if now - {ref.digest}:
                    say(
                        f"  production stays with {now.pop()[:12]}; to move it: "
                        f"frond models promote {ref.name} {ref.digest[:12]}"
                    )
            return pushed
        finally:
            store.close()

    return run_blocking(push)


def _store(endpoints: Endpoints, bucket: str) -> ObjectStore:
    return ObjectStore(
        StoreSettings(endpoints.s3_endpoint, endpoints.access_key, endpoints.secret_key, bucket),
        threads=4,
    )
