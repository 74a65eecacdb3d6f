"""Tokens against a real JWKS on loopback: which pass, which never do."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from auth_issuer import AUDIENCE, Issuer
from cryptography.hazmat.primitives import serialization

from frond.auth import DEFAULT_TENANT, Scope
from frond.auth.jwks import ANEW_S, FRESH_S, STALE_S, KeySet, Unfetched, fetch_json
from frond.auth.tokens import Tokens
from frond.contracts.errors import JobRejected
from frond.contracts.reasons import Reason


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as made:
        made.add("one")
        yield made


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(issuer: Issuer, clock: Clock) -> Tokens:
    return Tokens(KeySet(issuer.url, clock=clock), issuer.url, AUDIENCE, "tenant")


async def denied(tokens: Tokens, token: str, reason: Reason = Reason.UNAUTHORIZED) -> str:
    with pytest.raises(JobRejected) as caught:
        await tokens.verify(token)
    assert caught.value.reason is reason
    return caught.value.detail


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
async def test_asymmetric_tokens_pass(issuer: Issuer, tokens: Tokens, algorithm: str) -> None:
    """Each allowed algorithm, with subject, tenant and our scopes; found by discovery alone."""
    issuer.add("mine", algorithm)
    who = await tokens.verify(issuer.token("mine", algorithm))
    assert (who.subject, who.tenant) == ("jwt:ana", "acme")
    assert who.scopes == {Scope.SUBMIT, Scope.READ}


async def test_scopes_of_either_claim(issuer: Issuer, tokens: Tokens) -> None:
    """``scp`` as a list or text, with or without our prefix; what is not ours gives nothing."""
    listed = issuer.token("one", scope=..., scp=["frond:read", "files.read", 7])
    assert (await tokens.verify(listed)).scopes == {Scope.READ}
    text = issuer.token("one", scope=..., scp="submit administrator")
    assert (await tokens.verify(text)).scopes == {Scope.SUBMIT}


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": 1}, {"exp": ...}, {"nbf": 4102444800}, {"iss": "http://127.0.0.1:1"},
        {"iss": ...}, {"aud": "other"}, {"aud": ...}, {"sub": ...}, {"sub": 7}, {"exp": "soon"},
        {"tenant": ...}, {"tenant": ["acme"]}, {"tenant": "../x"}, {"tenant": "a\nb"},
        {"tenant": ""},
    ],
    ids=str,
)  # fmt: skip
async def test_bad_claims_are_denied(
    issuer: Issuer, tokens: Tokens, claims: dict[str, Any]
) -> None:
    """Expired, early, of another issuer or audience, without a claim, with a tenant that is none."""
    assert len(await denied(tokens, issuer.token("one", **claims))) > 20


async def test_unsigned_tokens_are_denied(issuer: Issuer, tokens: Tokens) -> None:
    """``alg: none`` in any spelling, with and without a signature."""

    def b64(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    body = b64(json.dumps(issuer.claims()).encode())
    for spelling in ("none", "None", "NONE", "nOnE", "", None, ["none"], 5):
        head = b64(json.dumps({"alg": spelling, "typ": "JWT", "kid": "one"}).encode())
        for signature in ("", b64(b"x" * 256)):
            await denied(tokens, f"{head}.{body}.{signature}")


async def test_the_public_key_is_no_shared_secret(issuer: Issuer, tokens: Tokens) -> None:
    """HS256 keyed with the public key as everybody can have it: PEM, DER, or the JWK's text."""
    public = issuer.private["one"].public_key()
    forms = [
        public.public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
        for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER)
    ] + [json.dumps(issuer.published[0]).encode(), issuer.published[0]["n"].encode()]
    good = issuer.token("one")
    for form in forms:
        for algorithm, sha in (("HS256", hashlib.sha256), ("HS512", hashlib.sha512)):
            head = {"alg": algorithm, "typ": "JWT", "kid": "one"}
            encoded = base64.urlsafe_b64encode(json.dumps(head).encode()).rstrip(b"=").decode()
            signed = f"{encoded}.{good.split('.')[1]}"
            mac = base64.urlsafe_b64encode(hmac.new(form, signed.encode(), sha).digest())
            await denied(tokens, f"{signed}.{mac.rstrip(b'=').decode()}")


async def test_a_symmetric_key_in_the_set_is_passed_over(issuer: Issuer, tokens: Tokens) -> None:
    """An ``oct`` key that an issuer publishes by mistake verifies nothing."""
    secret = b"k" * 32
    k = base64.urlsafe_b64encode(secret).rstrip(b"=").decode()
    issuer.published.append({"kty": "oct", "kid": "sym", "k": k, "alg": "HS256"})
    await denied(tokens, jwt.encode(issuer.claims(), secret, "HS256", {"kid": "sym"}))
    await denied(tokens, issuer.token("one", headers={"kid": "sym"}))


async def test_a_key_is_used_as_it_says(issuer: Issuer, tokens: Tokens) -> None:
    """Another algorithm than the key's, an encryption key, a short RSA key: denied."""
    issuer.add("only-rs", alg="RS256")
    issuer.add("enc", use="enc")
    issuer.add("short", bits=1024)
    issuer.add("curve", "ES256")
    assert await tokens.verify(issuer.token("only-rs"))
    await denied(tokens, issuer.token("only-rs", "PS256"))
    await denied(tokens, issuer.token("enc"))
    await denied(tokens, issuer.token("short"))
    await denied(tokens, issuer.token("one", headers={"kid": "curve"}))


async def test_another_signer_is_denied(issuer: Issuer, tokens: Tokens) -> None:
    """Signed by somebody else under a known id, or with its own key or its address in the header."""
    with Issuer() as other:
        other.add("one")
        mine = other.private["one"]
        for extra in ({}, {"jwk": other.published[0]}, {"jku": other.url + "/keys"}):
            await denied(tokens, issuer.token("one", key=mine, headers=extra))
        assert other.fetches == 0
    good = issuer.token("one")
    head, body, signature = good.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims["tenant"] = "beta"
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    await denied(tokens, f"{head}.{forged}.{signature}")


async def test_tokens_without_a_usable_key_id(issuer: Issuer, tokens: Tokens) -> None:
    """Where the issuer has one key, that is meant; where it has several, a token must say which."""
    assert await tokens.verify(issuer.token("one", headers={"kid": ...}))
    issuer.add("two")
    several = Tokens(KeySet(issuer.url), issuer.url, AUDIENCE, "tenant")
    for kid in (..., "", "one ", "ONE", "../one", "\n0"):
        await denied(several, issuer.token("one", headers={"kid": kid}))
    assert await several.verify(issuer.token("one"))


async def test_what_must_be_understood_and_is_not(issuer: Issuer, tokens: Tokens) -> None:
    """RFC 7515 §4.1.11: a token whose ``crit`` names what nobody here knows is none."""
    for crit in (["lifetime"], ["exp"], [], "b64"):
        await denied(tokens, issuer.token("one", headers={"crit": crit, "lifetime": 5, "exp": 1}))


async def test_clocks_may_differ_by_half_a_minute(issuer: Issuer, tokens: Tokens) -> None:
    """And by no more: before a token is good, and after it has expired."""
    now = int(time.time())
    assert await tokens.verify(issuer.token("one", exp=now - 20))
    assert await tokens.verify(issuer.token("one", nbf=now + 20))
    assert "expired" in await denied(tokens, issuer.token("one", exp=now - 31))
    assert "yet" in await denied(tokens, issuer.token("one", nbf=now + 60))


async def test_old_tokens_are_denied_where_age_has_a_limit(issuer: Issuer, clock: Clock) -> None:
    """However late they expire; and those that do not say how old they are. Elsewhere, both pass."""
    keys, now = KeySet(issuer.url, clock=clock), int(time.time())
    limited = Tokens(keys, issuer.url, AUDIENCE, "tenant", 900)
    free = Tokens(keys, issuer.url, AUDIENCE, "tenant")
    late = {"exp": now + 10**6, "nbf": ...}
    assert await limited.verify(issuer.token("one", **late, iat=now - 900))
    for iat, told in ((now - 960, "900 s"), (..., "'iat'")):
        token = issuer.token("one", **late, iat=iat)
        assert told in await denied(limited, token)
        assert await free.verify(token)
    for iat in ("soon", None, [now], float("inf")):
        await denied(limited, issuer.token("one", **late, iat=iat))
    assert "yet" in await denied(limited, issuer.token("one", **late, iat=now + 60))


@pytest.mark.parametrize("text", ["a.b.c", "..", "é.é.é", "x" * 9000, "e30.e30.e30", "\x00.\x00."])
async def test_any_text_is_denied_with_a_sentence(tokens: Tokens, text: str) -> None:
    assert await denied(tokens, text)


async def test_keys_rotate(issuer: Issuer, tokens: Tokens, clock: Clock) -> None:
    """A new key id is fetched at once, unknown ones at most twice a minute; a withdrawn key ends."""
    await tokens.verify(issuer.token("one"))
    old = issuer.token("one")
    issuer.add("two")
    fresh = issuer.token("two")
    await denied(tokens, fresh)  # asked a moment ago
    clock.now += ANEW_S
    assert await tokens.verify(fresh)
    assert issuer.fetches == 2
    for n in range(20):
        await denied(tokens, issuer.token("one", headers={"kid": f"guess-{n}"}))
    assert issuer.fetches == 2
    del issuer.published[0]
    clock.now += FRESH_S
    await denied(tokens, old)
    assert await tokens.verify(issuer.token("two"))


async def test_an_issuer_that_is_away(issuer: Issuer, tokens: Tokens, clock: Clock) -> None:
    """Known keys serve for an hour; after it, and from the start, the answer is 'unavailable'."""
    token = issuer.token("one", exp=int(time.time()) + 10)
    await tokens.verify(token)
    issuer.down = True
    clock.now += FRESH_S
    assert await tokens.verify(token)
    clock.now += STALE_S
    await denied(tokens, token, Reason.UNAVAILABLE)
    issuer.down = False
    clock.now += ANEW_S
    assert await tokens.verify(token)


async def test_no_key_is_fetched_from_elsewhere(issuer: Issuer, clock: Clock) -> None:
    """No redirect is followed, no plain http beyond loopback, no configuration of another issuer."""
    issuer.moved = True
    with pytest.raises(Unfetched):
        fetch_json(issuer.url + "/keys")
    issuer.moved = False
    for url in ("http://example.org/keys", "file:///etc/passwd", "ftp://127.0.0.1/x", ""):
        with pytest.raises(Unfetched, match="not https"):
            fetch_json(url)
    issuer.says = "https://evil.example"
    tokens = Tokens(KeySet(issuer.url, clock=clock), issuer.url, AUDIENCE, "tenant")
    await denied(tokens, issuer.token("one"), Reason.UNAVAILABLE)
    assert issuer.fetches == 0


async def test_tenants_of_tokens(issuer: Issuer, clock: Clock) -> None:
    """An admin's token needs no tenant; where no claim is configured, all are of one tenant."""
    tokens = Tokens(KeySet(issuer.url), issuer.url, AUDIENCE, "tenant")
    admin = await tokens.verify(issuer.token("one", tenant=..., scope="admin"))
    assert admin.tenant is None and admin.admin and admin.sees("acme") and admin.sees(None)
    single = Tokens(KeySet(issuer.url), issuer.url, AUDIENCE, "")
    who = await single.verify(issuer.token("one"))
    assert who.tenant == DEFAULT_TENANT and not who.sees("acme") and not who.sees(None)
