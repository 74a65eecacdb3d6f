"""Where aliases point, and who moved them there, when and why: one object an alias."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

from pydantic import BaseModel, ConfigDict

from frond.contracts import keys
from frond.contracts.errors import ObjectMissing
from frond.contracts.jobs import ModelRef
from frond.models.folder import bad_model
from frond.models.kept import change
from frond.store import ObjectStore

_REMEMBERED: Final = 20
_MOVES: Final = 100


class Move(BaseModel):
    """An alias began to point at a version; back: by a rollback."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    digest: str
    version: str = ""
    at: datetime | None = None
    who: str = ""
    why: str = ""
    back: bool = False


class Alias(BaseModel):
    """Where an alias points.

    Attributes:
        before: digests it pointed to earlier and may roll back to, the last one first, at most 20.
        moves: all of its moves, rollbacks too, the last one first, at most 100.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    digest: str
    version: str = ""
    moved_at: datetime | None = None
    who: str = ""
    why: str = ""
    before: tuple[str, ...] = ()
    moves: tuple[Move, ...] = ()


class Aliases:
    """All models' aliases in the store. No move is lost, whoever else moves the same alias."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def get(self, name: str, alias: str) -> Alias | None:
        """Raises ModelRejected (BAD_MODEL) when what is stored cannot be read."""
        try:
            return Alias.model_validate_json(await self._store.get(keys.model_alias(name, alias)))
        except ObjectMissing:
            return None
        except ValueError as e:
            raise bad_model(f"The alias {name}@{alias} cannot be read; promote it again.") from e

    async def move(
        self,
        name: str,
        alias: str,
        choose: Callable[[Alias | None], Awaitable[tuple[ModelRef, tuple[str, ...]]]],
        *,
        who: str,
        why: str,
        back: bool = False,
    ) -> ModelRef:
        """Point an alias at a version; nothing happens when it points there already.

        Args:
            choose: from how the alias is now, which version it is to be, and its new ``before``;
                asked again when somebody else has moved it meanwhile.
            who, why, back: for its history.
        """
        pointed: ModelRef | None = None

        async def moved(held: Alias | None) -> Alias | None:
            nonlocal pointed
            pointed, before = await choose(held)
            if held is not None and held.digest == pointed.digest:
                return None
            move = Move(
                digest=pointed.digest, version=pointed.version, at=datetime.now(UTC), who=who,
                why=why, back=back,
            )  # fmt: skip
            return Alias(
                digest=move.digest, version=move.version, moved_at=move.at, who=who, why=why,
                before=before[:_REMEMBERED], moves=(move, *_moves(held))[:_MOVES],
            )  # fmt: skip

        await change(self._store, keys.model_alias(name, alias), Alias, moved)
        assert pointed is not None
        return pointed


def _moves(held: Alias | None) -> tuple[Move, ...]:
    if held is None or held.moves:
        return held.moves if held else ()
    # moved before histories were kept
    return (Move(digest=held.digest, version=held.version, at=held.moved_at, who=held.who),)
