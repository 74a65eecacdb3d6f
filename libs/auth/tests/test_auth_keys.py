"""Keys in the real object store, and the gate that asks for them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from auth_issuer import AUDIENCE, Issuer
from pydantic import SecretStr, ValidationError

from frond.auth import ANYBODY, INSTALLATION, AuthSettings, Gate, KeyStore, Scope
from frond.auth.cache import KEEP_S, MOST_WAITING, KeyCache
from frond.auth.keys import KeyRecord, parse
from frond.contracts import keys
from frond.contracts.errors import JobRejected, ObjectMissing, StoreUnavailable
from frond.contracts.reasons import Reason
from frond.stack import Endpoints
from frond.store import ObjectStore, StoreSettings

pytestmark = pytest.mark.stack
BOTH = (Scope.SUBMIT, Scope.READ)


@pytest.fixture
async def store(stack: Endpoints, bucket: str) -> AsyncIterator[ObjectStore]:
    made = ObjectStore(
        StoreSettings(stack.s3_endpoint, stack.access_key, stack.secret_key, bucket), threads=4
    )
    yield made
    made.close()


def gate_of(store: ObjectStore, **settings: Any) -> Gate:
    return Gate(AuthSettings(**settings), store, lambda _: None)


async def denied(gate: Gate, header: str | None) -> str:
    with pytest.raises(JobRejected) as caught:
        await gate.identify(header)
    assert caught.value.reason is Reason.UNAUTHORIZED
    return caught.value.detail


async def test_a_key_is_made_used_and_revoked(store: ObjectStore) -> None:
    """The store never has the secret; the key opens the gate until it is revoked."""
    made = KeyStore(store)
    record, key = await made.create("laptop", tenant="acme", scopes=BOTH)
    parsed = parse(key)
    assert parsed is not None and parsed.id == record.id and len(parsed.secret) == 43
    raw = await store.get(keys.api_key(record.id))
    assert parsed.secret.encode() not in raw and key.encode() not in raw
    assert json.loads(raw)["sha256"] != parsed.secret
    gate = gate_of(store)
    who = await gate.identify(f"Bearer {key}")
    assert (who.subject, who.tenant, who.scopes) == (f"key:{record.id}", "acme", set(BOTH))
    await made.revoke(record.id)
    again = await made.revoke(record.id)
    assert again.revoked is not None
    assert "revoked" in await denied(gate_of(store), f"Bearer {key}")
    assert [r.state(datetime.now(UTC)) for r in await made.list()] == ["revoked"]


async def test_two_keys_are_never_alike(store: ObjectStore) -> None:
    """Ids and secrets are drawn anew, and a secret opens only under its own id."""
    made = KeyStore(store)
    keys_made = [await made.create("n", tenant="a", scopes=BOTH) for _ in range(3)]
    assert len({k for _, k in keys_made}) == len({r.id for r, _ in keys_made}) == 3
    (first, key), (other, _), _ = keys_made
    assert "not known" in await denied(gate_of(store), f"Bearer {key.replace(first.id, other.id)}")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"scopes": ()}, "scope"), ({"tenant": "a b"}, "tenant"), ({"tenant": None}, "tenant"),
        ({"name": " "}, "name"), ({"name": "x" * 201}, "name"), ({"name": "a\x1b[2J"}, "name"),
        ({"expires": datetime(2020, 1, 1, tzinfo=UTC)}, "expired"),
    ],
)  # fmt: skip
async def test_keys_that_cannot_be(store: ObjectStore, more: dict[str, Any], told: str) -> None:
    with pytest.raises(JobRejected, match=told):
        await KeyStore(store).create(
            **{"name": "n", "tenant": "acme", "scopes": BOTH, **more}  # type: ignore[arg-type]
        )
    assert not await KeyStore(store).any()


async def test_an_expired_key_is_denied(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Expiry counts at each use, also for a record that is remembered."""
    soon = datetime.now(UTC) + timedelta(hours=1)
    _, key = await KeyStore(store).create("n", tenant="acme", scopes=BOTH, expires=soon)
    gate = gate_of(store)
    await gate.identify(f"Bearer {key}")

    class Then(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return soon

    monkeypatch.setattr("frond.auth.gate.datetime", Then)
    assert "expired" in await denied(gate, f"Bearer {key}")


async def test_a_record_is_remembered_for_seconds_only(store: ObjectStore) -> None:
    """Within five seconds nobody asks the store; after them, as docs/security.md says, a revoked key is
    refused."""
    now = [100.0]
    made = KeyStore(store)
    cache = KeyCache(made, clock=lambda: now[0])
    record, _ = await made.create("n", tenant="acme", scopes=BOTH)
    assert (await cache.get(record.id)) == record
    await made.revoke(record.id)
    now[0] += 4.99
    assert (await cache.get(record.id)) == record
    now[0] += 0.02
    looked = await cache.get(record.id)
    assert looked is not None and looked.revoked is not None


async def test_guessed_ids_push_no_key_out(store: ObjectStore) -> None:
    """Unknown ids are remembered apart, and no more than a thousand of them."""
    made = KeyStore(store)
    cache = KeyCache(made)
    record, _ = await made.create("n", tenant="acme", scopes=BOTH)
    await cache.get(record.id)
    for some in range(0, 1200, MOST_WAITING):
        ids = [f"{n:016x}" for n in range(some, min(some + MOST_WAITING, 1200))]
        await asyncio.gather(*(cache.get(i) for i in ids))
    assert len(cache._unknown) <= 1000
    assert record.id in cache._known and not cache._asking


class Held(KeyStore):
    """Keeps whoever asks for an id of zeros waiting."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__(store)
        self.go_on = asyncio.Event()

    async def get(self, key_id: str) -> KeyRecord:
        if key_id.startswith("0000"):
            await self.go_on.wait()
        return await super().get(key_id)


async def test_guessed_ids_keep_no_key_waiting(store: ObjectStore) -> None:
    """While ids that nobody has are looked up, a key that was seen is refreshed at once; of those
    ids no more than some wait, and the next is told to come again."""
    now = [100.0]
    made = Held(store)
    cache = KeyCache(made, clock=lambda: now[0])
    record, _ = await made.create("n", tenant="acme", scopes=BOTH)
    assert (await cache.get(record.id)) == record
    guesses = [asyncio.create_task(cache.get(f"{n:016x}")) for n in range(MOST_WAITING)]
    await asyncio.sleep(0)
    now[0] += KEEP_S
    assert (await asyncio.wait_for(cache.get(record.id), 20)) == record
    with pytest.raises(JobRejected) as caught:
        await cache.get("f" * 16)
    assert caught.value.reason is Reason.UNAVAILABLE
    made.go_on.set()
    assert await asyncio.gather(*guesses) == [None] * MOST_WAITING
    assert await cache.get("f" * 16) is None and not cache._waiting


async def test_ids_name_no_other_object(store: ObjectStore) -> None:
    """An id that climbs, or a record under another's name, finds nothing."""
    made = KeyStore(store)
    record, _ = await made.create("n", tenant="acme", scopes=(Scope.ADMIN,))
    raw = await store.get(keys.api_key(record.id))
    await store.put(keys.api_key("0" * 16), raw)
    await store.put(keys.api_key("1" * 16), b"no json")
    for key_id in ("0" * 16, "1" * 16, "../jobs/x", "", record.id.upper() + "x"):
        with pytest.raises(ObjectMissing):
            await made.get(key_id)
    assert [r.id for r in await made.list()] == [record.id]


async def test_the_gate_is_shut_by_default(store: ObjectStore) -> None:
    """With nothing configured everyone is refused, and told how to make the first key."""
    gate = gate_of(store)
    for header in (None, "", "Bearer ", "Basic YTpi", "Bearer x", "Bearer frond_x_y"):
        assert "frond keys create --store" in await denied(gate, header)
    _, key = await KeyStore(store).create("first", tenant=None, scopes=(Scope.ADMIN,))
    assert (await gate.identify(f"bearer {key}")).admin
    assert "frond keys create" not in await denied(gate_of(store), None)


async def test_the_installations_own_key(store: ObjectStore) -> None:
    """FROND_API_KEY is admin; anything else, of any length, is not."""
    gate = gate_of(store, api_key=SecretStr("own-ключ"))
    assert await gate.identify("Bearer own-ключ") == INSTALLATION
    for wrong in ("own", "own-ключ2", "OWN-КЛЮЧ", "\udcff"):
        assert "make" not in await denied(gate, f"Bearer {wrong}")
    assert INSTALLATION.admin and INSTALLATION.tenant is None


async def test_off_is_for_loopback(store: ObjectStore) -> None:
    """FROND_AUTH=off lets everybody in, and only where nobody but this machine can come."""
    warned: list[str] = []
    gate = Gate(AuthSettings(auth="off"), store, warned.append)
    assert await gate.identify(None) == ANYBODY and "off" in warned[0]

    class Here(AuthSettings):
        http_host: str

    for host in ("127.0.0.1", "::1", "localhost", "127.8.8.8"):
        Here(auth="off", http_host=host)
    for host in ("0.0.0.0", "::", "192.168.1.4", "example.org", ""):
        with pytest.raises(ValidationError, match="loopback"):
            Here(auth="off", http_host=host)
    with pytest.raises(ValidationError, match="AUDIENCE"):
        AuthSettings(jwt_issuer="https://issuer.example")


async def test_keys_and_tokens_side_by_side(store: ObjectStore) -> None:
    """With an issuer configured, its tokens and stored keys open the same gate."""
    _, key = await KeyStore(store).create("n", tenant="acme", scopes=BOTH)
    with Issuer() as issuer:
        issuer.add("one")
        gate = gate_of(store, jwt_issuer=issuer.url, jwt_audience=AUDIENCE)
        assert (await gate.identify(f"Bearer {issuer.token('one')}")).subject == "jwt:ana"
        assert (await gate.identify(f"Bearer {key}")).tenant == "acme"
        await denied(gate, f"Bearer {issuer.token('one', aud='x')}")
        await denied(gate_of(store), f"Bearer {issuer.token('one')}")


async def test_a_token_may_be_too_old_before_it_ends(store: ObjectStore) -> None:
    """FROND_JWT_MAX_AGE_S reaches the gate: twenty minutes are more than 900 seconds, ten are not."""
    with Issuer() as issuer:
        issuer.add("one")
        told = {"jwt_issuer": issuer.url, "jwt_audience": AUDIENCE}
        gate = gate_of(store, **told, jwt_max_age_s=900)
        twenty, ten = (
            f"Bearer {issuer.token('one', iat=int(time.time()) - 60 * minutes)}"
            for minutes in (20, 10)
        )
        assert (await gate.identify(ten)).subject == "jwt:ana"
        await denied(gate, twenty)
        assert (await gate_of(store, **told).identify(twenty)).subject == "jwt:ana"


def test_a_key_of_somebody_is_not_taken_for_the_installations_own() -> None:
    """Keys that were made have a form of their own; with one of them everything would be open."""
    with pytest.raises(ValueError, match="made for somebody"):
        AuthSettings(api_key=SecretStr(f"frond_{'0' * 16}_{'x' * 43}"))


@pytest.mark.parametrize("away", [False, True])
async def test_whoever_has_no_key_has_one_listing_of_the_store(
    monkeypatch: pytest.MonkeyPatch, away: bool
) -> None:
    """However many ask at once, whether or not the store answers: the first is told how to make a key,
    and later ones from what is remembered."""
    asked = 0

    async def list_slowly(_: KeyStore) -> bool:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.05)
        if away:
            raise StoreUnavailable("away")
        return False

    monkeypatch.setattr(KeyStore, "any", list_slowly)
    gate = gate_of(ObjectStore(StoreSettings("http://127.0.0.1:1", "a", "b" * 8, "frond")))
    first, *_ = await asyncio.gather(*(denied(gate, None) for _ in range(1000)))
    later = await denied(gate, None)
    assert asked == 1
    assert ("frond keys create" in first) == ("frond keys create" in later) == (not away)
