"""The object store, for whoever has its keys."""

from __future__ import annotations

from collections.abc import Mapping

from frond.client.environment import frond_env, setting
from frond.client.errors import FrondClientError
from frond.store import ObjectStore, StoreSettings


def required(env: Mapping[str, str], *names: str) -> list[str]:
    """Variables that must be there. Raises FrondClientError with those that are not."""
    missing = [n for n in names if not setting(env, n)]
    if missing:
        raise FrondClientError(
            f"{' and '.join(missing)} must be set for this. `make up` writes them to .frond/env."
        )
    return [setting(env, n) for n in names]


def open_store() -> ObjectStore:
    """The object store that FROND_S3_… lead to."""
    env = frond_env()
    endpoint, access, secret = required(
        env, "FROND_S3_ENDPOINT", "FROND_S3_ACCESS_KEY", "FROND_S3_SECRET_KEY"
    )
    return ObjectStore(
        StoreSettings(
            endpoint, access, secret, setting(env, "FROND_S3_BUCKET", "frond"),
            setting(env, "FROND_S3_REGION", "us-east-1"),
        )
    )  # fmt: skip
