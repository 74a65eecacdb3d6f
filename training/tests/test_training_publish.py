"""What was trained goes into the registry, as ``frond models`` would put it there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from frond.contracts.errors import FrondError, ModelRejected
from frond.models import folder_digest
from frond.models.registry import Registry
from frond.models.testing import blob_model
from frond.store import ObjectStore, StoreSettings
from frond.training.publish import push, ready

pytestmark = pytest.mark.stack


@pytest.fixture
def store(service_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    for name, value in service_env.items():
        if name.startswith("FROND_"):
            monkeypatch.setenv(name, value)
    env = service_env
    return ObjectStore(
        StoreSettings(
            env["FROND_S3_ENDPOINT"], env["FROND_S3_ACCESS_KEY"], env["FROND_S3_SECRET_KEY"],
            env["FROND_S3_BUCKET"],
        )
    )  # fmt: skip


def test_pushed_as_staging_with_who_and_why(store: ObjectStore, tmp_path: Path) -> None:
    """The alias points at the folder's digest; pushed twice, its history tells of one move."""
    blob_model(tmp_path / "m")
    for _ in range(2):
        ref = push(tmp_path / "m", "staging", why="trained by frond train palm, seed 7")
    assert ref.digest == folder_digest(tmp_path / "m")
    (listing,) = asyncio.run(_list(store))
    held = listing.aliases["staging"]
    assert held.digest == ref.digest
    assert [(m.who, m.why) for m in held.moves] == [
        ("frond train", "trained by frond train palm, seed 7")
    ]


def test_what_cannot_run_is_not_pushed(store: ObjectStore, tmp_path: Path) -> None:
    """A broken graph is told, and the registry stays empty."""
    blob_model(tmp_path / "m")
    (tmp_path / "m" / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelRejected):
        push(tmp_path / "m", "staging", why="")
    assert asyncio.run(_list(store)) == []


def test_what_cannot_be_pushed_to_is_told_before(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An alias that is none, and a store that turns us away."""
    ready("staging")
    with pytest.raises(ModelRejected, match="cannot be an alias"):
        ready("Not one")
    monkeypatch.setenv("FROND_S3_SECRET_KEY", "another")
    with pytest.raises(FrondError):
        ready("staging")


async def _list(store: ObjectStore) -> list:  # type: ignore[type-arg]
    return list(await Registry(store).list())
