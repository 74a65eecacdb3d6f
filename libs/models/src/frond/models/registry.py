"""The model registry, in the object store: immutable versions by digest, movable aliases.

``models/{name}/versions/{digest}/…``   a folder's files; ``model.yaml`` is written last, so a
version is there when its manifest is.
``models/{name}/aliases/{alias}.json``  where an alias points, since when, and where it did before.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from frond.contracts import keys
from frond.contracts.errors import ModelRejected, ObjectMissing
from frond.contracts.jobs import ModelRef
from frond.contracts.modelspec import NAME_PATTERN, ModelManifest
from frond.contracts.reasons import Reason
from frond.models.folder import (
    MANIFEST_FILE,
    bad_model,
    folder_digest,
    folder_files,
    load_manifest,
    parse_manifest,
)
from frond.store import ObjectStore

DEFAULT_ALIAS: Final = "production"

_log = logging.getLogger(__name__)

_NAME = re.compile(NAME_PATTERN)
_DIGEST = re.compile(r"^[0-9a-f]{64}$")
_PREFIX = re.compile(r"^[0-9a-f]{8,64}$")
_REMEMBERED: Final = 20
_TYPES: Final = {".yaml": "application/yaml", ".md": "text/markdown"}


class Alias(BaseModel):
    """Where an alias points.

    ``before`` holds the digests it pointed to earlier, the last one first, at most 20.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    digest: str
    version: str = ""
    moved_at: datetime | None = None
    who: str = ""
    before: tuple[str, ...] = ()


class ModelListing(BaseModel):
    """One model in the registry: its versions (version label by digest) and aliases."""

    model_config = ConfigDict(frozen=True)

    name: str
    versions: dict[str, str]
    aliases: dict[str, Alias]


class Registry:
    """Models by reference.

    A reference is ``name`` (its alias ``production``), ``name@alias``, ``name@digest`` or
    ``name@`` and at least 8 digits of one; None is the installation's default model.
    """

    def __init__(
        self, store: ObjectStore, *, default_model: str = "palm-detector", who: str = ""
    ) -> None:
        self._store = store
        self.default_model = default_model
        self._who = who
        self._manifests: dict[str, ModelManifest] = {}

    async def push(self, folder: Path, alias: str | None = DEFAULT_ALIAS) -> ModelRef:
        """Store a folder as an immutable version and point an alias at it.

        Pushing the same folder again changes nothing.

        Raises:
            ModelRejected: BAD_MODEL: the folder is no model.
        """
        manifest = await asyncio.to_thread(load_manifest, folder)
        digest = await asyncio.to_thread(folder_digest, folder)
        ref = ModelRef(name=manifest.name, digest=digest, version=manifest.version)
        prefix = keys.model_version(ref.name, digest)
        if not await self._store.exists(prefix + MANIFEST_FILE):
            names = [n for n in folder_files(folder) if n != MANIFEST_FILE]
            for name in [*names, MANIFEST_FILE]:
                kind = _TYPES.get(Path(name).suffix, "application/octet-stream")
                await self._store.put_file(prefix + name, folder / name, kind)
        if alias is not None:
            await self.promote(ref.name, alias, digest)
        return ref

    async def list(self, name: str | None = None) -> Sequence[ModelListing]:
        """What there is, by name; ``name`` asks for one model alone.

        A version or alias that cannot be read is left out, with a line in the log.
        """
        versions: dict[str, dict[str, str]] = {}
        aliases: dict[str, dict[str, Alias]] = {}
        async for found in self._store.list(
            keys.MODELS if name is None else f"{keys.MODELS}{name}/"
        ):
            parts = found.key.removeprefix(keys.MODELS).split("/")
            try:
                if len(parts) == 4 and parts[1] == "versions" and parts[3] == MANIFEST_FILE:
                    manifest = await self._manifest(parts[0], parts[2])
                    versions.setdefault(parts[0], {})[parts[2]] = manifest.version
                elif len(parts) == 3 and parts[1] == "aliases" and parts[2].endswith(".json"):
                    alias = parts[2].removesuffix(".json")
                    where = await self._alias(parts[0], alias)
                    if where is not None:
                        aliases.setdefault(parts[0], {})[alias] = where
            except (ModelRejected, ObjectMissing) as e:
                _log.warning("%s is left out of the list of models: %s", found.key, e)
        return [
            ModelListing(name=n, versions=v, aliases=aliases.get(n, {}))
            for n, v in sorted(versions.items())
        ]

    async def resolve(self, ref: str | None = None) -> ModelRef:
        """The immutable version that a reference means right now.

        Raises:
            ModelRejected: UNKNOWN_MODEL, with what there is instead.
        """
        text = (ref or self.default_model).strip()
        name, at, wanted = text.partition("@")
        if not _NAME.match(name) or (
            # a whole digest is one letter longer than a name may be
            at and not (_NAME.match(wanted) or _DIGEST.match(wanted))
        ):
            raise await self._unknown(text)
        alias = await self._alias(name, wanted or DEFAULT_ALIAS)
        if alias is not None:
            return await self._ref(name, alias.digest, text)
        if not _PREFIX.match(wanted):
            raise await self._unknown(text)
        if _DIGEST.match(wanted):
            return await self._ref(name, wanted, text)
        prefix = keys.model_version(name, wanted).removesuffix("/")
        digests = {
            o.key.split("/")[3] async for o in self._store.list(prefix) if o.key.count("/") >= 4
        }
        if len(digests) > 1:
            raise ModelRejected(
                Reason.UNKNOWN_MODEL,
                f"{text} may be any of {len(digests)} versions. Write more of the digest.",
            )
        if not digests:
            raise await self._unknown(text)
        return await self._ref(name, digests.pop(), text)

    async def manifest(self, ref: ModelRef) -> ModelManifest:
        """A version's manifest.

        Raises:
            ModelRejected: UNKNOWN_MODEL: there is no such version.
        """
        await self._check(ref)
        try:
            return await self._manifest(ref.name, ref.digest)
        except ObjectMissing:
            raise await self._unknown(f"{ref.name}@{ref.digest}") from None

    async def fetch(self, ref: ModelRef, cache_dir: Path) -> Path:
        """A version's folder on local disk, its digest verified.

        May run in several processes at once on one cache directory: a folder appears whole, by
        a rename.

        Raises:
            ModelRejected: UNKNOWN_MODEL: there is none; BAD_MODEL: the stored files are not those
                of the digest.
        """
        await self._check(ref)
        target = cache_dir / "models" / ref.name / ref.digest
        if await asyncio.to_thread(_is_whole, target, ref.digest):
            return target
        prefix = keys.model_version(ref.name, ref.digest)
        names = [o.key.removeprefix(prefix) async for o in self._store.list(prefix)]
        if MANIFEST_FILE not in names:
            raise await self._unknown(f"{ref.name}@{ref.digest}")
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{ref.digest[:12]}-", dir=target.parent))
        try:
            for name in names:
                path = fresh / name
                if ".." in path.parts:
                    raise bad_model(f"{ref.name} holds a file with the unusable name {name!r}.")
                path.parent.mkdir(parents=True, exist_ok=True)
                await self._store.get_file(prefix + name, path)
            if not await asyncio.to_thread(_is_whole, fresh, ref.digest):
                raise bad_model(
                    f"The stored files of {ref.name}@{ref.digest[:12]} are not those that were "
                    "pushed: their digest differs. Delete them and push the model again."
                )
            await asyncio.to_thread(_take_place, fresh, target, ref.digest)
        finally:
            await asyncio.to_thread(shutil.rmtree, fresh, True)
        return target

    async def promote(self, name: str, alias: str, digest: str) -> ModelRef:
        """Point an alias at a version (digest, or at least 8 digits of it).

        Raises:
            ModelRejected: there is no such version, or the alias cannot be a name.
        """
        if not _NAME.match(alias) or _PREFIX.match(alias):
            raise ModelRejected(
                Reason.BAD_REQUEST,
                f"{alias!r} cannot be an alias. Use lower-case letters, digits and dashes, and "
                "nothing that looks like a digest.",
            )
        if not _PREFIX.match(digest):
            raise await self._unknown(f"{name}@{digest}")
        ref = await self.resolve(f"{name}@{digest}")
        now = await self._alias(name, alias)
        if now is not None and now.digest == ref.digest:
            return ref
        before = () if now is None else (now.digest, *now.before)[:_REMEMBERED]
        await self._point(name, alias, ref, before)
        return ref

    async def rollback(self, name: str, alias: str = DEFAULT_ALIAS) -> ModelRef:
        """Point an alias back at the version before; its history shortens by one.

        Raises:
            ModelRejected: there is no such alias, or it has pointed nowhere else.
        """
        now = await self._alias(name, alias)
        if now is None:
            raise await self._unknown(f"{name}@{alias}")
        if not now.before:
            raise ModelRejected(
                Reason.CONFLICT,
                f"{name}@{alias} has never pointed to another version. "
                "Use promote with the digest you want.",
            )
        ref = await self._ref(name, now.before[0], f"{name}@{now.before[0]}")
        await self._point(name, alias, ref, now.before[1:])
        return ref

    async def _point(self, name: str, alias: str, ref: ModelRef, before: tuple[str, ...]) -> None:
        pointer = Alias(
            digest=ref.digest, version=ref.version, moved_at=datetime.now(UTC), who=self._who,
            before=before,
        )  # fmt: skip
        await self._store.put(
            keys.model_alias(name, alias), pointer.model_dump_json().encode(), "application/json"
        )

    async def _alias(self, name: str, alias: str) -> Alias | None:
        try:
            return Alias.model_validate(
                json.loads(await self._store.get(keys.model_alias(name, alias)))
            )
        except ObjectMissing:
            return None
        except ValueError as e:
            raise bad_model(f"The alias {name}@{alias} cannot be read; promote it again.") from e

    async def _ref(self, name: str, digest: str, asked: str) -> ModelRef:
        try:
            manifest = await self._manifest(name, digest)
        except ObjectMissing:
            raise await self._unknown(asked) from None
        return ModelRef(name=name, digest=digest, version=manifest.version)

    async def _manifest(self, name: str, digest: str) -> ModelManifest:
        found = self._manifests.get(digest)
        if found is None or found.name != name:
            raw = await self._store.get(keys.model_version(name, digest) + MANIFEST_FILE)
            found = self._manifests[digest] = parse_manifest(raw)
        return found

    async def _check(self, ref: ModelRef) -> None:
        # events carry references too, and both parts become parts of paths
        if not _NAME.fullmatch(ref.name) or not _DIGEST.fullmatch(ref.digest):
            raise await self._unknown(f"{ref.name}@{ref.digest}")

    async def _unknown(self, asked: str) -> ModelRejected:
        there = [
            f"{m.name}@{alias}" if alias != DEFAULT_ALIAS else m.name
            for m in await self.list()
            for alias in (*sorted(m.aliases), *(d[:12] for d in sorted(m.versions)))
        ]
        more = f" and {len(there) - 12} more" if len(there) > 12 else ""
        known = f"There are: {', '.join(there[:12])}{more}." if there else (
            "There is none yet: push one with `frond models push`."
        )  # fmt: skip
        return ModelRejected(Reason.UNKNOWN_MODEL, f"There is no model {asked[:200]!r}. {known}")


def _is_whole(folder: Path, digest: str) -> bool:
    try:
        return folder.is_dir() and folder_digest(folder) == digest
    except (ModelRejected, OSError):
        return False


def _take_place(fresh: Path, target: Path, digest: str) -> None:
    try:
        fresh.rename(target)
    except OSError:
        # another process was faster, or a damaged folder is in the way
        if _is_whole(target, digest):
            return
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)
