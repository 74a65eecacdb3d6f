"""The registry in a real object store."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from frond.contracts import keys
from frond.contracts.errors import ModelRejected, StoreUnavailable
from frond.contracts.reasons import Reason
from frond.models.folder import folder_digest
from frond.models.registry import Registry
from frond.models.testing import blob_model
from frond.stack import Endpoints
from frond.store import ObjectStore, StoreSettings

pytestmark = pytest.mark.stack


@pytest_asyncio.fixture
async def store(stack: Endpoints, bucket: str) -> AsyncIterator[ObjectStore]:
    made = ObjectStore(StoreSettings(stack.s3_endpoint, stack.access_key, stack.secret_key, bucket))
    yield made
    made.close()


@pytest.fixture
def registry(store: ObjectStore) -> Registry:
    return Registry(store, default_model="blob")


async def test_a_pushed_folder_is_found_by_every_kind_of_reference(
    registry: Registry, tmp_path: Path
) -> None:
    """Name, alias, digest, a digest's beginning, and none at all: the default."""
    folder = blob_model(tmp_path / "m")
    ref = await registry.push(folder)
    assert (ref.name, ref.version, ref.digest) == ("blob", "1", folder_digest(folder))
    for text in ("blob", "blob@production", f"blob@{ref.digest}", f"blob@{ref.digest[:8]}", None):
        assert await registry.resolve(text) == ref
    assert (await registry.manifest(ref)).classes == ("blob",)
    assert await registry.push(folder) == ref


async def test_aliases_move_and_roll_back(registry: Registry, tmp_path: Path) -> None:
    """Promote, roll back, and the versions stay what they are."""
    one = await registry.push(blob_model(tmp_path / "a", version="1"))
    two = await registry.push(blob_model(tmp_path / "b", version="2"), alias="staging")
    assert await registry.resolve("blob") == one
    ask = registry.promote("blob", "production", two.digest[:10], who="ada", why="finds more")
    assert await ask == two
    assert await registry.resolve("blob") == two
    with pytest.raises(ModelRejected, match="by now"):
        await registry.rollback("blob", now=one.digest)
    assert await registry.rollback("blob", now=two.digest, who="bob", why="too much") == one
    assert await registry.rollback("blob", now=two.digest) == one
    assert await registry.resolve("blob") == one
    with pytest.raises(ModelRejected, match="never pointed"):
        await registry.rollback("blob")
    (listed,) = await registry.list()
    assert listed.versions == {one.digest: "1", two.digest: "2"}
    assert {k: v.digest for k, v in listed.aliases.items()} == {
        "production": one.digest,
        "staging": two.digest,
    }
    moves = [(m.version, m.who, m.why) for m in listed.aliases["production"].moves]
    assert moves == [("1", "bob", "too much"), ("2", "ada", "finds more"), ("1", "", "")]


async def test_a_rollback_asked_twice_goes_back_once(registry: Registry, tmp_path: Path) -> None:
    """Also where the alias was moved to and fro before, and by a part of the digest, as pages show it.
    After another move it is a new wish."""
    one, two = [
        await registry.push(blob_model(tmp_path / v, version=v), alias=None) for v in ("1", "2")
    ]
    for ref in (one, two, one, two):
        await registry.promote("blob", "production", ref.digest)
    for now in (two.digest, two.digest, two.digest[:12]):
        assert await registry.rollback("blob", now=now) == one
    (listed,) = await registry.list()
    assert [m.back for m in listed.aliases["production"].moves] == [True, *[False] * 4]
    assert await registry.rollback("blob", now=one.digest[:8]) == two
    assert await registry.rollback("blob", now=one.digest[:8]) == two
    with pytest.raises(ModelRejected, match="by now, not to 0000"):
        await registry.rollback("blob", now="0" * 12)
    for no_digest in ("", two.digest[:7], "production", "2"):
        with pytest.raises(ModelRejected, match="is no digest") as e:
            await registry.rollback("blob", now=no_digest)
        assert e.value.reason is Reason.BAD_REQUEST
    assert await registry.resolve("blob") == two


async def test_an_alias_of_before_histories_keeps_who_moved_it(
    registry: Registry, store: ObjectStore, tmp_path: Path
) -> None:
    """Its standing place becomes the first entry, also where no time was written."""
    one, two = [
        await registry.push(blob_model(tmp_path / v, version=v), alias=None) for v in ("1", "2")
    ]
    old = {"digest": one.digest, "version": "1", "who": "ada"}
    await store.put(keys.model_alias("blob", "production"), json.dumps(old).encode())
    await registry.promote("blob", "production", two.digest, who="bob")
    (listed,) = await registry.list()
    moves = listed.aliases["production"].moves
    assert [(m.version, m.who, m.at is None) for m in moves] == [
        ("2", "bob", False), ("1", "ada", True),
    ]  # fmt: skip
    assert await registry.rollback("blob") == one


async def test_no_move_is_lost_when_many_move_one_alias(registry: Registry, tmp_path: Path) -> None:
    """Several at once: each of them is in the history, and the last one is where it points."""
    refs = [
        await registry.push(blob_model(tmp_path / v, version=v), alias=None)
        for v in ("1", "2", "3")
    ]
    asked = [registry.promote("blob", "staging", r.digest, who=r.version) for r in refs]
    await asyncio.gather(*asked)
    (listed,) = await registry.list()
    alias = listed.aliases["staging"]
    assert sorted(m.who for m in alias.moves) == ["1", "2", "3"]
    assert alias.moves[0].digest == alias.digest
    assert alias.before == tuple(m.digest for m in alias.moves[1:])


@pytest.mark.parametrize(
    "text", ["palms", "blob@canary", "blob@00000000", "blob@" + "0" * 64, "Bad Name", "blob@", "@x"]
)
async def test_what_is_unknown_is_told_with_what_there_is(
    registry: Registry, tmp_path: Path, text: str
) -> None:
    """UNKNOWN_MODEL, and the names to choose from."""
    await registry.push(blob_model(tmp_path / "m"))
    with pytest.raises(ModelRejected, match="blob") as e:
        await registry.resolve(text)
    assert e.value.reason is Reason.UNKNOWN_MODEL


async def test_an_empty_registry_says_so(registry: Registry) -> None:
    """And how to fill it."""
    with pytest.raises(ModelRejected, match="frond models push"):
        await registry.resolve()


async def test_what_cannot_be_read_does_not_hide_the_rest(
    registry: Registry, store: ObjectStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A broken manifest and a broken alias are left out of the list, and the log names them."""
    ref = await registry.push(blob_model(tmp_path / "m"))
    bad = keys.model_version("bad", "0" * 64) + "model.yaml"
    await store.put(bad, b"name: [")
    await store.put(keys.model_alias("blob", "broken"), b"{")
    (listed,) = await registry.list()
    assert (listed.name, set(listed.versions)) == ("blob", {ref.digest})
    assert set(listed.aliases) == {"production"}
    assert bad in caplog.text
    assert keys.model_alias("blob", "broken") in caplog.text


async def test_what_an_alias_points_to_is_promoted(registry: Registry, tmp_path: Path) -> None:
    """The version it means now: a later move of it moves nothing else. Nothing means no version."""
    one = await registry.push(blob_model(tmp_path / "a", version="1"))
    two = await registry.push(blob_model(tmp_path / "b", version="2"), alias="staging")
    assert await registry.promote("blob", "production", "staging") == two
    await registry.promote("blob", "staging", one.digest)
    assert await registry.resolve("blob") == two
    for no_version in ("", "nightly", "staging@staging", "00000000"):
        with pytest.raises(ModelRejected, match="There is no model"):
            await registry.promote("blob", "production", no_version)


async def test_aliases_that_could_be_digests_are_refused(
    registry: Registry, tmp_path: Path
) -> None:
    """A reference has one meaning."""
    ref = await registry.push(blob_model(tmp_path / "m"))
    for alias in ("deadbeef", "Not A Name", "../x"):
        with pytest.raises(ModelRejected, match="cannot be an alias"):
            await registry.promote("blob", alias, ref.digest)
        # a version is for good: none is stored that was asked for by such a name
        with pytest.raises(ModelRejected, match="cannot be an alias"):
            await registry.push(blob_model(tmp_path / "n", version="2"), alias)
    (listed,) = await registry.list()
    assert set(listed.versions) == {ref.digest}


async def test_fetching_gives_the_pushed_folder_also_at_once(
    registry: Registry, tmp_path: Path
) -> None:
    """Several fetches beside each other leave one whole folder and no leftovers."""
    ref = await registry.push(blob_model(tmp_path / "m"))
    cache = tmp_path / "cache"
    paths = await asyncio.gather(*(registry.fetch(ref, cache) for _ in range(4)))
    assert len(set(paths)) == 1
    assert folder_digest(paths[0]) == ref.digest
    assert [p.name for p in paths[0].parent.iterdir()] == [ref.digest]


async def test_what_a_killed_fetch_left_is_cleared(registry: Registry, tmp_path: Path) -> None:
    """A folder that nobody has touched for an hour goes, whichever model is asked for next; one that
    another process fills stays."""
    ref = await registry.push(blob_model(tmp_path / "m"))
    await registry.fetch(ref, tmp_path / "cache")
    versions = tmp_path / "cache" / "models" / "another"
    for name, age in ((".dead00000000-a", 3700), (".live00000000-b", 3500)):
        (versions / name).mkdir(parents=True)
        (versions / name / "model.onnx").write_bytes(b"half")
        then = time.time() - age
        for path in (versions / name / "model.onnx", versions / name):
            os.utime(path, (then, then))
    await registry.fetch(ref, tmp_path / "cache")
    assert [p.name for p in versions.iterdir()] == [".live00000000-b"]


async def test_old_versions_make_room_on_a_full_disk(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that nobody fetched for an hour, the oldest first and no more than need be; where there
    is none, or its going is not enough, the disk is full."""
    cache = tmp_path / "cache"
    versions = cache / "models" / "another"
    oldest, old, fresh = (versions / (c * 64) for c in "abc")
    for path, age in ((oldest, 9000), (old, 3700), (fresh, 3500)):
        path.mkdir(parents=True)
        os.utime(path, (time.time() - age,) * 2)
    ref = await registry.push(blob_model(tmp_path / "m"))
    real, in_the_way = registry._store.get_file, [oldest]

    async def get_file(key: str, path: Path) -> None:
        if any(p.exists() for p in in_the_way):
            try:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as e:
                raise StoreUnavailable("reading") from e
        await real(key, path)

    monkeypatch.setattr(registry._store, "get_file", get_file)
    folder = await registry.fetch(ref, cache)
    assert folder_digest(folder) == ref.digest
    assert sorted(versions.iterdir()) == [old, fresh]
    # one that is fetched again is not old
    os.utime(folder, (0, 0))
    await registry.fetch(ref, cache)
    in_the_way.append(fresh)
    other = await registry.push(blob_model(tmp_path / "n", version="2"))
    with pytest.raises(OSError, match="No space left"):
        await registry.fetch(other, cache)
    assert sorted(versions.iterdir()) == [fresh]
    assert folder.exists()


async def test_a_damaged_cache_is_replaced(registry: Registry, tmp_path: Path) -> None:
    """The digest is checked on what lies on disk as well."""
    ref = await registry.push(blob_model(tmp_path / "m"))
    path = await registry.fetch(ref, tmp_path / "cache")
    (path / "model.onnx").write_bytes(b"cut off")
    assert folder_digest(await registry.fetch(ref, tmp_path / "cache")) == ref.digest


async def test_stored_files_that_were_changed_are_refused(
    registry: Registry, store: ObjectStore, tmp_path: Path
) -> None:
    """A version is immutable: other bytes under its digest never run."""
    ref = await registry.push(blob_model(tmp_path / "m"))
    await store.put(keys.model_version("blob", ref.digest) + "model.onnx", b"other")
    with pytest.raises(ModelRejected, match="digest differs") as e:
        await registry.fetch(ref, tmp_path / "cache")
    assert e.value.reason is Reason.BAD_MODEL
