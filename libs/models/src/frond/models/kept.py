"""Small objects that several may change at once: no change is lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from pydantic import BaseModel

from frond.contracts.errors import ObjectMissing
from frond.store import ObjectStore

M = TypeVar("M", bound=BaseModel)

# a hundred moves with the longest reasons take a fifth of it
_MOST_BYTES: Final = 8 << 20


async def change(
    store: ObjectStore, key: str, kind: type[M], make: Callable[[M | None], Awaitable[M | None]]
) -> None:
    """Put what ``make`` makes of what is there (None: nothing, or what cannot be read) in its place.

    Args:
        make: asked again where somebody else has changed it meanwhile; None: it stays as it is.
    """
    while True:
        etag, held = await _held(store, key, kind)
        made = await make(held)
        if made is None:
            return
        data = made.model_dump_json().encode()
        if etag:
            done = await store.replace(key, data, etag)
        else:
            done = await store.put_if_absent(key, data) == data
        if done:
            return


async def _held(store: ObjectStore, key: str, kind: type[M]) -> tuple[str, M | None]:
    """With its ETag; "": it is not there. One that cannot be read is as good as none."""
    try:
        stat, raw = await store.head_bytes(key, _MOST_BYTES)
    except ObjectMissing:
        return "", None
    try:
        return stat.etag, kind.model_validate_json(raw)
    except ValueError:
        return stat.etag, None
