"""The model registry, in the object store: immutable versions by digest, movable aliases.

``models/{name}/versions/{digest}/…``   a folder's files; ``model.yaml`` is written last, so a
version is there when its manifest is.
``models/{name}/aliases/{alias}.json``  where an alias points, and its history.
``models/{name}/shadow.json``           what runs beside ``production``, and its history.
"""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from frond.contracts import keys
from frond.contracts.errors import ModelRejected, ObjectMissing, StoreUnavailable
from frond.contracts.jobs import ModelRef
from frond.contracts.modelspec import (
    DIGEST_PREFIX_PATTERN,
    NAME_PATTERN,
    ModelManifest,
    is_alias,
)
from frond.contracts.reasons import Reason
from frond.models import cached
from frond.models.aliases import Alias, Aliases
from frond.models.folder import (
    MANIFEST_FILE,
    bad_model,
    folder_digest,
    folder_files,
    load_manifest,
    parse_manifest,
)
from frond.models.shadows import PRODUCTION, Shadows, StandingShadow
from frond.store import ObjectStore

DEFAULT_ALIAS: Final = PRODUCTION

_log = logging.getLogger(__name__)

_NAME = re.compile(NAME_PATTERN)
_DIGEST = re.compile(r"^[0-9a-f]{64}$")
_PREFIX = re.compile(DIGEST_PREFIX_PATTERN)
_TYPES: Final = {".yaml": "application/yaml", ".md": "text/markdown"}


class ModelListing(BaseModel):
    """One model in the registry: its versions (version label by digest), aliases and shadow."""

    model_config = ConfigDict(frozen=True)

    name: str
    versions: dict[str, str]
    aliases: dict[str, Alias]
    shadow: StandingShadow | None = Field(
        default=None, description="what runs beside production; digest null: it was taken away"
    )


class Registry:
    """Models by reference.

    A reference is ``name`` (its alias ``production``), ``name@alias``, ``name@digest`` or
    ``name@`` and at least 8 digits of one; None is the installation's default model.
    """

    def __init__(self, store: ObjectStore, *, default_model: str = "palm-detector") -> None:
        self._store = store
        self.default_model = default_model
        self._aliases = Aliases(store)
        self.shadows = Shadows(store, self)
        self._manifests: dict[str, ModelManifest] = {}

    async def push(
        self, folder: Path, alias: str | None = DEFAULT_ALIAS, *, who: str = "", why: str = ""
    ) -> ModelRef:
        """Store a folder as an immutable version and point an alias at it.

        Pushing the same folder again changes nothing.

        Args:
            who, why: for the alias's history.

        Raises:
            ModelRejected: BAD_MODEL: the folder is no model; BAD_REQUEST: the alias cannot be one.
                Nothing is stored then.
        """
        if alias is not None:
            check_alias(alias)
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
            await self.promote(ref.name, alias, digest, who=who, why=why)
        return ref

    async def list(self, name: str | None = None) -> Sequence[ModelListing]:
        """What there is, by name; ``name`` asks for one model alone.

        A version or alias that cannot be read is left out, with a line in the log.
        """
        versions: dict[str, dict[str, str]] = {}
        aliases: dict[str, dict[str, Alias]] = {}
        shadows: dict[str, StandingShadow | None] = {}
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
                    where = await self._aliases.get(parts[0], alias)
                    if where is not None:
                        aliases.setdefault(parts[0], {})[alias] = where
                elif found.key == keys.model_shadow(parts[0]):
                    shadows[parts[0]] = await self.shadows.get(parts[0])
            except (ModelRejected, ObjectMissing) as e:
                _log.warning("%s is left out of the list of models: %s", found.key, e)
        return [
            ModelListing(name=n, versions=v, aliases=aliases.get(n, {}), shadow=shadows.get(n))
            for n, v in sorted(versions.items())
        ]

    async def resolve(self, ref: str | None = None) -> ModelRef:
        """The immutable version that a reference means right now.

        Raises:
            ModelRejected: UNKNOWN_MODEL, with what there is instead.
        """
        text = (ref or self.default_model).strip()
        name, at, wanted = text.partition("@")
        if not _NAME.fullmatch(name) or (
            # a whole digest is one letter longer than a name may be
            at and not (_NAME.fullmatch(wanted) or _DIGEST.fullmatch(wanted))
        ):
            raise await self._unknown(text)
        alias = await self._aliases.get(name, wanted or DEFAULT_ALIAS)
        if alias is not None:
            return await self._ref(name, alias.digest, text)
        if not _PREFIX.fullmatch(wanted):
            raise await self._unknown(text)
        if _DIGEST.fullmatch(wanted):
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

    async def files(self, ref: ModelRef) -> dict[str, int]:
        """A version's files: bytes by name. Raises ModelRejected as :meth:`manifest`."""
        await self._check(ref)
        prefix = keys.model_version(ref.name, ref.digest)
        found = {o.key.removeprefix(prefix): o.size async for o in self._store.list(prefix)}
        if MANIFEST_FILE not in found:
            raise await self._unknown(f"{ref.name}@{ref.digest}")
        return dict(sorted(found.items()))

    async def fetch(self, ref: ModelRef, cache_dir: Path) -> Path:
        """A version's folder on local disk, its digest verified.

        May run in several processes at once on one cache directory: a folder appears whole, by
        a rename. Where the disk has no room for it, versions that nobody fetched for an hour go, the
        oldest first: they are not needed once they are loaded, and can be fetched again.

        Raises:
            ModelRejected: UNKNOWN_MODEL: there is none; BAD_MODEL: the stored files are not those
                of the digest.
            OSError: the disk has no room, or cannot be written to.
        """
        await self._check(ref)
        models = cache_dir / "models"
        target = models / ref.name / ref.digest
        await asyncio.to_thread(cached.clear_abandoned, models)
        if await asyncio.to_thread(cached.is_whole, target, ref.digest):
            await asyncio.to_thread(cached.touch, target)
            return target
        while True:
            try:
                await self._download(ref, target)
                return target
            except (OSError, StoreUnavailable) as e:
                full = cached.no_room(e)
                if full is None:
                    raise
                if not await asyncio.to_thread(cached.drop_oldest, models):
                    if full is e:
                        raise
                    raise full from e

    async def _download(self, ref: ModelRef, target: Path) -> None:
        prefix = keys.model_version(ref.name, ref.digest)
        names = await self.files(ref)
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{ref.digest[:12]}-", dir=target.parent))
        try:
            for name in names:
                path = fresh / name
                if ".." in path.parts:
                    raise bad_model(f"{ref.name} holds a file with the unusable name {name!r}.")
                path.parent.mkdir(parents=True, exist_ok=True)
                await self._store.get_file(prefix + name, path)
            if not await asyncio.to_thread(cached.is_whole, fresh, ref.digest):
                raise bad_model(
                    f"The stored files of {ref.name}@{ref.digest[:12]} are not those that were "
                    "pushed: their digest differs. Delete them and push the model again."
                )
            await asyncio.to_thread(cached.take_place, fresh, target, ref.digest)
        finally:
            await asyncio.to_thread(shutil.rmtree, fresh, True)

    async def promote(
        self, name: str, alias: str, digest: str, *, who: str = "", why: str = ""
    ) -> ModelRef:
        """Point an alias at a version: its digest, at least 8 digits of it, or another alias, which
        means what it points to now.

        Raises:
            ModelRejected: there is no such version, or the alias cannot be a name.
        """
        check_alias(alias)
        if not digest:
            # else the default alias would be meant
            raise await self._unknown(f"{name}@")
        ref = await self.resolve(f"{name}@{digest}")

        async def there(held: Alias | None) -> tuple[ModelRef, tuple[str, ...]]:
            return ref, () if held is None else (held.digest, *held.before)

        return await self._aliases.move(name, alias, there, who=who, why=why)

    async def rollback(
        self,
        name: str,
        alias: str = DEFAULT_ALIAS,
        *,
        now: str | None = None,
        who: str = "",
        why: str = "",
    ) -> ModelRef:
        """Point an alias back at the version before.

        Args:
            now: the digest it is thought to point to, or at least 8 digits of it: with it, asked twice it
                goes back once.

        Raises:
            ModelRejected: there is no such alias, it has pointed nowhere else, or it points
                elsewhere than was thought.
        """
        if not _NAME.fullmatch(name):
            raise await self._unknown(f"{name}@{alias}")
        check_alias(alias)
        if now is not None and not _PREFIX.fullmatch(now):
            raise ModelRejected(
                Reason.BAD_REQUEST,
                f"{now[:100]!r} is no digest. Write the one that the alias points to, or at least 8 "
                "digits of it.",
            )

        async def back(held: Alias | None) -> tuple[ModelRef, tuple[str, ...]]:
            if held is None:
                raise await self._unknown(f"{name}@{alias}")
            if _went_back(held, now):
                # asked again, because the answer was lost
                return await self._ref(name, held.digest, f"{name}@{alias}"), held.before
            if now is not None and not held.digest.startswith(now):
                raise ModelRejected(
                    Reason.CONFLICT,
                    f"{name}@{alias} points to {held.version} {held.digest[:12]} by now, not to "
                    f"{now[:12]}. Look at its history before you move it.",
                )
            if not held.before:
                raise ModelRejected(
                    Reason.CONFLICT,
                    f"{name}@{alias} has never pointed to another version. "
                    "Use promote with the digest you want.",
                )
            ref = await self._ref(name, held.before[0], f"{name}@{held.before[0]}")
            return ref, held.before[1:]

        return await self._aliases.move(name, alias, back, who=who, why=why, back=True)

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


def _went_back(held: Alias, now: str | None) -> bool:
    """Whether the last move of an alias was a rollback from this digest."""
    return (
        now is not None
        and len(held.moves) > 1
        and held.moves[0].back
        and held.moves[1].digest.startswith(now)
    )


def check_alias(alias: str) -> None:
    """Raises ModelRejected where this cannot be an alias."""
    if not is_alias(alias):
        raise ModelRejected(
            Reason.BAD_REQUEST,
            f"{alias[:100]!r} cannot be an alias. Use lower-case letters, digits and dashes, and "
            "nothing that looks like a digest.",
        )
