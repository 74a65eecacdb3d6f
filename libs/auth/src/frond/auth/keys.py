"""API keys: ``frond_ID_SECRET``, kept in the store as ``keys/ID.json`` without the secret.

Only SHA-256 of the secret is kept. A slow, salted hash protects passwords, which people choose and
which can therefore be guessed from a list; a secret of 256 random bits is in no list, and trying
them all takes as long with a fast hash. A slow one would cost each request its time, and give
whoever sends wrong keys a way to keep us busy.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from frond.auth.principal import Principal, Scope, check_tenant
from frond.contracts import keys
from frond.contracts.errors import JobRejected, ObjectMissing
from frond.contracts.ids import API_KEY
from frond.contracts.reasons import Reason
from frond.store import ObjectStore

_SECRET_BYTES: Final = 32
_ID: Final = re.compile(r"[0-9a-f]{16}")
_MAX_NAME: Final = 200


class ParsedKey(NamedTuple):
    """A key taken apart."""

    id: str
    secret: str


class KeyRecord(BaseModel):
    """What is kept of a key."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    sha256: str
    tenant: str | None
    scopes: tuple[Scope, ...]
    name: str
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None

    def matches(self, secret: str) -> bool:
        """Whether this is the key's secret; takes the same time for any wrong one."""
        return hmac.compare_digest(hash_of(secret), self.sha256)

    def state(self, now: datetime) -> str:
        """``active``, ``expired`` or ``revoked``."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "active"

    @property
    def principal(self) -> Principal:
        return Principal(f"key:{self.id}", self.tenant, frozenset(self.scopes))


def hash_of(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def parse(text: str) -> ParsedKey | None:
    """The key's id and secret; None for what is no key of ours."""
    m = API_KEY.fullmatch(text)
    return ParsedKey(m.group(1), m.group(2)) if m else None


class KeyStore:
    """The keys of an installation, in its object store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def create(
        self,
        name: str,
        *,
        tenant: str | None,
        scopes: Iterable[Scope],
        expires: datetime | None = None,
    ) -> tuple[KeyRecord, str]:
        """Make a key: its record, and the key itself, which nobody can see again.

        Raises:
            JobRejected: a name, tenant, scope or time that cannot be.
        """
        now = datetime.now(UTC)
        wanted = tuple(sorted(set(scopes)))
        if tenant is not None:
            check_tenant(tenant)
        elif Scope.ADMIN not in wanted:
            raise JobRejected(Reason.BAD_REQUEST, "A key that is no admin's belongs to a tenant.")
        if not wanted:
            raise JobRejected(Reason.BAD_REQUEST, "Name one scope or more: submit, read, admin.")
        if not name.strip() or len(name) > _MAX_NAME or not name.isprintable():
            raise JobRejected(
                Reason.BAD_REQUEST, f"A key's name has 1 to {_MAX_NAME} printable characters."
            )
        if expires is not None and expires.tzinfo is None:
            expires = expires.replace(tzinfo=UTC)
        if expires is not None and expires <= now:
            raise JobRejected(Reason.BAD_REQUEST, "The key would have expired already.")
        key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(_SECRET_BYTES)
        record = KeyRecord(
            id=key_id, sha256=hash_of(secret), tenant=tenant, scopes=wanted, name=name.strip(),
            created=now, expires=expires,
        )  # fmt: skip
        await self._put(record)
        return record, f"frond_{key_id}_{secret}"

    async def get(self, key_id: str) -> KeyRecord:
        """A key's record. Raises ObjectMissing where there is none, or none that can be read."""
        if not _ID.fullmatch(key_id):
            raise ObjectMissing(f"key {key_id[:40]!r}")
        raw = await self._store.get(keys.api_key(key_id))
        try:
            record = KeyRecord.model_validate_json(raw)
        except ValidationError as e:
            raise ObjectMissing(f"key {key_id}: its record cannot be read") from e
        if record.id != key_id:
            raise ObjectMissing(f"key {key_id}: its record is another key's")
        return record

    async def list(self) -> Sequence[KeyRecord]:
        """All keys, the oldest first, revoked ones too."""
        found = []
        async for item in self._store.list(keys.KEYS):
            try:
                found.append(await self.get(item.key.removeprefix(keys.KEYS).removesuffix(".json")))
            except ObjectMissing:
                continue
        return sorted(found, key=lambda r: (r.created, r.id))

    async def any(self) -> bool:
        """Whether a key was ever made."""
        async for _ in self._store.list(keys.KEYS):
            return True
        return False

    async def revoke(self, key_id: str) -> KeyRecord:
        """Make a key good for nothing; revoking it again changes nothing. Raises ObjectMissing."""
        record = await self.get(key_id)
        if record.revoked is None:
            record = record.model_copy(update={"revoked": datetime.now(UTC)})
            await self._put(record)
        return record

    async def _put(self, record: KeyRecord) -> None:
        body = record.model_dump_json().encode()
        await self._store.put(keys.api_key(record.id), body, "application/json")
