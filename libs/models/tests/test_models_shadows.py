"""Standing shadows, and what becomes of a sender's wish, in a real object store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from frond.contracts import keys
from frond.contracts.errors import ModelRejected
from frond.contracts.jobs import ModelRef, Shadow, ShadowWish
from frond.contracts.reasons import Reason
from frond.models.folder import MANIFEST_FILE, parse_manifest
from frond.models.registry import Registry
from frond.models.shadows import misfit
from frond.models.testing import blob_model, colour_model
from frond.stack import Endpoints
from frond.store import ObjectStore, StoreSettings


def manifest(folder: Path, **other: Any) -> Any:
    told = yaml.safe_load((folder / MANIFEST_FILE).read_text()) | other
    return parse_manifest(yaml.safe_dump(told).encode())


def test_a_shadow_sees_the_models_windows(tmp_path: Path) -> None:
    """Task, size, bands and GSD are the model's; margin, classes and thresholds may differ."""
    folder = blob_model(tmp_path / "m", size=256)
    own = manifest(folder)
    assert misfit(own, manifest(folder, version="2", margin=8, classes=["a", "b"])) is None
    for other, word in (
        ({"task": "classification"}, "task"),
        ({"input": {"size": 128}}, "128"),
        ({"bands": [3, 2, 1]}, "bands"),
        ({"gsd_m": 0.1}, "gsd_m"),
    ):
        why = misfit(own, manifest(folder, **other))
        assert why is not None and word in why and "None" not in why


@pytest_asyncio.fixture
async def store(stack: Endpoints, bucket: str) -> AsyncIterator[ObjectStore]:
    made = ObjectStore(StoreSettings(stack.s3_endpoint, stack.access_key, stack.secret_key, bucket))
    yield made
    made.close()


@pytest_asyncio.fixture
async def registry(store: ObjectStore, tmp_path: Path) -> Registry:
    made = Registry(store, default_model="blob")
    await made.push(blob_model(tmp_path / "1", version="1"))
    return made


async def pushed(registry: Registry, folder: Path) -> ModelRef:
    return await registry.push(folder, alias="staging")


async def refused(ask: Any, reason: Reason) -> str:
    with pytest.raises(ModelRejected) as e:
        await ask
    assert e.value.reason is reason
    return e.value.detail


@pytest.mark.stack
async def test_a_shadow_stands_until_it_is_taken_away(registry: Registry, tmp_path: Path) -> None:
    """Each change is in the history with who and why; the same again is none; two at once are both
    there."""
    shadows = registry.shadows
    two = await pushed(registry, blob_model(tmp_path / "2", version="2"))
    three = await pushed(registry, blob_model(tmp_path / "3", version="3"))
    assert await shadows.get("blob") is None
    assert await shadows.put("blob", two.digest[:8], 0.1, who="ada", why="finds more") == two
    await shadows.put("blob", "staging", 0.2, who="bob")
    await shadows.put("blob", "staging", 0.2, who="eve")
    await shadows.off("blob", who="ada", why="enough")
    await shadows.off("blob", who="eve")
    (listed,) = await registry.list()
    assert listed.shadow == await shadows.get("blob")
    assert listed.shadow is not None and listed.shadow.digest is None
    assert [(m.digest, m.share, m.who, m.why) for m in listed.shadow.moves] == [
        (None, None, "ada", "enough"),
        (three.digest, 0.2, "bob", ""),
        (two.digest, 0.1, "ada", "finds more"),
    ]
    await asyncio.gather(*(shadows.put("blob", "staging", n / 10) for n in range(1, 9)))
    held = await shadows.get("blob")
    assert held is not None and len(held.moves) == 3 + 8
    assert (await registry.list("blob"))[0].versions.keys() == {
        two.digest, three.digest, (await registry.resolve("blob")).digest,
    }  # fmt: skip


@pytest.mark.stack
async def test_what_cannot_be_a_shadow_is_refused(registry: Registry, tmp_path: Path) -> None:
    """When it is set, with a sentence; what stood stays."""
    shadows, own = registry.shadows, await registry.resolve("blob")
    two = await pushed(registry, blob_model(tmp_path / "2", version="2"))
    await shadows.put("blob", "staging", 0.1)
    small = await pushed(registry, blob_model(tmp_path / "s", size=128))
    assert "128" in await refused(shadows.put("blob", small.digest, 0.1), Reason.BAD_MODEL)
    await refused(shadows.put("blob", own.digest, 0.1), Reason.CONFLICT)
    await refused(shadows.put("blob", "0" * 64, 0.1), Reason.UNKNOWN_MODEL)
    await refused(shadows.put("../x", "staging", 0.1), Reason.UNKNOWN_MODEL)
    await refused(shadows.off("nobody"), Reason.UNKNOWN_MODEL)
    held = await shadows.get("blob")
    assert held is not None and held.digest == two.digest


@pytest.mark.stack
async def test_what_a_job_gets(registry: Registry, store: ObjectStore, tmp_path: Path) -> None:
    """What it wishes for, pinned; the standing one where it says nothing and is of production; none
    where it wants none."""
    shadows, own = registry.shadows, await registry.resolve("blob")
    two = await pushed(registry, blob_model(tmp_path / "2", version="2"))
    standing = Shadow(model=two, share=0.25)
    assert await shadows.pinned(own, None, None) is None
    await shadows.put("blob", "staging", 0.25)
    for asked in (None, "blob", "blob@production"):
        assert await shadows.pinned(own, asked, None) == standing
        assert await shadows.pinned(own, asked, "none") is None
    assert await shadows.pinned(own, f"blob@{own.digest}", None) is None
    wish = ShadowWish(model="blob@staging", share=0.5)
    assert await shadows.pinned(own, None, wish) == Shadow(model=two, share=0.5)
    await pushed(registry, colour_model(tmp_path / "c"))
    detail = await refused(
        shadows.pinned(own, None, ShadowWish(model="colours@staging")), Reason.BAD_MODEL
    )
    assert "task" in detail
    await refused(shadows.pinned(own, None, ShadowWish(model="nobody")), Reason.UNKNOWN_MODEL)

    # it became production: there is nothing to compare
    await registry.promote("blob", "production", two.digest)
    assert await shadows.pinned(two, None, None) is None
    # what stands and does not fit any more fails no job
    await registry.push(blob_model(tmp_path / "n", size=128, version="4"))
    assert await shadows.pinned(await registry.resolve("blob"), None, None) is None
    await store.put(keys.model_shadow("blob"), b"{")
    assert await shadows.pinned(own, None, None) is None
    assert [m.name for m in await registry.list()] == ["blob", "colours"]
    # a damaged one is written anew
    await registry.promote("blob", "production", own.digest)
    await shadows.put("blob", "staging", 0.1)
    assert await shadows.pinned(own, None, None) == Shadow(model=two, share=0.1)
