"""Versions that run beside others on a share of the windows: which may, and where one stands.

A model may have a standing shadow: jobs of its ``production`` take it when they say nothing of one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, Protocol

from pydantic import BaseModel, ConfigDict

from frond.contracts import keys
from frond.contracts.errors import ModelRejected, ObjectMissing
from frond.contracts.jobs import NO_SHADOW, ModelRef, Shadow, ShadowWish
from frond.contracts.modelspec import ModelManifest
from frond.contracts.reasons import Reason
from frond.models.folder import bad_model
from frond.models.kept import change
from frond.store import ObjectStore

PRODUCTION: Final = "production"
"""The alias whose jobs take the standing shadow."""
_MOVES: Final = 100
_log = logging.getLogger(__name__)

Wish = ShadowWish | Literal["none"] | None
"""What a sender says of a shadow; None: nothing."""


class ShadowMove(BaseModel):
    """A shadow began to stand, or was taken away (``digest`` None)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    digest: str | None = None
    version: str = ""
    share: float | None = None
    at: datetime | None = None
    who: str = ""
    why: str = ""


class StandingShadow(ShadowMove):
    """The last of the moves, and all of them: the last one first, at most 100."""

    moves: tuple[ShadowMove, ...] = ()


class Versions(Protocol):
    """The registry, as far as it is needed here."""

    default_model: str

    async def resolve(self, ref: str | None = None) -> ModelRef: ...

    async def manifest(self, ref: ModelRef) -> ModelManifest: ...


class Shadows:
    """Standing shadows in the store, and what becomes of a sender's wish."""

    def __init__(self, store: ObjectStore, versions: Versions) -> None:
        self._store = store
        self._versions = versions

    async def get(self, name: str) -> StandingShadow | None:
        """Raises ModelRejected (BAD_MODEL) when what is stored cannot be read."""
        try:
            raw = await self._store.get(keys.model_shadow(name))
            return StandingShadow.model_validate_json(raw)
        except ObjectMissing:
            return None
        except ValueError as e:
            raise bad_model(f"The shadow of {name} cannot be read; set it again.") from e

    async def put(
        self, name: str, version: str, share: float, *, who: str = "", why: str = ""
    ) -> ModelRef:
        """Let a version of this model run beside its ``production``.

        Args:
            version: an alias, a digest, or at least 8 digits of one.

        Raises:
            ModelRejected: there is no such version, it is ``production`` itself, or it cannot run
                on the windows of ``production``.
        """
        model = await self._versions.resolve(f"{name}@{PRODUCTION}")
        ref = await self._versions.resolve(f"{name}@{version}")
        await self._require_fit(model, ref)

        async def stands(held: StandingShadow | None) -> StandingShadow | None:
            if held is not None and (held.digest, held.share) == (ref.digest, share):
                return None
            return _moved(
                held, {"digest": ref.digest, "version": ref.version, "share": share}, who, why
            )

        await change(self._store, keys.model_shadow(model.name), StandingShadow, stands)
        return ref

    async def off(self, name: str, *, who: str = "", why: str = "") -> None:
        """Let none stand. Jobs that began keep theirs.

        Raises:
            ModelRejected: there is no such model.
        """
        model = await self._versions.resolve(f"{name}@{PRODUCTION}")

        async def away(held: StandingShadow | None) -> StandingShadow | None:
            return None if held is None or held.digest is None else _moved(held, {}, who, why)

        await change(self._store, keys.model_shadow(model.name), StandingShadow, away)

    async def pinned(self, model: ModelRef, asked: str | None, wish: Wish) -> Shadow | None:
        """The shadow of a job that begins now.

        One that stands and does not fit is left out, with a line in the log: nobody asked for it.

        Args:
            model: the job's own.
            asked: by which reference it was chosen.

        Raises:
            ModelRejected: the shadow that was asked for is not there, or cannot run beside the model.
        """
        if wish == NO_SHADOW:
            return None
        if isinstance(wish, ShadowWish):
            ref = await self._versions.resolve(wish.model)
            await self._require_fit(model, ref)
            return Shadow(model=ref, share=wish.share)
        _, at, alias = (asked or self._versions.default_model).strip().partition("@")
        return await self._standing(model) if not at or alias == PRODUCTION else None

    async def _standing(self, model: ModelRef) -> Shadow | None:
        try:
            held = await self.get(model.name)
            # it was promoted: there is nothing left to compare
            if held is None or held.digest in (None, model.digest) or held.share is None:
                return None
            ref = await self._versions.resolve(f"{model.name}@{held.digest}")
            await self._require_fit(model, ref)
            return Shadow(model=ref, share=held.share)
        except (ModelRejected, ValueError) as e:
            _log.warning("the standing shadow of %s is left out: %s", model.name, e)
            return None

    async def _require_fit(self, model: ModelRef, shadow: ModelRef) -> None:
        if shadow.digest == model.digest:
            raise ModelRejected(
                Reason.CONFLICT,
                f"{shadow.name}@{shadow.digest[:12]} is the model that the job runs anyway. "
                "Name another version as its shadow.",
            )
        why = misfit(await self._versions.manifest(model), await self._versions.manifest(shadow))
        if why is not None:
            raise bad_model(
                f"{shadow.name}@{shadow.digest[:12]} cannot be the shadow of "
                f"{model.name}@{model.digest[:12]}: {why} A shadow sees the same windows as the model."
            )


def misfit(model: ModelManifest, shadow: ModelManifest) -> str | None:
    """Why a version cannot run on windows that are planned for another; None: it can."""
    for what, one, other in (
        ("its task is", shadow.task, model.task),
        ("its windows have a side in pixels of", shadow.input.size, model.input.size),
        ("it reads the bands", _listed(shadow.bands), _listed(model.bands)),
        ("its gsd_m is", shadow.gsd_m, model.gsd_m),
    ):
        if one != other:
            return f"{what} {_said(one)}, the model's {_said(other)}."
    return None


def _listed(bands: tuple[int, ...]) -> str:
    return ", ".join(map(str, bands))


def _said(value: object) -> str:
    return "not set" if value is None else str(value)


def _moved(
    held: StandingShadow | None, where: Mapping[str, Any], who: str, why: str
) -> StandingShadow:
    move = ShadowMove(**where, at=datetime.now(UTC), who=who, why=why)
    before = held.moves if held is not None else ()
    return StandingShadow(**move.model_dump(), moves=(move, *before)[:_MOVES])
